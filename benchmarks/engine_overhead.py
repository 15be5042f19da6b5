"""What the step engine adds to diffusers: the same picture stepped and by the plain call, in turn, in one process.

Twice: with a denoiser that does nothing, so that only the loop is measured, and with the reference model's own. Time runs from the end of
the first step to the end of the last, so that neither reading the prompt nor decoding counts. It is processor time of the one thread that
draws, because other processes' share of the machine is not the engine's doing.
"""

import gc
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers import EulerDiscreteScheduler, StableDiffusionPipeline

import reference_models
from benchmarks.figures import summary
from jobs.contract import Txt2ImgParameters
from models_registry.detection import detect
from models_registry.reading.bounded_files import Reads
from pipelines.families.base import Family
from pipelines.loading import load

STEPS = 20
ROUNDS = {"null": 60, "reference": 30}


class NullDenoiser(torch.nn.Module):
    """Answer at once, with the input itself: what remains is the loop around it."""

    def __init__(self, real: Any) -> None:
        super().__init__()
        self.config = real.config
        self.dtype, self.device = real.dtype, real.device

    def forward(self, sample: torch.Tensor, *_: object, **__: object) -> tuple[torch.Tensor]:
        """Return the sample."""
        return (sample,)


def _parameters() -> Txt2ImgParameters:
    return Txt2ImgParameters(
        model="shapes-sd15",
        prompt="a red circle on a blue background",
        width=128,
        height=128,
        steps=STEPS,
        guidance_scale=5.0,
        scheduler="Euler",
        seed=7,
        preview_every=0,
    )


def _plain(pipe: Any, mark: Callable[[], None]) -> None:
    """Run the plain call; `mark` notes when a step ends."""

    def stepped(_pipe: Any, _index: int, _timestep: Any, _tensors: dict[str, Any]) -> dict[str, Any]:
        mark()
        return {}

    wanted = _parameters()
    pipe(
        wanted.prompt,
        negative_prompt=wanted.negative_prompt,
        width=wanted.width,
        height=wanted.height,
        num_inference_steps=wanted.steps,
        guidance_scale=wanted.guidance_scale,
        generator=torch.Generator("cpu").manual_seed(wanted.seed),
        callback_on_step_end=stepped,
        output_type="latent",
    )


def _stepped(family: Family, mark: Callable[[], None]) -> None:
    """Run the same picture through the engine; `mark` notes when a step ends."""
    state = family.prepare(_parameters(), 0)
    try:
        while state.phase == "denoise":
            for failure in family.step([state]).errors.values():
                raise failure
            mark()
    finally:
        state.close()


def _seconds_per_step(run: Callable[[Callable[[], None]], None]) -> float:
    """Return the drawing thread's processor time per step from the first to the last, which leaves preparing out."""
    marks: list[float] = []
    run(lambda: marks.append(time.thread_time()))
    return (marks[-1] - marks[0]) / (len(marks) - 1)


def _compare(family: Family, pipe: Any, rounds: int) -> dict[str, Any]:
    bare: list[float] = []
    engine: list[float] = []
    for number in range(rounds + 2):
        # In turn, and each first in every other round: a busy machine slows both alike.
        sides: list[tuple[list[float], Callable[[], float]]] = [
            (bare, lambda: _seconds_per_step(lambda mark: _plain(pipe, mark))),
            (engine, lambda: _seconds_per_step(lambda mark: _stepped(family, mark))),
        ]
        for times, measured in sides if number % 2 else reversed(sides):
            gc.collect()
            times.append(measured())
    bare, engine = bare[2:], engine[2:]
    added = [(one - other) * 1e6 for one, other in zip(engine, bare, strict=True)]
    return {
        "bare_us_per_step": summary([each * 1e6 for each in bare], 1),
        "engine_us_per_step": summary([each * 1e6 for each in engine], 1),
        "added_us_per_step": summary(added, 1),
        "engine_over_bare": summary([one / other for one, other in zip(engine, bare, strict=True)], 3),
    }


def measure() -> dict[str, Any]:
    """Measure on one thread, where a busy machine disturbs least."""
    torch.set_num_threads(1)
    folder = Path(next(iter(reference_models.__path__))) / "shapes-sd15"
    family = load(detect(folder, Reads()), "cpu")
    pipe = StableDiffusionPipeline(**family.pipe.components, requires_safety_checker=False)
    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler = EulerDiscreteScheduler.from_config(pipe.scheduler.config)
    try:
        reference = _compare(family, pipe, ROUNDS["reference"])
        family.pipe.unet = pipe.unet = NullDenoiser(pipe.unet)
        null = _compare(family, pipe, ROUNDS["null"])
    finally:
        family.close()
    return {"steps": STEPS, "null_denoiser": null, "reference_denoiser": reference}


if __name__ == "__main__":
    print(json.dumps(measure(), indent=2))
