"""Measure what adds to a model, as its card says: `python -m reference_models.measure_addons NAME [--write]`."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch

from reference_models.measuring import controlnet, embedding, grey, inpaint, lora, upscaler
from reference_models.measuring.figures import Figures, write_figures

HERE: Final = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class AddOn:
    """Say where an add-on lies beside this file and how it is measured."""

    place: str
    measure: Callable[[Path, int], Figures]
    count: int = 32
    """How many pictures the figures in its card are of."""


ADD_ONS: Final[dict[str, AddOn]] = {
    "shapes-canny": AddOn("shapes-canny", controlnet.measure),
    "shapes-sd15-inpaint": AddOn("shapes-sd15-inpaint", inpaint.measure, 64),
    "shapes-dusk": AddOn("embeddings/shapes-dusk.safetensors", embedding.measure),
    "shapes-x2": AddOn("upscalers/shapes-x2.safetensors", upscaler.measure, 64),
    "shapes-x4": AddOn("upscalers/shapes-x4.safetensors", upscaler.measure, 64),
    "shapes-grey": AddOn("vaes/shapes-grey", grey.measure),
    **{name: AddOn(f"loras/{name}.safetensors", lora.measure) for name in (*lora.SCORES, *lora.FRAMES)},
}
"""Everything that adds to a model, most of it to `shapes-sd15`."""


def main(given: list[str] | None = None) -> None:
    """Measure one add-on and print the figures."""
    parser = argparse.ArgumentParser(prog="python -m reference_models.measure_addons", description=__doc__)
    parser.add_argument("name", choices=sorted(ADD_ONS))
    parser.add_argument("--write", action="store_true", help="put the figures into its card")
    parser.add_argument("--count", type=int, help="how many pictures (default: as many as in its card)")
    parser.add_argument("--threads", type=int, default=2)
    asked = parser.parse_args(given)
    torch.set_num_threads(asked.threads)
    add_on = ADD_ONS[asked.name]
    target = HERE / add_on.place
    figures = add_on.measure(target, asked.count or add_on.count)
    for name, value in figures.items():
        print(f"{value:6.3f}  {name}")
    if asked.write:
        write_figures(target, figures)


if __name__ == "__main__":
    main()
