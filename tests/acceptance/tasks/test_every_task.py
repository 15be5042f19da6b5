"""What every task must do alike: tell its progress, show previews, stop between steps, and come back after a pause."""

from typing import Any

import numpy as np
import pytest

from reference_models.pictures import Scene, draw
from tests.acceptance.tasks.conftest import Studio
from tests.fleet_process import eventually

SOURCE = draw(Scene("square", "yellow", "green", 0.5, 0.5, 0.2))
MASK = np.zeros((128, 128), np.uint8)
MASK[24:104, 24:104] = 255
LARGE = np.repeat(np.repeat(SOURCE, 10, axis=0), 10, axis=1)
PROMPT = "a red circle on a blue background"
TASKS: dict[str, dict[str, Any]] = {
    "txt2img": {"prompt": PROMPT},
    "hires": {"prompt": PROMPT, "hires": {"scale": 1.5}},
    "img2img": {"task": "img2img", "prompt": PROMPT, "image": SOURCE, "strength": 0.9},
    "inpaint": {"task": "inpaint", "prompt": PROMPT, "image": SOURCE, "mask": MASK},
    "inpaint model": {
        "task": "inpaint", "prompt": PROMPT, "image": SOURCE, "mask": MASK, "model": "shapes-sd15-inpaint",
    },
    "control": {"prompt": PROMPT, "controls": [{"model": "shapes-canny", "image": SOURCE, "preprocessor": "canny"}]},
    "lora": {"prompt": PROMPT, "loras": [{"name": "shapes-frame"}]},
    "upscale": {"task": "upscale", "image": LARGE, "upscaler": "shapes-x2"},
    "refine": {"task": "upscale", "image": SOURCE, "upscaler": "shapes-x2", "refine": {"prompt": PROMPT, "steps": 40}},
}  # fmt: skip


@pytest.mark.parametrize("name", TASKS)
def test_task_tells_progress_and_shows_previews(studio: Studio, name: str) -> None:
    """Every step is told once and in order, at least two previews differ, and a picture comes before the end."""
    answer = studio.submit(**TASKS[name], seed=5, preview_every=2)
    assert answer.status_code == 202, answer.text
    job = answer.json()["id"]
    events = list(studio.fleet.events(studio.http, job))
    kinds = [event["event"] for event in events]
    steps = [event["data"]["data"]["step"] for event in events if event["event"] == "progress"]
    total = answer.json()["progress"]["steps"]
    assert steps == list(range(1, total + 1)), (name, steps, total)
    previews = {str(event["data"]["data"]) for event in events if event["event"] == "preview"}
    assert len(previews) >= 2, name
    assert kinds[-2:] == ["image", "succeeded"]


@pytest.mark.parametrize("name", TASKS)
def test_task_is_cancelled_between_steps(studio: Studio, name: str) -> None:
    """A running job stops before its last step, and the worker draws the next one at once."""
    slow = {**TASKS[name], "seed": 5}
    if name == "refine":
        slow["refine"] = {"prompt": PROMPT, "steps": 200, "strength": 1.0}
    elif name != "upscale":
        slow["steps"] = 200
    else:
        slow["image"] = np.repeat(np.repeat(SOURCE, 16, axis=0), 16, axis=1)
    job = studio.submit(**slow).json()["id"]
    eventually(lambda: studio.http.get(f"/v1/jobs/{job}").json()["progress"]["step"] >= 1, 60, pause=0.02)
    studio.http.post(f"/v1/jobs/{job}/cancel")
    view = studio.fleet.wait(studio.http, job)
    assert view["state"] == "cancelled", (name, view)
    assert view["progress"]["step"] < view["progress"]["steps"]


@pytest.mark.parametrize("name", TASKS)
def test_same_request_gives_the_same_picture(studio: Studio, name: str) -> None:
    """Twice, with other jobs in between: the recorded bytes are equal."""
    first = studio.view(**TASKS[name], seed=9)
    studio.view(prompt="a green star on a white background", loras=[{"name": "shapes-ground", "weight": 0.5}], seed=1)
    again = studio.view(**TASKS[name], seed=9)
    assert again["images"][0]["sha256"] == first["images"][0]["sha256"]
