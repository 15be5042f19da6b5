"""What it costs to switch between two checkpoints that are loaded side by side and share their text encoder and VAE: nothing but noise.

A job after one with the other model is compared with a job after one with its own, in turn, in one process; the difference is told in
denoising steps, as `adapter_switch` does. Beside it, what loading the second model takes while the first is there, against loading it
alone, in processor time: what both have is not read again. Counters tell what was read and copied while the jobs took turns.
"""

import gc
import io
import json
import time
from pathlib import Path
from typing import Any

import torch
from PIL import Image

import reference_models
from benchmarks.figures import summary
from jobs.contract import DiffusionJob, InpaintParameters, Txt2ImgParameters
from jobs.inputs import NO_INPUTS, Inputs
from models_registry.detection import detect
from models_registry.entries import ModelEntry
from models_registry.reading.bounded_files import Reads
from pipelines.engine.engine import Counters
from pipelines.families.base import Family
from pipelines.loaders import LOADERS
from pipelines.loading import load
from pipelines.shelf import Shelf

STEPS = 4
ROUNDS = 30
LOADS = 7
SIDE = 128
_SETTINGS = {
    "prompt": "a red circle on a blue background",
    "width": SIDE,
    "height": SIDE,
    "steps": STEPS,
    "guidance_scale": 5.0,
    "scheduler": "Euler",
    "seed": 7,
    "preview_every": 0,
}
_CPU = torch.device("cpu")


def _entry(name: str) -> ModelEntry:
    return detect(Path(next(iter(reference_models.__path__))) / name, Reads())


def _job_of_the_other() -> tuple[DiffusionJob, Inputs]:
    file = io.BytesIO()
    Image.new("RGB", (SIDE, SIDE), "white").save(file, "PNG")
    settings = {**_SETTINGS, "model": "shapes-sd15-inpaint", "image": "upload:white", "mask": "upload:white"}
    return InpaintParameters.model_validate(settings), Inputs({}, {"upload:white": file.getvalue()})


def _draw(family: Family, parameters: DiffusionJob, inputs: Inputs = NO_INPUTS) -> tuple[float, float]:
    """Draw a job to its last step; return the seconds of all of it, and of each step."""
    started = time.thread_time()
    state = family.prepare(parameters, 0, inputs)
    try:
        stepping = time.thread_time()
        while state.phase == "denoise":
            for failure in family.step([state]).errors.values():
                raise failure
        ended = time.thread_time()
    finally:
        state.close()
    return ended - started, (ended - stepping) / STEPS


def _switch(family: Family, other: Family, counters: Counters) -> dict[str, Any]:
    job, (others, inputs) = Txt2ImgParameters.model_validate({**_SETTINGS, "model": "shapes-sd15"}), _job_of_the_other()
    before = (counters.components_read, counters.bytes_read, counters.bytes_copied)
    switched = []
    for _ in range(ROUNDS):
        gc.collect()
        # The second of each pair is measured, so that both follow a job just drawn.
        _draw(family, job)
        same, step = _draw(family, job)
        _draw(other, others, inputs)
        after, _ = _draw(family, job)
        switched.append((after - same) / step)
    moved = (counters.components_read, counters.bytes_read, counters.bytes_copied)
    names = ("components_read", "bytes_read", "bytes_copied")
    return {
        "switch_in_steps": summary(switched[2:], 3),
        "moved": {name: after - earlier for name, earlier, after in zip(names, before, moved, strict=True)},
    }


def _seconds_to_load(entry: ModelEntry, beside: Shelf | None) -> float:
    gc.collect()
    began = time.thread_time()
    family = load(entry, _CPU, shelf=beside)
    seconds = time.thread_time() - began
    family.close()
    return seconds


def measure() -> dict[str, Any]:
    """Measure on one thread, where a busy machine disturbs least."""
    torch.set_num_threads(1)
    counters = Counters()
    shelf = Shelf(LOADERS, _CPU, torch.float32, counters)
    one, two = _entry("shapes-sd15"), _entry("shapes-sd15-inpaint")
    family = load(one, _CPU, counters=counters, shelf=shelf)
    alone = counters.bytes_read
    loads = [_seconds_to_load(two, shelf) / _seconds_to_load(two, None) for _ in range(LOADS)]
    read = counters.bytes_read
    other = load(two, _CPU, counters=counters, shelf=shelf)
    try:
        figures = _switch(family, other, counters)
    finally:
        other.close()
        family.close()
    return {
        "steps": STEPS,
        **figures,
        "bytes_of_first": alone,
        "bytes_read_for_second": counters.bytes_read - read,
        "load_beside_over_load_alone": summary(loads[1:], 3),
    }


if __name__ == "__main__":
    print(json.dumps(measure(), indent=2))
