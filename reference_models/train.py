"""Train a reference model: `python -m reference_models.train shapes-sd15`.

Checkpoints lie in the work folder: the same command goes on where it was interrupted.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import Final, Protocol

import torch

from reference_models.card import write_card
from reference_models.measure import COUNT, measure
from reference_models.measure_addons import ADD_ONS
from reference_models.measuring.figures import write_figures
from reference_models.training import (
    controlnet,
    embedding,
    flux,
    flux_lora,
    grey,
    inpaint,
    lora,
    sd2,
    sd3,
    sd15,
    sdxl,
    sdxl_lora,
    turbo,
    upscaler,
)
from reference_models.training.family import Family, prepare, published

HERE: Final = Path(__file__).parent
QUICK_QUESTIONS: Final = 4


class Trainer(Protocol):
    """Train one model into the target and return the seconds it took."""

    def __call__(self, family: Family, folder: Path, target: Path, *, quick: bool = False) -> float:
        """Train with checkpoints in the folder."""


FROM_NOTHING: Final[dict[str, Trainer]] = {
    sd15.NAME: sd15.train,
}
"""Every model that is trained together with the parts that its family shares."""

WHOLE: Final[dict[str, Trainer]] = {
    sd2.NAME: sd2.train,
    sdxl.NAME: sdxl.train,
    turbo.NAME: turbo.train,
    flux.NAME: flux.train,
    sd3.NAME: sd3.train,
}
"""Every other whole model: it takes the shared parts, and perhaps the start of its denoiser, from `shapes-sd15`."""

ADDING: Final[dict[str, Trainer]] = {
    controlnet.NAME: controlnet.train,
    inpaint.NAME: inpaint.train,
    embedding.NAME: embedding.train,
    grey.NAME: grey.train,
    **dict.fromkeys(lora.STYLES, lora.train),
    **dict.fromkeys(sdxl_lora.STYLES, sdxl_lora.train),
    flux_lora.NAME: flux_lora.train,
    **dict.fromkeys(upscaler.SCALES, upscaler.train),
}
"""Everything that adds to a published model; where it lies and how it is measured: `measure_addons.py`."""


def arguments() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(prog="python -m reference_models.train", description=__doc__)
    parser.add_argument("model", choices=sorted({**FROM_NOTHING, **WHOLE, **ADDING}))
    parser.add_argument("--out", type=Path, help="where to put it (default: beside this file)")
    parser.add_argument("--work", type=Path, default=Path(".training"), help="checkpoints and cached latents")
    parser.add_argument("--quick", action="store_true", help="a few steps only: proves that the code runs")
    parser.add_argument("--threads", type=int, default=2, help="1 is faster where other work fills the cores")
    return parser


def main(given: list[str] | None = None) -> None:
    """Train, measure, and write the model's card."""
    asked = arguments().parse_args(given)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(asked.threads)
    work = asked.work / "quick" if asked.quick else asked.work
    # A quick run must never end up in place of the real weights unless it was told to.
    root = work if asked.quick else HERE
    if asked.model in {**FROM_NOTHING, **WHOLE}:
        target = asked.out or root / asked.model
        alone = asked.model in FROM_NOTHING
        family = (prepare if alone else published)(work, quick=asked.quick)
        spent = (FROM_NOTHING if alone else WHOLE)[asked.model](family, work, target, quick=asked.quick)
        figures = measure(target, QUICK_QUESTIONS if asked.quick else COUNT)
        write_card(target, figures, {**family.seconds, "denoiser": spent})
        return
    add_on = ADD_ONS[asked.model]
    target = asked.out or root / add_on.place
    spent = ADDING[asked.model](published(work, quick=asked.quick), work, target, quick=asked.quick)
    write_figures(target, add_on.measure(target, QUICK_QUESTIONS if asked.quick else add_on.count), spent)


if __name__ == "__main__":
    main()
