"""The trained models over HTTP, judged by pixels: each obeys at every task as often as docs/accuracy.md says."""

from typing import Final

import numpy as np
import pytest

from reference_models.judge import Expected, judge
from reference_models.pictures import Scene, draw
from tests.acceptance.families.accuracy_page import PAGE, least, read
from tests.acceptance.families.obedience import EACH, Asked, Cell, asked_of, cells, checkpoints, count_right, middle
from tests.acceptance.tasks.conftest import Pixels, Studio

#: Those of Stable Diffusion 1.x have tests of their own.
MODELS: Final = [name for name, entry in checkpoints().items() if entry.family != "sd15"]
WANTED: Final = Expected("circle", "red", "blue")
SOURCE: Final = draw(Scene("square", "yellow", "green", 0.5, 0.5, 0.27))
SEEDS: Final = 6
every_model = pytest.mark.parametrize("model", MODELS)


def _prompt(expected: Expected) -> str:
    return f"a {expected.colour} {expected.shape} on a {expected.background} background"


def _right(pictures: list[Pixels], expected: Expected) -> int:
    return sum(judge(picture, expected).all_right for picture in pictures)


@pytest.mark.parametrize("cell", cells(), ids=lambda cell: f"{cell.name}-{cell.task}")
def test_obeys_as_often_as_the_documentation_says(studio: Studio, cell: Cell) -> None:
    """One picture of each job that the figure is of, more where it is so low that one of each could not contradict it."""
    said, asked = read(PAGE.read_text(encoding="utf-8"))[cell.name, cell.task], asked_of(cell)
    each = next(each for each in range(1, EACH + 1) if least(said, each * len(asked)) > 0)
    jobs = [Asked({**job.request, "num_images": each}, job.right) for job in asked]
    assert count_right(studio, jobs) >= least(said, each * len(asked))


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
    assert _right(at(0.95), WANTED) > SEEDS / 2
    np.testing.assert_array_equal(at(0.0)[0], SOURCE)
    np.testing.assert_array_equal(
        at(1.0)[0], studio.draw(model=model, prompt=_prompt(WANTED), seed=20, width=128, height=128)
    )


@every_model
def test_only_the_mask_changes(studio: Studio, model: str) -> None:
    """Outside no bit differs."""
    mask = middle()
    picture = studio.draw(
        task="inpaint", model=model, prompt="a red circle on a green background", image=SOURCE, mask=mask, seed=3
    )
    np.testing.assert_array_equal(picture[mask == 0], SOURCE[mask == 0])
    assert not np.array_equal(picture, SOURCE)


@every_model
def test_second_pass_is_larger(studio: Studio, model: str) -> None:
    """Both passes draw, and the result has the size that was asked for."""
    picture = studio.draw(model=model, prompt=_prompt(WANTED), seed=4, hires={"scale": 1.5, "strength": 0.4})
    assert picture.shape == (192, 192, 3)
    assert judge(picture, WANTED).background
