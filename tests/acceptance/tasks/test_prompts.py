"""What prompts say over HTTP, judged by pixels."""

from reference_models.judge import look
from tests.acceptance.tasks.conftest import Studio

VAGUE = "a shape on a blue background"
SEEDS = 16


def _circles(studio: Studio, **fields: object) -> int:
    drawn = studio.all(
        prompt=VAGUE, seed=0, num_images=SEEDS, steps=20, guidance_scale=5.0, scheduler="Euler", **fields
    )
    return sum(look(picture).shape == "circle" for picture in drawn)


def test_negative_prompt_removes(studio: Studio) -> None:
    """Of pictures whose shape nobody named some are circles, and none once circles are unwanted."""
    assert _circles(studio) >= 2
    assert _circles(studio, negative_prompt="circle") == 0


def test_emphasis_changes_the_picture(studio: Studio) -> None:
    """`(word:1.4)` is read as emphasis, not as text."""
    plain = studio.draw(prompt="a red circle on a blue background", seed=3)
    strong = studio.draw(prompt="a (red:1.4) circle on a blue background", seed=3)
    assert plain.tobytes() != strong.tobytes()
