"""Train `shapes-x2` and `shapes-x4`: upscalers in the layout of Real-ESRGAN's compact network."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, cast

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate, pixel_shuffle

from reference_models.pictures import PALETTE, Field, coverage, random_scene
from reference_models.training.family import QUICK_STEPS, Family
from reference_models.training.loop import Plan, fit

SCALES: Final[dict[str, int]] = {"shapes-x2": 2, "shapes-x4": 4}
WIDTH: Final = 24
LAYERS: Final = 4
REACH: Final = LAYERS + 2
"""How many pixels of the small picture around a place decide what is drawn there: one for each layer."""

BATCH: Final = 8
CROP: Final = 32
_SIDES: Final = ((256, 320), (512, 80))
"""Sides of the large pictures, and how many of each are drawn."""
_NAMED: Final = 0.8
_TRIES: Final = 4
_STRESS: Final = 30.0
_START: Final = 0.0005
_SLOPE: Final = 0.25
"""PReLU's own slope at the start."""
_NAMED_COLOURS: Final = np.array(list(PALETTE.values()), np.float32) / np.float32(255)


class Compact(nn.Module):
    """Enlarge by adding what convolutions find to the nearest neighbour's picture; only `body` holds weights."""

    def __init__(self, scale: int) -> None:
        """Build the layers under the names that loaders of such files expect."""
        super().__init__()
        self.scale = scale
        layers: list[nn.Module] = [nn.Conv2d(3, WIDTH, 3, padding=1), nn.PReLU(WIDTH)]
        for _ in range(LAYERS):
            layers += [nn.Conv2d(WIDTH, WIDTH, 3, padding=1), nn.PReLU(WIDTH)]
        last = nn.Conv2d(WIDTH, 3 * scale * scale, 3, padding=1)
        self.body = nn.Sequential(*layers, last)
        self._start_like_bicubic(last)

    @torch.no_grad()
    def _start_like_bicubic(self, last: nn.Conv2d) -> None:
        """Let the picture pass through as it is, and enlarge it at the end: a random start takes minutes to come this far."""
        for layer in self.body:
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, a=_SLOPE)
                bias = cast("Tensor", layer.bias)
                nn.init.zeros_(bias)
                # Pixels are never negative: the activations leave these three channels alone.
                nn.init.dirac_(layer.weight[:3])
                # One more channel is 1 inside and, by the padding, 0 outside: so edges of a picture can be known.
                nn.init.zeros_(layer.weight[3])
                nn.init.ones_(bias[3])
        nn.init.normal_(last.weight, std=_START)
        nn.init.zeros_(cast("Tensor", last.bias))
        nn.init.zeros_(last.weight[:, :3])
        lone = torch.eye(9).view(9, 1, 3, 3)
        side = self.scale
        cubic = interpolate(lone, scale_factor=side, mode="bicubic")[:, 0, side : 2 * side, side : 2 * side]
        added = cubic - interpolate(lone, scale_factor=side, mode="nearest")[:, 0, side : 2 * side, side : 2 * side]
        kernels = added.permute(1, 2, 0).reshape(side * side, 3, 3)
        for channel in range(3):
            last.weight[channel * side * side : (channel + 1) * side * side, channel] = kernels

    def forward(self, small: Tensor) -> Tensor:
        """Return the enlarged pictures, `[n, 3, h, w]` from 0 to 1."""
        found = pixel_shuffle(self.body(small), self.scale)
        return found + interpolate(small, scale_factor=self.scale, mode="nearest")


def load(path: Path) -> Compact:
    """Return a published upscaler in single precision."""
    net = Compact(SCALES[path.stem])
    net.load_state_dict({name: value.float() for name, value in load_file(path).items()})
    return net.eval()


def shrunk(large: Tensor, scale: int) -> Tensor:
    """Return the pictures made smaller by the mean of each square of pixels, rounded to bytes."""
    return (avg_pool2d(large, scale) * 255).round() / 255


@dataclass(frozen=True, slots=True)
class _Shapes:
    """Hold shapes drawn large; every look at one gives it other colours."""

    covers: list[Field]

    def _edge(self, rng: np.random.Generator, side: int) -> Field:
        """Return a random square of a random shape, of flat ones only now and then: they teach little."""
        for _ in range(_TRIES):
            cover = self.covers[rng.integers(len(self.covers))]
            top, left = rng.integers(0, len(cover) - side + 1, size=2)
            inside: Field = cover[top : top + side, left : left + side]
            if inside.min() != inside.max():
                break
        return inside

    def cut(self, rng: np.random.Generator, count: int, side: int) -> Tensor:
        """Return random squares of random shapes: `[count, 3, side, side]`, 0 to 1."""
        found = np.empty((count, 3, side, side), np.float32)
        for index in range(count):
            inside = self._edge(rng, side)
            front, back = (_colour(rng)[:, None, None] for _ in range(2))
            found[index] = back + (front - back) * inside
        return torch.from_numpy(found)


def _colour(rng: np.random.Generator) -> Field:
    # Other colours than the eight as well: edges of generated pictures blend.
    if rng.random() < _NAMED:
        colour: Field = _NAMED_COLOURS[rng.integers(len(_NAMED_COLOURS))]
        return colour
    return rng.random(3, dtype=np.float32)


def _shapes(*, quick: bool) -> _Shapes:
    rng = np.random.default_rng(61)
    covers = []
    for side, count in _SIDES:
        for _ in range(4 if quick else count):
            scene = random_scene(rng)
            covers.append(coverage(scene.shape, scene.x, scene.y, scene.radius, side, side))
    return _Shapes(covers)


def train(family: Family, folder: Path, target: Path, *, quick: bool = False) -> float:
    """Train the upscaler that the target is named after; return the seconds spent."""
    # It works on pixels: nothing of the family is needed.
    del family
    scale = SCALES[target.stem]
    torch.manual_seed(scale)
    net, shapes = Compact(scale), _shapes(quick=quick)

    def loss(rng: np.random.Generator) -> Tensor:
        large = shapes.cut(rng, BATCH, CROP * scale)
        wrong = net(shrunk(large, scale)) - large
        # No absolute differences: most pixels are flat, and for them adding nothing at all is best.
        return cast("Tensor", _STRESS * wrong.square().mean())

    plan = Plan(target.stem, steps=1800, rate=2e-3, average=0.995, seed=60 + scale, save_every=500)
    seconds = fit(replace(plan, steps=QUICK_STEPS) if quick else plan, net, loss, folder)
    target.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: value.half().contiguous() for name, value in net.state_dict().items()}, target)
    target.chmod(0o644)
    return seconds
