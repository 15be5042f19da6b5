"""`make bench-gpu`: seconds per image and peak memory of full-size models beside stock diffusers, in one interleaved run."""

import json
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, NamedTuple

import diffusers
import torch

from benchmarks.figures import summary
from benchmarks.gpu.full_size import build
from jobs.contract import Txt2ImgParameters
from models_registry.detection import detect
from models_registry.reading.bounded_files import Reads
from pipelines.families.base import Family
from pipelines.loading import load

RESULTS = Path(__file__).parent.parent / "results"
ROUNDS = 8
PROMPT = "a red circle on a blue background"
#: The library ships no types for this class.
_PIPELINE: Any = diffusers.DiffusionPipeline


class Case(NamedTuple):
    """One model and how it is drawn with."""

    #: A key of `full_size.PIPELINES`.
    model: str
    #: Side of the picture, pixels.
    side: int
    steps: int
    guidance_scale: float
    #: Seconds per image that the arithmetic alone takes on an H200 in half precision at its full dense rate; None where nobody counted.
    floor_seconds: float | None = None


CASES: Final[Mapping[str, Case]] = {
    "sd15": Case("sd15", 512, 25, 7.0, 0.054),
    "sdxl": Case("sdxl", 1024, 30, 5.0, 0.527),
    # Each step 31.2 TFLOP a row, two rows: 38 blocks of width 2432 over 4 429 tokens, and their attention.
    "sd35": Case("sd3.5-large", 1024, 28, 3.5, 1.77),
    # Each step 74.4 TFLOP: 57 blocks of width 3072 over 4 608 tokens, and their attention.
    "flux": Case("flux", 1024, 28, 3.5, 2.12),
}


def _through_engine(family: Family, case: Case, seed: int) -> None:
    parameters = Txt2ImgParameters(
        model=family.entry.name,
        prompt=PROMPT,
        width=case.side,
        height=case.side,
        steps=case.steps,
        guidance_scale=case.guidance_scale,
        scheduler="Euler",
        seed=seed,
        preview_every=0,
    )
    state = family.prepare(parameters, 0)
    try:
        while state.phase == "denoise":
            for failure in family.step([state]).errors.values():
                raise failure
        family.finish([state])
    finally:
        state.close()


def _stock(pipe: Any, case: Case, seed: int) -> None:
    pipe(
        PROMPT,
        height=case.side,
        width=case.side,
        num_inference_steps=case.steps,
        guidance_scale=case.guidance_scale,
        generator=torch.Generator("cpu").manual_seed(seed),
        output_type="np",
    )


def measure(case: Case, folder: Path, device: str, rounds: int = ROUNDS) -> dict[str, Any]:
    """Draw with a model's folder through the engine and with stock diffusers in turn, at the engine's precision."""
    family = load(detect(folder, Reads()), device)
    held = (getattr(family.pipe, "transformer", None) or family.pipe.unet).dtype
    pipe = _PIPELINE.from_pretrained(folder, dtype=held).to(device)
    pipe.set_progress_bar_config(disable=True)
    ways: dict[str, Callable[[int], None]] = {
        "engine": lambda seed: _through_engine(family, case, seed),
        "stock": lambda seed: _stock(pipe, case, seed),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    peaks: dict[str, int] = {}
    # The first round warms up.
    for number in range(rounds + 1):
        for name, draw in ways.items():
            _settle(device)
            began = time.perf_counter()
            draw(number)
            _settle(device, peaks, name)
            seconds[name].append(time.perf_counter() - began)
    family.close()
    ratios = [ours / theirs for ours, theirs in zip(seconds["engine"][1:], seconds["stock"][1:], strict=True)]
    return {
        "case": case._asdict(),
        "engine_seconds_per_image": summary(seconds["engine"][1:]),
        "stock_seconds_per_image": summary(seconds["stock"][1:]),
        "engine_over_stock": summary(ratios),
        # Both models are resident: the difference to their weights is what drawing needs.
        "peak_bytes": peaks,
    }


def _settle(device: str, peaks: dict[str, int] | None = None, name: str = "") -> None:
    """Wait for the device and note its peak since the last time, or begin to watch it; CPUs know no peak."""
    if device != "cuda":
        return
    torch.cuda.synchronize()
    if peaks is None:
        torch.cuda.reset_peak_memory_stats()
    else:
        peaks[name] = torch.cuda.max_memory_allocated()


def main() -> None:
    """Measure the models that are named, or all, print, and write one dated file."""
    if not torch.cuda.is_available():
        print("There is no GPU here: nothing was measured.")
        sys.exit(0)
    figures = {}
    for name in sys.argv[1:] or CASES:
        case = CASES[name]
        with tempfile.TemporaryDirectory(prefix="imagefleet-gpu-") as temporary:
            figures[name] = measure(case, build(case.model, Path(temporary) / f"full-{name}"), "cuda")
    report = {
        "taken_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "device": torch.cuda.get_device_name(),
        "versions": {name: version(name) for name in ("torch", "diffusers")},
        "figures": figures,
    }
    print(json.dumps(report, indent=2))
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{datetime.now(UTC):%Y-%m-%d-%H%M}-gpu.json"
    path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
