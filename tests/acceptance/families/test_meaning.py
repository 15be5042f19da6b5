"""The trained models of the families beyond Stable Diffusion 1.x over HTTP: every task obeys, judged by pixels."""

import re
from pathlib import Path
from typing import Final

import numpy as np
import pytest

import reference_models
from reference_models.judge import Expected, judge
from reference_models.pictures import Scene, draw
from tests.acceptance.tasks.conftest import Pixels, Studio

_FOLDER: Final = Path(reference_models.__file__).parent
#: Those of Stable Diffusion 1.x have tests of their own.
MODELS: Final = sorted(
    path.parent.name
    for path in _FOLDER.glob("shapes-*/model_index.json")
    if not path.parent.name.startswith("shapes-sd15")
)
WANTED: Final = Expected("circle", "red", "blue")
OTHER: Final = Expected("star", "green", "white")
SOURCE: Final = draw(Scene("square", "yellow", "green", 0.5, 0.5, 0.27))
SEEDS: Final = 6
every_model = pytest.mark.parametrize("model", MODELS)


def _prompt(expected: Expected) -> str:
    return f"a {expected.colour} {expected.shape} on a {expected.background} background"


def _right(pictures: list[Pixels], expected: Expected) -> int:
    return sum(judge(picture, expected).all_right for picture in pictures)


def _measured(model: str) -> float:
    """Return the share that the model's card says is right."""
    found = re.search(r"\*\*all three\*\* \| \*\*([\d.]+)%\*\*", (_FOLDER / model / "README.md").read_text())
    assert found is not None
    return float(found[1]) / 100


@every_model
def test_prompt_is_obeyed_as_the_card_says(studio: Studio, model: str) -> None:
    """By the model's own defaults, within what so few pictures can tell."""
    right = sum(
        _right(studio.all(model=model, prompt=_prompt(each), num_images=SEEDS, seed=40), each)
        for each in (WANTED, OTHER)
    )
    assert right / (2 * SEEDS) >= _measured(model) - 0.25


@every_model
def test_strength_decides_between_picture_and_prompt(studio: Studio, model: str) -> None:
    """Little keeps the source, much draws the prompt, none gives the source back, all of it is what the prompt alone draws."""
    described = studio.http.get(f"/v1/models/{model}").raise_for_status().json()
    # Guidance drives these small models far within few steps.
    gently = {"guidance_scale": 1.0} if described["guidance"] == "classifier_free" else {}

    def at(strength: float, **changes: float) -> list[Pixels]:
        return studio.all(
            task="img2img",
            model=model,
            prompt=_prompt(WANTED),
            image=SOURCE,
            strength=strength,
            seed=20,
            num_images=SEEDS,
            **changes,
        )

    assert _right(at(0.15, **gently), Expected("square", "yellow", "green")) > SEEDS / 2
    assert _right(at(0.95), WANTED) >= SEEDS * (_measured(model) - 0.25)
    np.testing.assert_array_equal(at(0.0)[0], SOURCE)
    np.testing.assert_array_equal(
        at(1.0)[0], studio.draw(model=model, prompt=_prompt(WANTED), seed=20, width=128, height=128)
    )


@every_model
def test_only_the_mask_changes(studio: Studio, model: str) -> None:
    """Outside no bit differs; inside is what the prompt says of a picture whose background stays."""
    mask = np.zeros((128, 128), np.uint8)
    mask[16:112, 16:112] = 255
    pictures = studio.all(
        task="inpaint",
        model=model,
        prompt="a red circle on a green background",
        image=SOURCE,
        mask=mask,
        seed=3,
        num_images=SEEDS,
    )
    for picture in pictures:
        np.testing.assert_array_equal(picture[mask == 0], SOURCE[mask == 0])
    assert _right(pictures, Expected("circle", "red", "green")) >= SEEDS * (_measured(model) - 0.4)


@every_model
def test_second_pass_is_larger(studio: Studio, model: str) -> None:
    """Both passes draw, and the result has the size that was asked for."""
    picture = studio.draw(model=model, prompt=_prompt(WANTED), seed=4, hires={"scale": 1.5, "strength": 0.4})
    assert picture.shape == (192, 192, 3)
    assert judge(picture, WANTED).background
