"""ControlNet over HTTP, judged by pixels: the edge map decides where the shape is."""

import cv2
import numpy as np

from reference_models.judge import front_mask, overlap
from reference_models.pictures import COLOURS, SHAPES, Scene, coverage, draw
from tests.acceptance.tasks.conftest import Pixels, Studio

MAPS = 32
MODEL = "shapes-canny"
Masked = tuple[Scene, "np.ndarray[tuple[int, ...], np.dtype[np.bool_]]"]


def _scenes(count: int) -> list[Scene]:
    rng = np.random.default_rng(5)
    found = []
    for index in range(count):
        colour = COLOURS[index % 6]
        back = COLOURS[(index + 1 + index % 5) % 6]
        x, y = rng.uniform(0.35, 0.65, 2)
        found.append(
            Scene(SHAPES[index % len(SHAPES)], colour, back, float(x), float(y), float(rng.uniform(0.18, 0.28)))
        )
    return found


def _edges(scene: Scene) -> Pixels:
    lines = np.asarray(cv2.Canny(draw(scene), 100, 200), np.uint8)
    return np.repeat(lines[:, :, None], 3, axis=2)


def _iou(picture: Pixels, scene: Scene) -> float:
    wanted = coverage(scene.shape, scene.x, scene.y, scene.radius) > 0.5
    return overlap(front_mask(picture)[0], wanted)


def _control(scene: Scene, **fields: object) -> dict[str, object]:
    return {"model": MODEL, "image": _edges(scene), **fields}


def _prompt(scene: Scene) -> str:
    return f"a {scene.colour} {scene.shape} on a {scene.background} background"


def test_edge_map_places_the_shape(studio: Studio) -> None:
    """Over 32 edge maps the shape lies where the edges are; without them it does not."""
    scenes = _scenes(MAPS)
    guided = [_iou(studio.draw(prompt=_prompt(s), controls=[_control(s)], seed=i), s) for i, s in enumerate(scenes)]
    assert np.mean(guided) >= 0.7, guided
    alone = [_iou(studio.draw(prompt=_prompt(s), seed=i), s) for i, s in enumerate(scenes[:8])]
    assert np.mean(alone) < 0.5, alone


def test_scale_and_span_decide_how_much_it_counts(studio: Studio) -> None:
    """A scale of 0 changes nothing bit for bit; a control that ends early counts less than one that stays."""
    scene = Scene("circle", "red", "blue", 0.38, 0.62, 0.2)
    plain = studio.draw(prompt=_prompt(scene), seed=7)
    off = studio.draw(prompt=_prompt(scene), seed=7, controls=[_control(scene, scale=0.0)])
    np.testing.assert_array_equal(off, plain)
    scenes = _scenes(8)

    def mean(**span: float) -> float:
        drawn = [studio.draw(prompt=_prompt(s), controls=[_control(s, **span)], seed=i) for i, s in enumerate(scenes)]
        return float(np.mean([_iou(picture, s) for picture, s in zip(drawn, scenes, strict=True)]))

    whole, late = mean(), mean(start=0.8)
    assert whole > late + 0.1, (whole, late)
    early = studio.draw(prompt=_prompt(scene), seed=7, controls=[_control(scene, end=0.5)])
    always = studio.draw(prompt=_prompt(scene), seed=7, controls=[_control(scene)])
    assert early.tobytes() != always.tobytes()


def test_two_controls_work_together(studio: Studio) -> None:
    """Halves of an edge map in two controls place the shape as well as one of them alone does not."""
    scenes = _scenes(8)
    both, one = [], []
    for index, scene in enumerate(scenes):
        edges = _edges(scene)
        left, right = edges.copy(), edges.copy()
        middle = round(scene.x * 128)
        left[:, middle:], right[:, :middle] = 0, 0
        halves = [{"model": MODEL, "image": half} for half in (left, right)]
        both.append(_iou(studio.draw(prompt=_prompt(scene), controls=halves, seed=index), scene))
        one.append(_iou(studio.draw(prompt=_prompt(scene), controls=halves[:1], seed=index), scene))
    assert np.mean(both) >= 0.6, both
    assert np.mean(both) > np.mean(one), (both, one)


def test_preprocessor_makes_the_edge_map(studio: Studio) -> None:
    """A picture with `preprocessor: canny` draws what its edge map draws, and the preprocessor can be run alone."""
    scene = Scene("star", "yellow", "purple", 0.55, 0.45, 0.25)
    ready = studio.draw(prompt=_prompt(scene), controls=[_control(scene)], seed=1)
    made = studio.draw(
        prompt=_prompt(scene), seed=1, controls=[{"model": MODEL, "image": draw(scene), "preprocessor": "canny"}]
    )
    np.testing.assert_array_equal(made, ready)
    alone = studio.draw(
        task="preprocess", image=draw(scene), preprocessor="canny",
        preprocessor_options={"low_threshold": 100, "high_threshold": 200},
    )  # fmt: skip
    np.testing.assert_array_equal(alone, _edges(scene))


def test_control_guides_image_to_image_and_inpainting(studio: Studio) -> None:
    """It is a condition of every task."""
    scene = Scene("circle", "red", "blue", 0.4, 0.6, 0.22)
    source = draw(Scene("square", "yellow", "green", 0.5, 0.5, 0.27))
    image = studio.draw(
        task="img2img", prompt=_prompt(scene), image=source, strength=0.95, controls=[_control(scene)], seed=2
    )
    mask = np.full((128, 128), 255, np.uint8)
    mask[:4] = 0
    painted = studio.draw(
        task="inpaint", prompt=_prompt(scene), image=source, mask=mask, controls=[_control(scene)], seed=2
    )
    assert _iou(image, scene) >= 0.6
    assert _iou(painted, scene) >= 0.6
