"""Measure the ControlNet: how well the drawn shape covers the shape whose edges were given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from PIL import Image

from reference_models.edges import edge_map
from reference_models.judge import Expected, front_mask, judge, overlap
from reference_models.libraries import DIFFUSERS
from reference_models.measure import BATCH, GUIDANCE, STEPS
from reference_models.measuring.figures import Figures
from reference_models.pictures import COLOURS, SIDE, Attributes, Pixels, Scene, caption, draw, random_scene
from reference_models.training.family import PUBLISHED

SCALES: Final = (0.0, 0.5, 1.0)
_FAR: Final = 0.15


@dataclass(frozen=True, slots=True)
class Task:
    """Pair a scene's edges with other colours to draw it in, and the seed."""

    scene: Scene
    colour: str
    background: str
    seed: int

    @property
    def edges(self) -> Image.Image:
        """Return the edge map of the scene."""
        return Image.fromarray(edge_map(draw(self.scene)))

    @property
    def target(self) -> Pixels:
        """Return the scene in the colours that are asked for."""
        scene = self.scene
        return draw(Scene(scene.shape, self.colour, self.background, scene.x, scene.y, scene.radius))

    def prompt(self, *, generic: bool) -> str:
        """Name the colours, and the shape unless the prompt is generic."""
        return caption(Attributes(None if generic else self.scene.shape, self.colour, self.background))


def tasks(count: int, seed: int = 4711) -> list[Task]:
    """Return fixed tasks; every second shape lies far off the centre."""
    rng = np.random.default_rng(seed)
    found: list[Task] = []
    while len(found) < count:
        scene = random_scene(rng)
        if len(found) % 2 and max(abs(scene.x - 0.5), abs(scene.y - 0.5)) < _FAR:
            continue
        colour, background = rng.choice(len(COLOURS), size=2, replace=False)
        found.append(Task(scene, COLOURS[colour], COLOURS[background], seed + len(found)))
    return found


def load(folder: Path) -> Any:
    """Load the published model with the ControlNet, in single precision."""
    net = DIFFUSERS.ControlNetModel.from_pretrained(folder, torch_dtype=torch.float32)
    pipeline = DIFFUSERS.StableDiffusionControlNetPipeline.from_pretrained(PUBLISHED, controlnet=net)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def drawn(pipeline: Any, asked: Sequence[Task], *, scale: float = 1.0, generic: bool = False) -> list[Any]:
    """Return one picture per task."""
    pictures: list[Any] = []
    for first in range(0, len(asked), BATCH):
        part = asked[first : first + BATCH]
        pictures += pipeline(
            [task.prompt(generic=generic) for task in part],
            image=[task.edges for task in part],
            generator=[torch.Generator().manual_seed(task.seed) for task in part],
            controlnet_conditioning_scale=scale,
            num_inference_steps=STEPS,
            guidance_scale=GUIDANCE,
            height=SIDE,
            width=SIDE,
        ).images
    return pictures


def overlaps(pictures: Sequence[Any], asked: Sequence[Task]) -> list[float]:
    """Return for each picture the intersection over union of its shape with the shape whose edges were given."""
    pairs = zip(pictures, asked, strict=True)
    return [overlap(front_mask(picture)[0], front_mask(task.target)[0]) for picture, task in pairs]


def share_right(pictures: Sequence[Any], asked: Sequence[Task]) -> float:
    """Return the share of pictures with the shape of the edges in the colours of the prompt."""
    right = [
        judge(picture, Expected(task.scene.shape, task.colour, task.background)).all_right
        for picture, task in zip(pictures, asked, strict=True)
    ]
    return sum(right) / len(right)


def measure(target: Path, count: int) -> Figures:
    """Return the mean overlap at each scale, with prompts that name the shape and with prompts that do not."""
    pipeline, asked = load(target), tasks(count)
    figures: Figures = {}
    for scale in SCALES:
        pictures = drawn(pipeline, asked, scale=scale)
        figures[f"overlap with the edges' shape at scale {scale:g}"] = float(np.mean(overlaps(pictures, asked)))
    figures["right in shape, colour and background at scale 1"] = share_right(pictures, asked)
    pictures = drawn(pipeline, asked, generic=True)
    figures["overlap at scale 1 where the prompt names no shape"] = float(np.mean(overlaps(pictures, asked)))
    figures["lowest of these"] = min(overlaps(pictures, asked))
    figures["right where the prompt names no shape"] = share_right(pictures, asked)
    return figures
