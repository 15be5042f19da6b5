"""`make bench-gpu`: seconds per image and peak memory of full-size models beside stock diffusers, in one interleaved run."""

import json
import sys
import tempfile
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusionPipeline

from benchmarks.figures import summary
from benchmarks.gpu.full_size import build_sd15
from jobs.contract import Txt2ImgParameters
from models_registry.bounded_files import Reads
from models_registry.detection import detect
from pipelines.families.base import Family
from pipelines.loading import load

RESULTS = Path(__file__).parent.parent / "results"
ROUNDS = 8
STEPS = 25
SIDE = 512
PROMPT = "a red circle on a blue background"


def _through_engine(family: Family, seed: int) -> None:
    parameters = Txt2ImgParameters(
        model=family.entry.name,
        prompt=PROMPT,
        width=SIDE,
        height=SIDE,
        steps=STEPS,
        guidance_scale=7.0,
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


def _stock(pipe: Any, seed: int) -> None:
    pipe(
        PROMPT,
        height=SIDE,
        width=SIDE,
        num_inference_steps=STEPS,
        guidance_scale=7.0,
        generator=torch.Generator("cpu").manual_seed(seed),
        output_type="np",
    )


def measure_sd15() -> dict[str, Any]:
    """Measure Stable Diffusion 1.5 at 512 x 512, 25 steps, guidance 7, half precision."""
    with tempfile.TemporaryDirectory(prefix="imagefleet-gpu-") as temporary:
        folder = build_sd15(Path(temporary) / "full-sd15")
        family = load(detect(folder, Reads()), "cuda", dtype=torch.float16)
        pipe = StableDiffusionPipeline.from_pretrained(folder, dtype=torch.float16, safety_checker=None).to("cuda")
        pipe.set_progress_bar_config(disable=True)
        seconds: dict[str, list[float]] = {"engine": [], "stock": []}
        peaks: dict[str, int] = {}
        for number in range(ROUNDS + 1):
            for name, draw, drawn_by in (("engine", _through_engine, family), ("stock", _stock, pipe)):
                torch.cuda.synchronize()
                torch.cuda.reset_peak_memory_stats()
                began = time.perf_counter()
                draw(drawn_by, number)
                torch.cuda.synchronize()
                seconds[name].append(time.perf_counter() - began)
                peaks[name] = torch.cuda.max_memory_allocated()
    ratios = [ours / theirs for ours, theirs in zip(seconds["engine"][1:], seconds["stock"][1:], strict=True)]
    return {
        "engine_seconds_per_image": summary(seconds["engine"][1:]),
        "stock_seconds_per_image": summary(seconds["stock"][1:]),
        "engine_over_stock": summary(ratios),
        # Both models are resident: the difference to their weights is what drawing needs.
        "peak_bytes": peaks,
    }


def main() -> None:
    """Measure, print, and write one dated file."""
    if not torch.cuda.is_available():
        print("There is no GPU here: nothing was measured.")
        sys.exit(0)
    report = {
        "taken_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "device": torch.cuda.get_device_name(),
        "versions": {name: version(name) for name in ("torch", "diffusers")},
        "figures": {"sd15": measure_sd15()},
    }
    print(json.dumps(report, indent=2))
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{datetime.now(UTC):%Y-%m-%d-%H%M}-gpu.json"
    path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
