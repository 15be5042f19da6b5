"""Multiply the updates of two LoRAs, as if both were one long vector, without writing either out.

For low-rank updates B1 A1 and B2 A2 the inner product is the sum over (B1' B2) * (A1 A2'), whose sides are the ranks. LoHa and LoKr are
whole weights already when they are added to a model, and are multiplied as such: with a low-rank update as the sum over (B' W) * A.
Knows neither files nor what the products are for. Everything is computed on the CPU at double precision.
"""

import math
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import torch

from pipelines.adapters.deltas import Delta, Dense
from pipelines.adapters.lora import Lora


class Update(NamedTuple):
    """What one layer's weight is changed by: `left` times `right`, outputs x inputs; without `right`, `left` alone."""

    left: torch.Tensor
    right: torch.Tensor | None

    @property
    def shape(self) -> tuple[int, int]:
        """Return outputs and inputs; of a convolution the kernel counts among the inputs."""
        return self.left.shape[0], (self.left if self.right is None else self.right).shape[1]


def update_of(delta: Delta) -> Update:
    """Return what a delta adds at weight 1."""
    if isinstance(delta, Dense):
        return Update(delta.weight.double().flatten(1) * delta.scale, None)
    left, right = delta.up.double().flatten(1) * delta.scale, delta.down.double()
    if delta.mid is not None:
        right = torch.einsum("pqhw,qi->pihw", delta.mid.double(), right.flatten(1))
    return Update(left, right.flatten(1))


def inner(one: Update, other: Update) -> float:
    """Return the inner product of two updates of the same shape."""
    if one.right is None and other.right is None:
        return float((one.left * other.left).sum())
    if one.right is None:
        return inner(other, one)
    if other.right is None:
        return float(((one.left.T @ other.left) * one.right).sum())
    return float(((one.left.T @ other.left) * (one.right @ other.right.T)).sum())


class Product(NamedTuple):
    """The inner product of two LoRAs, and how many layers both change."""

    value: float
    layers: int


def layers_of(lora: Lora) -> Iterator[tuple[str, Delta]]:
    """Yield every layer that is changed, by component and name."""
    for component, deltas in lora.deltas.items():
        for name, delta in deltas.items():
            yield f"{component}/{name}", delta


def product(one: Lora, other: Lora) -> Product:
    """Return the inner product of two LoRAs: layers that only one of them changes, or that differ in shape, add nothing."""
    others: Mapping[str, Delta] = dict(layers_of(other))
    value, layers = 0.0, 0
    for name, delta in layers_of(one):
        if name not in others:
            continue
        mine, theirs = update_of(delta), update_of(others[name])
        if mine.shape == theirs.shape:
            value += inner(mine, theirs)
            layers += 1
    return Product(value, layers)


def norm(lora: Lora) -> float:
    """Return the Frobenius norm of everything a LoRA adds."""
    return math.sqrt(max(0.0, product(lora, lora).value))


def cosine(one: Lora, other: Lora) -> Product:
    """Return the cosine of two LoRAs' updates, 0 where one of them changes nothing, and the layers both change."""
    found = product(one, other)
    lengths = norm(one) * norm(other)
    return Product(max(-1.0, min(1.0, found.value / lengths)) if lengths else 0.0, found.layers)
