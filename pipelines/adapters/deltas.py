"""What one adapter adds to the output of one layer: a low-rank product, or a whole weight.

A delta knows the form of its own tensors and which layers it fits; neither files nor names.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.nn import functional

_CONVOLUTION = 4


@dataclass(frozen=True, eq=False)
class LowRank:
    """Add up(mid(down(x))): LoRA and LoCon.

    `down` is rank x inputs, of a convolution rank x inputs x height x width; `up` is outputs x rank [x 1 x 1]; `mid`, where there is one,
    rank x rank x height x width, and `down` then 1 x 1.
    """

    #: One of its tensors, for messages.
    key: str
    down: torch.Tensor
    up: torch.Tensor
    mid: torch.Tensor | None
    #: Alpha over rank.
    scale: float

    @property
    def bytes(self) -> int:
        """Return what it weighs."""
        return self.down.nbytes + self.up.nbytes + (0 if self.mid is None else self.mid.nbytes)

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the shape of the weight it is added to."""
        kernel = self.down if self.mid is None else self.mid
        return (self.up.shape[0], self.down.shape[1], *kernel.shape[2:])

    def __call__(self, layer: Any, inputs: torch.Tensor) -> torch.Tensor:
        """Return what is added to the layer's output for these inputs, before any weight."""
        if isinstance(layer, torch.nn.Linear):
            return functional.linear(functional.linear(inputs, self.down.flatten(1)), self.up.flatten(1))
        form = {"stride": layer.stride, "padding": layer.padding, "dilation": layer.dilation}
        if self.mid is None:
            hidden = functional.conv2d(inputs, _four(self.down), **form)
        else:
            hidden = functional.conv2d(functional.conv2d(inputs, _four(self.down)), self.mid, **form)
        return functional.conv2d(hidden, _four(self.up))


@dataclass(frozen=True, eq=False)
class Dense:
    """Add the product with a weight of the layer's own shape: LoHa and LoKr, whose factors cannot be applied one after the other."""

    key: str
    weight: torch.Tensor
    scale: float

    @property
    def bytes(self) -> int:
        """Return what it weighs."""
        return self.weight.nbytes

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the shape of the weight it is added to; of a convolution inputs, height and width may lie in one dimension."""
        return tuple(self.weight.shape)

    def __call__(self, layer: Any, inputs: torch.Tensor) -> torch.Tensor:
        """Return what is added to the layer's output for these inputs, before any weight."""
        weight = self.weight.view(layer.weight.shape)
        if isinstance(layer, torch.nn.Linear):
            return functional.linear(inputs, weight)
        return functional.conv2d(inputs, weight, stride=layer.stride, padding=layer.padding, dilation=layer.dilation)


Delta = LowRank | Dense


def fits(delta: Delta, layer: Any) -> bool:
    """Tell whether a delta can be added to a layer's output."""
    if not isinstance(layer, torch.nn.Linear | torch.nn.Conv2d) or getattr(layer, "groups", 1) != 1:
        return False
    if isinstance(layer, torch.nn.Conv2d) and not isinstance(layer.padding, tuple):
        return False
    wanted = tuple(layer.weight.shape)
    if isinstance(delta, Dense) and len(delta.shape) == 2:  # noqa: PLR2004 - outputs x everything else
        return delta.shape == (wanted[0], layer.weight[0].numel())
    # A 1 x 1 convolution and a linear layer are written as either.
    return _trimmed(delta.shape) == _trimmed(wanted)


def parts(delta: Delta, rows: Sequence[int]) -> list[Delta]:
    """Return what a delta adds to each of several layers whose outputs lie one behind the other; none where the sizes do not fit."""
    if delta.shape[0] != sum(rows):
        return []
    if isinstance(delta, Dense):
        return [replace(delta, weight=weight.clone()) for weight in torch.split(delta.weight, list(rows))]
    return [replace(delta, up=up.clone()) for up in torch.split(delta.up, list(rows))]


def _trimmed(shape: tuple[int, ...]) -> tuple[int, ...]:
    return shape[:2] if shape[2:] == (1, 1) else shape


def _four(weight: torch.Tensor) -> torch.Tensor:
    return weight if weight.ndim == _CONVOLUTION else weight[..., None, None]
