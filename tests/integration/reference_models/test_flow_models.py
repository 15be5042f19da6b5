"""Check that the committed flow models draw what they are asked, with plain diffusers, and share what they can."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import pytest
from safetensors import safe_open

import reference_models
from reference_models.judge import judge
from reference_models.measure import accuracy, draw_all, load, questions, settings, verdicts
from reference_models.measuring.lora import add, asked_of, drawn, mean_score, share_right
from reference_models.training.publish import folder_size

HERE: Final = Path(reference_models.__file__).parent
FOLDERS: Final = {name: HERE / name for name in ("shapes-flux", "shapes-sd3")}
RIGHT: Final = {"shapes-flux": 0.9, "shapes-sd3": 0.9}
"""The share of all pictures that the models must draw right, of 32."""

FRAME: Final = HERE / "loras" / "shapes-flux-frame.safetensors"

# Diffusers hands tensors to numpy in the way of numpy 1, which numpy 2 answers with a warning.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@cache
def _pipeline(name: str) -> Any:
    return load(FOLDERS[name])


@pytest.fixture(scope="module", autouse=True)
def _forget() -> Iterator[None]:
    """Let go of the pipelines once the last check is done."""
    yield
    _pipeline.cache_clear()


@pytest.mark.parametrize("name", FOLDERS)
def test_model_draws_what_32_prompts_ask(name: str) -> None:
    """As many pictures are right as the model's card lets one expect, and none fits its neighbour's prompt."""
    asked = questions(32)
    pictures = draw_all(_pipeline(name), asked, **settings(FOLDERS[name]))
    found = accuracy([judge(picture, one.expected) for picture, one in zip(pictures, asked, strict=True)])
    assert found.all_right >= RIGHT[name], found
    assert found.background >= 0.95
    assert found.colour >= 0.95
    shifted = [*asked[1:], asked[0]]
    wrong = [judge(picture, one.expected) for picture, one in zip(pictures, shifted, strict=True)]
    assert accuracy(wrong).all_right == 0


@pytest.mark.parametrize("name", FOLDERS)
def test_guidance_pulls_towards_the_prompt(name: str) -> None:
    """With the guidance that the model recommends, more is right than with none."""
    asked = questions(16)
    own = settings(FOLDERS[name])
    with_it, without = (
        accuracy(verdicts(_pipeline(name), asked, **{**own, "guidance_scale": scale})).all_right
        for scale in (own["guidance_scale"], 1.0)
    )
    assert with_it > without


def _digest(name: str, part: str) -> str:
    (weights,) = (HERE / name / part).glob("*.safetensors")
    return sha256(weights.read_bytes()).hexdigest()


def test_equal_parts_are_equal_files() -> None:
    """One autoencoder serves all, CLIP is that of `shapes-sd15` where the layout has no projection, T5 serves both."""
    assert _digest("shapes-flux", "vae") == _digest("shapes-sd3", "vae") == _digest("shapes-sd15", "vae")
    assert _digest("shapes-flux", "text_encoder") == _digest("shapes-sd15", "text_encoder")
    assert _digest("shapes-sd3", "text_encoder") == _digest("shapes-sd3", "text_encoder_2")
    assert _digest("shapes-flux", "text_encoder_2") == _digest("shapes-sd3", "text_encoder_3")


@pytest.mark.parametrize("name", FOLDERS)
def test_folder_is_small_and_ordinary(name: str) -> None:
    """The folder holds a plain pipeline at half precision, its card and its recommendations."""
    folder = FOLDERS[name]
    assert folder_size(folder) < 8_000_000
    assert not [*folder.rglob("*.bin"), *folder.rglob("*.fp16.*")]
    (weights,) = (folder / "transformer").glob("*.safetensors")
    with safe_open(weights, "pt") as file:
        assert {str(file.get_tensor(key).dtype) for key in file.keys()} == {"torch.float16"}  # noqa: SIM118  # no mapping
    config = json.loads((folder / "transformer" / "config.json").read_text())
    assert config.get("guidance_embeds", False) is (name == "shapes-flux")
    assert json.loads((folder / "vae" / "config.json").read_text())["shift_factor"] == 0.0
    assert json.loads((folder / "imagefleet.json").read_text())["scheduler"] == "Euler"
    assert "Accuracy" in (folder / "README.md").read_text()


def test_frame_grows_with_its_weight() -> None:
    """The adapter draws no frame at weight 0, some at a half, and one at 1, around a picture that is right as often as its card says."""
    pipeline, asked, own = load(FOLDERS["shapes-flux"]), asked_of(8), settings(FOLDERS["shapes-flux"])
    add(pipeline, FRAME)
    pictures = {weight: drawn(pipeline, asked, {FRAME.stem: weight}, **own) for weight in (0.0, 0.5, 1.0)}
    without, half, whole = (mean_score(FRAME.stem, found) for found in pictures.values())
    assert without < 0.05
    assert without + 0.05 < half < whole
    assert whole > 0.8
    assert share_right(pictures[1.0], asked, ground=False) >= 0.35
    with safe_open(FRAME, "pt") as file:
        keys = list(file.keys())
    assert {key.split(".")[0] for key in keys} == {"transformer"}
    assert FRAME.stat().st_size < 500_000
    assert "score at weight 1" in FRAME.with_suffix(".md").read_text(encoding="utf-8")
