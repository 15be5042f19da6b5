"""What cannot be drawn is refused at submit, with a code, the field and a sentence, and nothing is stored."""

from typing import Any

import numpy as np
import pytest

from reference_models.pictures import Scene, draw
from tests.acceptance.tasks.conftest import Studio

SOURCE = draw(Scene("square", "yellow", "green", 0.5, 0.5, 0.2))
PROMPT = "a red circle"
WRONG: dict[str, tuple[dict[str, Any], str, str]] = {
    "an inpainting model only inpaints": (
        {"prompt": PROMPT, "model": "shapes-sd15-inpaint"}, "task_unsupported", "task",
    ),
    "a LoRA of another base": (
        {"prompt": PROMPT, "loras": [{"name": "wide-lora"}]}, "family_mismatch", "loras.0.name",
    ),
    "a LoRA nobody has": ({"prompt": PROMPT, "loras": [{"name": "nope"}]}, "adapter_unknown", "loras.0.name"),
    "a tag nobody has": ({"prompt": f"{PROMPT} <lora:nope:1>"}, "adapter_unknown", "prompt"),
    "a ControlNet nobody has": (
        {"prompt": PROMPT, "controls": [{"model": "nope", "image": SOURCE}]}, "adapter_unknown", "controls.0.model",
    ),
    "a preprocessor nobody has": (
        {"task": "preprocess", "image": SOURCE, "preprocessor": "nope"}, "preprocessor_unknown", "preprocessor",
    ),
    "a VAE nobody has": ({"prompt": PROMPT, "vae": "nope"}, "adapter_unknown", "vae"),
    "an upscaler nobody has": (
        {"task": "upscale", "image": SOURCE, "upscaler": "nope"}, "adapter_unknown", "upscaler",
    ),
    "a size that is no multiple": ({"prompt": PROMPT, "width": 130}, "size_unsupported", "width"),
    "an enlargement beyond every limit": (
        {"task": "upscale", "image": np.zeros((1500, 1500, 3), np.uint8), "upscaler": "lanczos", "scale": 16},
        "size_unsupported", "scale",
    ),
    "a picture that is none": ({"task": "img2img", "prompt": PROMPT, "image": "AAAA"}, "picture_refused", "image"),
    "a mask without white": (
        {"task": "inpaint", "prompt": PROMPT, "image": SOURCE, "mask": np.zeros((128, 128), np.uint8)},
        "picture_refused", "mask",
    ),
    "an upload nobody made": (
        {"task": "img2img", "prompt": PROMPT, "image": f"upload:{'0' * 64}"}, "upload_unknown", "image",
    ),
}  # fmt: skip


@pytest.mark.parametrize("why", WRONG)
def test_impossible_job_is_refused(studio: Studio, why: str) -> None:
    """The answer names what is wrong and where; no job is made."""
    request, code, field = WRONG[why]
    before = studio.http.get("/v1/jobs?limit=1").json()["items"]
    found, where, sentence = studio.refused(422, **request)
    assert (found, where) == (code, field), sentence
    assert len(sentence) > 20
    assert studio.http.get("/v1/jobs?limit=1").json()["items"] == before
