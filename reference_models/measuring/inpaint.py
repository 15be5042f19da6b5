"""Measure the inpainting model: another shape under the mask, the same background around it, and pictures that go on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from PIL import Image

from reference_models.judge import Expected, Mask, judge, nearest_colour, pixels_of
from reference_models.masks import border, box_around
from reference_models.measure import BATCH, GUIDANCE, STEPS, load
from reference_models.measuring.figures import Figures
from reference_models.pictures import COLOURS, PALETTE, SHAPES, SIDE, Attributes, Pixels, Scene, caption, draw

MARGIN: Final = 0.08
_STRIP: Final = 0.2
_SAME: Final = 0.9
"""Share of the masked pixels that must have the background's colour for a background to go on."""


@dataclass(frozen=True, slots=True)
class Task:
    """Pair a source picture and a mask with what is to be drawn there."""

    source: Pixels
    mask: Mask
    prompt: str
    expected: Expected
    seed: int


def replacements(count: int, seed: int = 909) -> list[Task]:
    """Return fixed tasks that put another shape of another colour in place of the old one."""
    rng = np.random.default_rng(seed)
    found = []
    for index in range(count):
        old, new, back = (COLOURS[at] for at in rng.choice(len(COLOURS), size=3, replace=False))
        first, second = (SHAPES[at] for at in rng.choice(len(SHAPES), size=2, replace=False))
        x, y = rng.uniform(0.36, 0.64, size=2)
        scene = Scene(first, old, back, float(x), float(y), float(rng.uniform(0.18, 0.24)))
        prompt = caption(Attributes(second, new, back))
        found.append(Task(draw(scene), box_around(scene, MARGIN), prompt, Expected(second, new, back), seed + index))
    return found


def outward(count: int, seed: int = 910) -> list[Task]:
    """Return fixed tasks that draw on beyond one edge: the shape is whole, its background is to go on."""
    rng = np.random.default_rng(seed)
    found = []
    for index in range(count):
        front, back = (COLOURS[at] for at in rng.choice(len(COLOURS), size=2, replace=False))
        shape = SHAPES[rng.integers(len(SHAPES))]
        scene = Scene(shape, front, back, 0.5, 0.5, 0.2)
        widths = [_STRIP if edge == index % 4 else 0.0 for edge in range(4)]
        prompt = caption(Attributes(shape, front, back))
        found.append(Task(draw(scene), border(widths), prompt, Expected(shape, front, back), seed + index))
    return found


def drawn(pipeline: Any, tasks: Sequence[Task], **options: Any) -> list[Image.Image]:
    """Return one picture per task, as the model draws it: nothing outside the mask is pasted back."""
    pictures: list[Image.Image] = []
    given = {"num_inference_steps": STEPS, "guidance_scale": GUIDANCE, "height": SIDE, "width": SIDE, **options}
    for first in range(0, len(tasks), BATCH):
        part = tasks[first : first + BATCH]
        sources = []
        for task in part:
            # What lies under the mask must not matter: the model gets noise there and nothing else.
            source = task.source.copy()
            source[task.mask] = 128
            sources.append(Image.fromarray(source))
        pictures += pipeline(
            [task.prompt for task in part],
            image=sources,
            mask_image=[Image.fromarray(task.mask.astype(np.uint8) * 255) for task in part],
            generator=[torch.Generator().manual_seed(task.seed) for task in part],
            **{"strength": 1.0, **given},
        ).images
    return pictures


def pasted(picture: Image.Image, task: Task) -> Pixels:
    """Return the source with the drawn pixels under the mask only."""
    whole = task.source.copy()
    whole[task.mask] = pixels_of(picture)[task.mask]
    return whole


def shares_right(pictures: Sequence[Image.Image], tasks: Sequence[Task]) -> float:
    """Return the share of pictures that show what is asked for, with the source around the mask."""
    pairs = zip(pictures, tasks, strict=True)
    return float(np.mean([judge(pasted(picture, task), task.expected).all_right for picture, task in pairs]))


def goes_on(picture: Image.Image, task: Task) -> bool:
    """Tell whether nearly all that was drawn under the mask has the background's colour."""
    under = pixels_of(picture)[task.mask].astype(np.float32)
    away = np.linalg.norm(under - np.array(PALETTE[str(task.expected.background)], np.float32), axis=1)
    same = float((away < _near(task.expected.background)).mean())
    return same > _SAME and nearest_colour(np.median(under, axis=0)) == task.expected.background


def _near(colour: str | None) -> float:
    others = [rgb for name, rgb in PALETTE.items() if name != colour]
    own = np.array(PALETTE[str(colour)])
    return float(min(np.linalg.norm(own - np.array(rgb)) for rgb in others)) / 2


def change_outside(pictures: Sequence[Image.Image], tasks: Sequence[Task]) -> float:
    """Return the mean difference from the source outside the mask, 0 to 1."""
    pairs = zip(pictures, tasks, strict=True)
    return float(
        np.mean(
            [
                np.abs(pixels_of(picture)[~task.mask].astype(float) - task.source[~task.mask]).mean() / 255
                for picture, task in pairs
            ]
        )
    )


def measure(target: Path, count: int) -> Figures:
    """Return the shares of replaced shapes and continued backgrounds, and what changed where nothing should."""
    pipeline, tasks, beyond = load(target), replacements(count), outward(count // 2)
    pictures, continued = drawn(pipeline, tasks), drawn(pipeline, beyond)
    return {
        "replaced shapes right in shape, colour and background": shares_right(pictures, tasks),
        "the same without pasting the source around the mask": float(
            np.mean([judge(picture, task.expected).all_right for picture, task in zip(pictures, tasks, strict=True)])
        ),
        "mean change outside the mask (0 to 1)": change_outside(pictures, tasks),
        "backgrounds continued beyond an edge": float(
            np.mean([goes_on(picture, task) for picture, task in zip(continued, beyond, strict=True)])
        ),
    }
