"""What it costs to switch LoRA stacks: the same job after one with another stack and after one with its own, in turn, in one process.

The difference is told in denoising steps of the same model, which it should not exceed: whoever sorts jobs by their LoRAs to save switches
would gain nothing. It is processor time of the one thread that draws, from the job's beginning to the end of its last step; decoding does
not count. Beside it, two runs of different stacks that take turns at every step, against two of one stack.
"""

import gc
import hashlib
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

import reference_models
from benchmarks.figures import summary
from jobs.contract import Txt2ImgParameters
from jobs.inputs import Inputs
from models_registry.detection import detect
from models_registry.entries import Kind, Layout, ModelEntry
from models_registry.reading.bounded_files import Reads
from pipelines.families.base import Family
from pipelines.loading import load
from tests.lora_layouts import make, write_kohya

STEPS = 4
ROUNDS = 30
NAMES = ("a", "b")


def _entry(path: Path) -> ModelEntry:
    return ModelEntry(
        name=path.stem,
        kind=Kind.LORA,
        layout=Layout.SINGLE_FILE,
        family="sd15",
        path=path,
        fingerprint=hashlib.sha256(path.read_bytes()).hexdigest(),
        components=(),
    )


def _write_loras(family: Family, folder: Path) -> Inputs:
    """Write one LoRA per name, over attention and convolutions of both components."""
    entries = [
        _entry(
            write_kohya(
                make("lora", family.pipe.unet, family.pipe.text_encoder, seed=seed), folder / f"{name}.safetensors"
            )
        )
        for seed, name in enumerate(NAMES)
    ]
    return Inputs({entry.ref: entry for entry in entries})


def _parameters(name: str) -> Txt2ImgParameters:
    return Txt2ImgParameters.model_validate(
        {
            "model": "shapes-sd15",
            "prompt": "a red circle on a blue background",
            "width": 128,
            "height": 128,
            "steps": STEPS,
            "guidance_scale": 5.0,
            "scheduler": "Euler",
            "seed": 7,
            "preview_every": 0,
            "loras": [{"name": name, "weight": 0.01}],
        }
    )


def _draw(family: Family, inputs: Inputs, *names: str) -> tuple[float, float]:
    """Draw jobs side by side, one per name; return the seconds of all, and of each step."""
    started = time.thread_time()
    states = [family.prepare(_parameters(name), 0, inputs) for name in names]
    try:
        stepping = time.thread_time()
        while any(state.phase == "denoise" for state in states):
            for failure in family.step(states).errors.values():
                raise failure
        ended = time.thread_time()
    finally:
        for state in states:
            state.close()
    return ended - started, (ended - stepping) / (STEPS * len(states))


def _compare(family: Family, inputs: Inputs) -> dict[str, Any]:
    switched: list[float] = []
    turns: list[float] = []
    for _ in range(ROUNDS):
        gc.collect()
        # The second of each pair is measured, so that both follow a job just drawn.
        _draw(family, inputs, "a")
        same, step = _draw(family, inputs, "a")
        _draw(family, inputs, "b")
        other, _ = _draw(family, inputs, "a")
        switched.append((other - same) / step)
        _, alike = _draw(family, inputs, "a", "a")
        _, unlike = _draw(family, inputs, "a", "b")
        turns.append(unlike / alike)
    return {
        "switch_in_steps": summary(switched[2:], 3),
        "step_by_turns_over_step": summary(turns[2:], 3),
        "component_loads": family.counters.component_loads,
    }


def measure() -> dict[str, Any]:
    """Measure on one thread, where a busy machine disturbs least."""
    torch.set_num_threads(1)
    folder = Path(next(iter(reference_models.__path__))) / "shapes-sd15"
    family = load(detect(folder, Reads()), "cpu")
    try:
        with tempfile.TemporaryDirectory(prefix="imagefleet-bench-") as loras:
            figures = _compare(family, _write_loras(family, Path(loras)))
    finally:
        family.close()
    # The promise; sampling noise lies around nought.
    return {"steps": STEPS, "at_most_one_step": figures["switch_in_steps"]["median"] <= 1, **figures}


if __name__ == "__main__":
    print(json.dumps(measure(), indent=2))
