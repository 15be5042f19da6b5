"""Sketch what a LoRA does to the weights in a few numbers, whose products estimate the cosines of the updates.

Each number is the product of the whole update with one random vector of signs: with u and v drawn for each layer, u' W v. The vectors
follow from the layer's name and shape, so sketches made anywhere and at any time fit together. The mean of the products of two sketches
is their inner product (a Johnson-Lindenstrauss projection by rank-one tensors); a cosine is estimated with a deviation of at most 3 over
the root of the length.
"""

import hashlib
import math
from collections.abc import Generator

import numpy as np
import torch
from numpy.typing import NDArray

from jobs.analysing.findings import SKETCH_LENGTH, Signature
from pipelines.adapters.lora import Lora
from pipelines.analysis.updates import Update, inner, layers_of, update_of


def signature(lora: Lora, length: int = SKETCH_LENGTH) -> Generator[None, None, Signature]:
    """Return a LoRA's signature; yields after each layer."""
    total = np.zeros(length)
    square, layers = 0.0, 0
    for name, delta in layers_of(lora):
        update = update_of(delta)
        total += _project(name, update, length)
        square += inner(update, update)
        layers += 1
        yield
    norm = math.sqrt(max(0.0, square))
    scaled = total / (norm * math.sqrt(length)) if norm else total
    return Signature(lora.fingerprint, norm, layers, tuple(float(value) for value in scaled))


def _project(name: str, update: Update, length: int) -> NDArray[np.float64]:
    """Return u' W v for `length` pairs of vectors of signs."""
    outputs, inputs = update.shape
    signs = _signs(f"{name}/{outputs}x{inputs}", length, outputs + inputs)
    before, after = signs[:, :outputs], signs[:, outputs:]
    held = before @ update.left
    found = held * after if update.right is None else held * (after @ update.right.T)
    return np.asarray(found.sum(1).numpy(), np.float64)


def _signs(seed: str, rows: int, columns: int) -> torch.Tensor:
    """Draw a matrix of 1 and -1 that follows from the seed alone, on every machine (rows x columns)."""
    key = int.from_bytes(hashlib.sha256(seed.encode()).digest()[:16], "big")
    words = np.random.Philox(key=key).random_raw(math.ceil(rows * columns / 64))
    bits = np.unpackbits(words.astype("<u8").view(np.uint8), count=rows * columns)
    return torch.from_numpy(bits.reshape(rows, columns).astype(np.float64) * 2 - 1)
