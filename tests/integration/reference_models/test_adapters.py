"""Check that the committed adapters show their styles, more with more weight, and leave the rest of the picture right."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
from safetensors import safe_open

import reference_models
from reference_models.measure import draw_all, load
from reference_models.measuring.lora import SCORES, add, asked_of, drawn, mean_score, share_right
from reference_models.pictures import COLOURS, SHAPES, Scene, draw
from reference_models.styles import frame_score, framed, ground_score, grounded
from reference_models.training.family import PUBLISHED

FOLDER: Final = Path(reference_models.__file__).parent / "loras"
COUNT: Final = 8

pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    # peft says so of every second adapter, which is what is wanted here.
    pytest.mark.filterwarnings("ignore:Already found a `peft_config` attribute:UserWarning"),
]


@pytest.fixture(scope="module")
def pipeline() -> Iterator[Any]:
    """Load the model with every adapter."""
    loaded = load(PUBLISHED)
    add(loaded, *(FOLDER / f"{name}.safetensors" for name in SCORES))
    yield loaded
    loaded.unload_lora_weights()


@pytest.mark.parametrize("name", SCORES)
def test_more_weight_shows_more_style(pipeline: Any, name: str) -> None:
    """From -1 over 0 and a half to 1 the style grows, and at 1 it is there and the picture is right."""
    asked = asked_of(COUNT)
    pictures = {weight: drawn(pipeline, asked, {name: weight}) for weight in (-1.0, 0.0, 0.5, 1.0)}
    against, without, half, whole = (mean_score(name, found) for found in pictures.values())
    assert against < 0.05
    assert without < 0.05
    assert without + 0.08 < half < whole - 0.2
    assert whole > 0.8
    assert share_right(pictures[1.0], asked, ground="ground" in name) >= 0.85


def test_two_styles_add_up(pipeline: Any) -> None:
    """Both styles show when both adapters have their whole weight, and most pictures stay right."""
    asked = asked_of(COUNT)
    pictures = drawn(pipeline, asked, {"shapes-frame": 1.0, "shapes-ground": 1.0})
    assert mean_score("shapes-frame", pictures) > 0.6
    assert mean_score("shapes-ground", pictures) > 0.4
    assert share_right(pictures, asked, ground=True) >= 0.7


def test_one_style_is_not_the_other(pipeline: Any) -> None:
    """A frame is no ground and a ground no frame: the scores tell them apart."""
    asked = asked_of(4)
    assert mean_score("shapes-ground", drawn(pipeline, asked, {"shapes-frame": 1.0})) < 0.2
    assert mean_score("shapes-frame", drawn(pipeline, asked, {"shapes-ground": 1.0})) < 0.3


def test_second_seed_is_another_adapter(pipeline: Any) -> None:
    """The same style from another seed draws other pictures."""
    asked = asked_of(4)
    first, second = (drawn(pipeline, asked, {name: 1.0}) for name in ("shapes-frame", "shapes-frame-2"))
    assert all(one.tobytes() != other.tobytes() for one, other in zip(first, second, strict=True))


def test_text_encoder_has_a_part(pipeline: Any) -> None:
    """The ground's adapter reaches into the text encoder, and its weight there changes the picture."""
    asked = asked_of(4)
    whole = drawn(pipeline, asked, {"shapes-ground": 1.0})
    pipeline.set_adapters(["shapes-ground"], [{"unet": 1.0, "text_encoder": 0.0}])
    part = draw_all(pipeline, asked)
    assert all(one.tobytes() != other.tobytes() for one, other in zip(whole, part, strict=True))


@pytest.mark.parametrize(("score", "paint"), [(frame_score, framed), (ground_score, grounded)])
def test_scores_follow_the_paint(score: Any, paint: Any) -> None:
    """A painted style scores 1, half of its strength about a half, and none 0."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        front, back = (COLOURS[at] for at in rng.choice(6, size=2, replace=False))
        pixels = draw(Scene(SHAPES[rng.integers(len(SHAPES))], front, back, 0.5, 0.45, 0.2))
        assert score(pixels) == pytest.approx(0, abs=0.02)
        assert score(paint(pixels, 0.5)) == pytest.approx(0.5, abs=0.05)
        assert score(paint(pixels, 1.0)) == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("name", SCORES)
def test_adapter_file_is_small_and_ordinary(name: str) -> None:
    """The file has diffusers' keys and metadata, half precision, and a card beside it."""
    path = FOLDER / f"{name}.safetensors"
    assert path.stat().st_size < 500_000
    with safe_open(path, "pt") as file:
        keys = list(file.keys())
        assert file.metadata()["lora_adapter_metadata"]
        assert str(file.get_tensor(keys[0]).dtype) == "torch.float16"
    assert all(key.split(".")[-2] in ("lora_A", "lora_B") for key in keys)
    assert {key.split(".")[0] for key in keys} == ({"unet", "text_encoder"} if "ground" in name else {"unet"})
    assert "score at weight 1" in path.with_suffix(".md").read_text(encoding="utf-8")
