"""What a job costs beyond the picture: the wall time of `POST ?wait=` against the bare diffusers call plus encoding.

One worker, one thread on each side, the same model, prompt, steps and format; the two are taken in turn.
"""

import io
import time
from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusionPipeline

import reference_models
from benchmarks.figures import summary
from tests.fleet_process import FleetProcess

ROUNDS = 20
PROMPT = "a red circle on a blue background"
STEPS = 20


def measure(fleet: FleetProcess) -> dict[str, Any]:
    """Measure on a running fleet with one real worker of one thread."""
    torch.set_num_threads(1)
    folder = Path(next(iter(reference_models.__path__))) / "shapes-sd15"
    pipe = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None, dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    through_fleet, bare = [], []
    with fleet.client() as http:
        for number in range(ROUNDS + 2):
            began = time.perf_counter()
            answer = http.post(
                "/v1/jobs?wait=60",
                json={"prompt": PROMPT, "seed": number, "steps": STEPS, "scheduler": "Euler", "guidance_scale": 5},
            )
            if answer.json()["state"] != "succeeded":
                raise RuntimeError(answer.text)
            through_fleet.append(time.perf_counter() - began)
            began = time.perf_counter()
            picture = pipe(
                PROMPT,
                height=128,
                width=128,
                num_inference_steps=STEPS,
                guidance_scale=5.0,
                generator=torch.Generator().manual_seed(number),
            ).images[0]
            picture.save(io.BytesIO(), format="PNG")
            bare.append(time.perf_counter() - began)
    ratios = [one / other for one, other in zip(through_fleet[2:], bare[2:], strict=True)]
    return {
        "through_fleet_seconds": summary(through_fleet[2:]),
        "bare_call_and_png_seconds": summary(bare[2:]),
        "fleet_over_bare": summary(ratios),
        "added_ms": round((sorted(through_fleet[2:])[ROUNDS // 2] - sorted(bare[2:])[ROUNDS // 2]) * 1000, 1),
    }
