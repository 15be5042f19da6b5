"""What goes with the models that predict a flow, over HTTP and in the real architecture: second passes, LoRAs, controls, files, tiles."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from tests.acceptance.tasks.conftest import Pixels, Studio

SIDE = 64
GREY = np.full((SIDE, SIDE, 3), 128, np.uint8)
MASK = np.zeros((SIDE, SIDE), np.uint8)
MASK[16:48, 16:48] = 255
#: What each kind of job asks for beside the common fields; `{family}` is the model's.
_JOBS: Mapping[str, dict[str, Any]] = {
    "hires": {"hires": {"scale": 1.5, "strength": 0.5}},
    "control": {"controls": [{"model": "tiny-{family}-control", "image": GREY, "preprocessor": "canny"}]},
    "control img2img": {
        "task": "img2img",
        "image": GREY,
        "controls": [{"model": "tiny-{family}-control", "image": GREY}],
    },
    "control inpaint": {
        "task": "inpaint",
        "image": GREY,
        "mask": MASK,
        "controls": [{"model": "tiny-{family}-control", "image": GREY}],
    },
    "scheduler": {"scheduler": "DPM++ 2M"},
    "emphasis": {"prompt": "a (red:1.4) circle"},
    "lora": {"prompt": "a red circle <lora:{model}-lora:0.8>"},
}
every_model = pytest.mark.parametrize("model", ["tiny-sd3-medium", "tiny-flux-dev"])
#: FLUX.2, Qwen-Image and Z-Image have no emphasis, and of them Qwen-Image alone has ControlNets here.
every_job = pytest.mark.parametrize(
    ("model", "job"),
    [
        *((model, job) for model in ("tiny-sd3-medium", "tiny-flux-dev") for job in _JOBS),
        *((model, job) for model in ("tiny-flux2-klein", "tiny-flux2-dev") for job in ("hires", "scheduler", "lora")),
        *(("tiny-qwenimage-base", job) for job in _JOBS if job != "emphasis"),
        *(("tiny-zimage-turbo", job) for job in ("hires", "scheduler", "lora")),
    ],
)


def _filled(value: Any, names: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        return value.format(**names)
    if isinstance(value, dict):
        return {name: _filled(each, names) for name, each in value.items()}
    return [_filled(each, names) for each in value] if isinstance(value, list) else value


def drawn(studio: Studio, model: str, **changes: Any) -> Pixels:
    """Draw one picture."""
    common = {"model": model, "prompt": "a red circle", "width": SIDE, "height": SIDE, "seed": 5, "steps": 3}
    family = model.split("-")[1]
    return studio.draw(**{**common, **_filled(changes, {"family": family, "model": model})})


@every_job
def test_it_changes_the_picture(studio: Studio, model: str, job: str) -> None:
    """Whatever is asked for beside the prompt is heard: the picture is another one, and not flat."""
    plain = {name: value for name, value in _JOBS[job].items() if name in {"task", "image", "mask"}}
    found, without = drawn(studio, model, **_JOBS[job]), drawn(studio, model, **plain)
    assert found.astype(float).std() > 1
    assert found.shape != without.shape or not np.array_equal(found, without)


@every_model
def test_single_file_draws_what_its_folder_does(studio: Studio, model: str) -> None:
    """The same weights under original names."""
    pictures = [drawn(studio, name).astype(float) for name in (model, f"{model}-file")]
    assert np.abs(pictures[0] - pictures[1]).max() <= 1


@pytest.mark.parametrize("model", ["tiny-sd3-medium", "tiny-flux-dev", "tiny-qwenimage-base"])
def test_tiles_are_redrawn(studio: Studio, model: str) -> None:
    """An enlarged picture is drawn over tile by tile, at sizes that the family draws."""
    request = {"image": GREY, "upscaler": "lanczos", "scale": 1.5, "model": model}
    redrawn = studio.draw(task="upscale", **request, refine={"prompt": "a red circle", "steps": 2, "strength": 0.6})
    assert redrawn.shape == (96, 96, 3)
    assert redrawn.astype(float).std() > 1


def test_lora_of_the_other_family_is_refused(studio: Studio) -> None:
    """A LoRA knows what it was made for."""
    refused = studio.refused(422, model="tiny-sd3-medium", prompt="a", loras=[{"name": "tiny-flux-dev-lora"}])
    assert refused[0] == "family_mismatch"


def test_long_prompt_is_refused_before_anything_is_drawn(studio: Studio) -> None:
    """By the vocabulary in the model's folder."""
    code, field, sentence = studio.refused(422, model="tiny-qwenimage-base", task="txt2img", prompt="a" * 1020)
    assert (code, field) == ("prompt_too_long", "prompt")
    assert "at most 1019" in sentence
