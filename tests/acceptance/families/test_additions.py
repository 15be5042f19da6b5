"""What is added to SD 2.x and SDXL over HTTP, and single files of them: drawn with where it fits, refused at submit where it does not."""

from typing import Any

import numpy as np

from tests.acceptance.tasks.conftest import Pixels, Studio

GREY = np.full((64, 64, 3), 128, np.uint8)
XL = "tiny-sdxl-base"


def _draw(studio: Studio, model: str = XL, **changes: Any) -> Pixels:
    common = {"prompt": "a red circle", "width": 64, "height": 64, "seed": 5, "steps": 4, "scheduler": "Euler"}
    return studio.draw(model=model, **{**common, **changes})


def _refused(studio: Studio, model: str = XL, **changes: Any) -> str | None:
    """Return the field that is told."""
    common = {"prompt": "a red circle", "width": 64, "height": 64}
    return studio.refused(422, model=model, **{**common, **changes})[1]


def test_refiner_takes_over(studio: Studio) -> None:
    """A refiner changes the picture, and one that takes over later changes it otherwise; one of another family is refused."""
    plain = _draw(studio)
    refined, later = (_draw(studio, refiner={"model": "tiny-sdxl-refiner", "switch_at": share}) for share in (0.4, 0.8))
    assert len({each.tobytes() for each in (plain, refined, later)}) == 3
    np.testing.assert_array_equal(_draw(studio), plain)
    assert _refused(studio, refiner={"model": "tiny-sd2-base"}) == "refiner.model"
    assert _refused(studio, "tiny-sd2-base", refiner={"model": "tiny-sdxl-refiner"}) in {"refiner", "refiner.model"}


def test_controlnets_fit_their_family_alone(studio: Studio) -> None:
    """Each draws with its own, and refuses the other's."""
    for model, own, other in (
        (XL, "tiny-sdxl-control", "tiny-sd2-control"),
        ("tiny-sd2-v", "tiny-sd2-control", "tiny-sdxl-control"),
    ):
        control = {"model": own, "image": GREY}
        assert not np.array_equal(_draw(studio, model, controls=[control]), _draw(studio, model))
        assert _refused(studio, model, controls=[{**control, "model": other}]) == "controls.0.model"


def test_loras_and_embeddings_of_sdxl_reach_both_text_encoders(studio: Studio) -> None:
    """Kohya's file of three components draws, by its text encoders alone too; SD 1.x refuses it, and the embedding of two encoders."""
    lora, plain = {"name": "tiny-sdxl-lora", "weight": 0.6}, _draw(studio)
    changed = _draw(studio, loras=[lora])
    text_alone = _draw(studio, loras=[{**lora, "weight": 0.0, "text_encoder_weight": 0.6}])
    assert len({each.tobytes() for each in (plain, changed, text_alone)}) == 3
    dusk = _draw(studio, prompt="a tiny-dusk circle", embeddings=["tiny-dusk"])
    assert not np.array_equal(dusk, _draw(studio, prompt="a circle"))
    assert _refused(studio, "tiny-sd15-base", loras=[lora]) == "loras.0.name"
    assert _refused(studio, "tiny-sd2-v", loras=[lora]) == "loras.0.name"
    assert _refused(studio, "tiny-sd15-base", embeddings=["tiny-dusk"]) == "embeddings.0"


def test_single_files_draw_what_their_folders_draw(studio: Studio) -> None:
    """SD 2.x, SDXL and the refiner, each in its original layout: the same bits."""
    for name in ("tiny-sd2-v", XL):
        np.testing.assert_array_equal(_draw(studio, f"{name}-file"), _draw(studio, name))
    refined, by_file = (
        _draw(studio, refiner={"model": model}) for model in ("tiny-sdxl-refiner", "tiny-sdxl-refiner-file")
    )
    np.testing.assert_array_equal(refined, by_file)
