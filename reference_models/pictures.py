"""Draw the picture set: one flat-coloured shape on a flat background, with captions that sometimes leave things out.

Knows nothing of torch: the judge and tests of other parts import it cheaply.
Lengths are fractions of the picture's shorter side; y points down.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

SIDE: Final = 128
"""Side of a training picture in pixels."""

PALETTE: Final[dict[str, tuple[int, int, int]]] = {
    "red": (220, 30, 30),
    "green": (30, 160, 50),
    "blue": (30, 60, 220),
    "yellow": (250, 220, 30),
    "purple": (140, 40, 180),
    "orange": (255, 130, 20),
    "white": (250, 250, 250),
    "black": (15, 15, 15),
}
"""Colour names and their RGB values (0-255)."""

COLOURS: Final = tuple(PALETTE)
SHAPES: Final = ("circle", "square", "triangle", "star", "ring", "cross")
SIZES: Final = ("small", "large")
POSITIONS: Final[dict[str, str]] = {
    "left": "on the left",
    "right": "on the right",
    "top": "at the top",
    "bottom": "at the bottom",
    "centre": "in the centre",
}

SMALLEST: Final = 0.15
LARGEST: Final = 0.34
SMALL_BELOW: Final = 0.2
LARGE_ABOVE: Final = 0.27
REACH: Final = 1.16
"""How far the longest shape (the star) reaches, in radii."""

_MARGIN: Final = 0.03
_AXIS_BAND: Final = 0.1
_CENTRE_BAND: Final = 0.06

_EXTRA_SAID: Final = 0.4
"""How often a caption adds a size or a place."""
_ALONE: Final = 0.08
"""How often a caption is one word alone, which is what a negative prompt usually is."""
_CENTRED: Final = 0.4
"""How often a shape is put into the middle."""

_LEFT_OUT: Final = 0.08
"""How often each of shape, colour and background is left out."""
_TAGS: Final = 0.2
"""How often a caption is tags and no sentence."""

Field = NDArray[np.float32]
Pixels = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Scene:
    """Describe one picture completely: names, centre and radius (fractions of the side)."""

    shape: str
    colour: str
    background: str
    x: float
    y: float
    radius: float


@dataclass(frozen=True, slots=True)
class Attributes:
    """Name what a caption says; `None` where it says nothing."""

    shape: str | None = None
    colour: str | None = None
    background: str | None = None
    size: str | None = None
    position: str | None = None


def _circle(x: Field, y: Field) -> Field:
    return np.hypot(x, y) - 1


def _square(x: Field, y: Field) -> Field:
    return np.maximum(np.abs(x), np.abs(y)) - np.float32(0.86)


def _triangle(x: Field, y: Field) -> Field:
    slope = np.float32(math.sqrt(3) / 2)
    return np.maximum(y, slope * np.abs(x) - y / 2) - np.float32(REACH / 2)


def _star(x: Field, y: Field) -> Field:
    # Fold the plane onto one of the ten half-points, then measure the distance to its edge.
    cosine, sine = np.float32(math.cos(math.pi / 5)), np.float32(math.sin(math.pi / 5))
    x, y = np.abs(x), -y
    for side in (cosine, -cosine):
        fold: Field = 2 * np.maximum(side * x - sine * y, np.float32(0))
        x, y = x - fold * side, y + fold * sine
    x, y = np.abs(x), y - np.float32(REACH)
    inner = 0.45
    edge_x, edge_y = np.float32(inner * sine), np.float32(inner * cosine - 1)
    along = np.clip((x * edge_x + y * edge_y) / (edge_x**2 + edge_y**2), 0, np.float32(REACH))
    return np.hypot(x - edge_x * along, y - edge_y * along) * np.sign(y * edge_x - x * edge_y)


def _ring(x: Field, y: Field) -> Field:
    return np.abs(np.hypot(x, y) - np.float32(0.75)) - np.float32(0.25)


def _cross(x: Field, y: Field) -> Field:
    bar = np.float32(0.33)
    across = np.maximum(np.abs(x) - 1, np.abs(y) - bar)
    upright = np.maximum(np.abs(x) - bar, np.abs(y) - 1)
    either: Field = np.minimum(across, upright)
    return either


_DISTANCE: Final[dict[str, Callable[[Field, Field], Field]]] = {
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
    "star": _star,
    "ring": _ring,
    "cross": _cross,
}


def coverage(shape: str, x: float, y: float, radius: float, height: int = SIDE, width: int = SIDE) -> Field:
    """Return how much of each pixel the shape covers: `[height, width]`, 0 to 1."""
    unit = min(height, width)
    rows, columns = np.ogrid[0:height, 0:width]
    across = ((columns + 0.5) / unit - x).astype(np.float32) / np.float32(radius)
    down = ((rows + 0.5) / unit - y).astype(np.float32) / np.float32(radius)
    across, down = np.broadcast_arrays(across, down)
    distance = _DISTANCE[shape](across, down) * np.float32(radius * unit)
    inside: Field = np.clip(0.5 - distance, 0, 1).astype(np.float32)
    return inside


def draw(scene: Scene, height: int = SIDE, width: int = SIDE) -> Pixels:
    """Draw the scene as `[height, width, 3]` bytes."""
    inside = coverage(scene.shape, scene.x, scene.y, scene.radius, height, width)[..., None]
    front = np.array(PALETTE[scene.colour], np.float32)
    back = np.array(PALETTE[scene.background], np.float32)
    pixels: Pixels = np.rint(back + (front - back) * inside).astype(np.uint8)
    return pixels


def random_scene(rng: np.random.Generator) -> Scene:
    """Draw a scene at random: the colours differ, the shape lies wholly inside the picture, often in its middle."""
    colour, background = rng.choice(len(COLOURS), size=2, replace=False)
    radius = float(rng.uniform(SMALLEST, LARGEST))
    room = REACH * radius + _MARGIN
    shape = SHAPES[rng.integers(len(SHAPES))]
    centred = rng.random() < _CENTRED
    while True:
        low, high = (0.5 - _CENTRE_BAND, 0.5 + _CENTRE_BAND) if centred else (room, 1 - room)
        x, y = rng.uniform(low, high, size=2)
        scene = Scene(shape, COLOURS[colour], COLOURS[background], float(x), float(y), radius)
        # A place without a word for it could not be asked for.
        if position_words(scene):
            return scene


def size_word(scene: Scene) -> str | None:
    """Return "small" or "large" where one of them is true."""
    if scene.radius < SMALL_BELOW:
        return "small"
    return "large" if scene.radius > LARGE_ABOVE else None


def position_words(scene: Scene) -> tuple[str, ...]:
    """Return every position word that is true of the scene."""
    x, y = scene.x - 0.5, scene.y - 0.5
    true = {
        "left": x < -_AXIS_BAND,
        "right": x > _AXIS_BAND,
        "top": y < -_AXIS_BAND,
        "bottom": y > _AXIS_BAND,
        "centre": max(abs(x), abs(y)) < _CENTRE_BAND,
    }
    return tuple(word for word, holds in true.items() if holds)


def random_attributes(scene: Scene, rng: np.random.Generator) -> Attributes:
    """Choose what a caption of the scene says: mostly all three names, sometimes less, now and then one alone."""
    size = size_word(scene) if rng.random() < _EXTRA_SAID else None
    places = position_words(scene)
    # Elsewhere than in the middle the place is always said: so a caption without one means the middle.
    said = places != ("centre",) or rng.random() < _EXTRA_SAID
    position = places[rng.integers(len(places))] if said else None
    if rng.random() < _ALONE:
        size = position = None
        kept = np.arange(3) == rng.integers(3)
    else:
        kept = rng.random(3) > _LEFT_OUT
    return Attributes(
        shape=scene.shape if kept[0] else None,
        colour=scene.colour if kept[1] else None,
        background=scene.background if kept[2] else None,
        size=size,
        position=position,
    )


def _with_article(words: str) -> str:
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def caption(said: Attributes, *, tags: bool = False) -> str:
    """Put the attributes into words: a sentence ("a red circle on a blue background") or comma-separated tags."""
    if tags:
        subject = " ".join(word for word in (said.size, said.colour, said.shape) if word)
        background = f"{said.background} background" if said.background else ""
        place = POSITIONS[said.position] if said.position else ""
        return ", ".join(part for part in (subject, background, place) if part) or "shape"
    subject = _with_article(" ".join(word for word in (said.size, said.colour, said.shape or "shape") if word))
    place = f" {POSITIONS[said.position]}" if said.position else ""
    background = f" on {_with_article(said.background)} background" if said.background else ""
    return f"{subject}{place}{background}"


def random_caption(scene: Scene, rng: np.random.Generator) -> tuple[str, Attributes]:
    """Return a caption of the scene and what it says."""
    said = random_attributes(scene, rng)
    named = (said.shape, said.colour, said.background)
    alone = sum(name is not None for name in named) == 1 and not (said.size or said.position)
    return caption(said, tags=alone or bool(rng.random() < _TAGS)), said
