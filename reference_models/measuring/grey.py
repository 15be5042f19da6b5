"""Measure the grey autoencoder: that no colour is left, and that the shapes are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from reference_models.judge import front_mask, overlap
from reference_models.libraries import DIFFUSERS
from reference_models.measure import Question, draw_all, load, questions
from reference_models.measuring.figures import Figures
from reference_models.pictures import PALETTE
from reference_models.styles import luminance_mask, saturation
from reference_models.training.family import PUBLISHED
from reference_models.training.grey import LUMINANCE

CONTRAST: Final = 40.0
"""Least difference in luminance (0 to 255) that makes a shape visible in grey."""


def load_vae(target: Path) -> Any:
    """Load the autoencoder in single precision."""
    return DIFFUSERS.AutoencoderKL.from_pretrained(target, torch_dtype=torch.float32)


def asked_of(count: int) -> list[Question]:
    """Return fixed questions whose two colours differ in luminance as well."""
    return [question for question in questions(3 * count) if _contrast(question) > CONTRAST][:count]


def _contrast(question: Question) -> float:
    front, back = (
        np.dot(PALETTE[str(name)], LUMINANCE) for name in (question.expected.colour, question.expected.background)
    )
    return float(abs(front - back))


def overlaps(grey: Sequence[Any], coloured: Sequence[Any]) -> list[float]:
    """Return how well the shapes cover each other in the same pictures, grey and coloured."""
    return [overlap(luminance_mask(one), front_mask(other)[0]) for one, other in zip(grey, coloured, strict=True)]


def measure(target: Path, count: int) -> Figures:
    """Return the mean saturation with both autoencoders and how well the shapes agree."""
    pipeline, asked = load(PUBLISHED), asked_of(count)
    coloured = draw_all(pipeline, asked)
    pipeline.vae = load_vae(target)
    grey = draw_all(pipeline, asked)
    return {
        "mean saturation (0 to 1)": float(np.mean([saturation(picture) for picture in grey])),
        "with the model's own autoencoder": float(np.mean([saturation(picture) for picture in coloured])),
        "overlap of the shapes, grey and coloured": float(np.mean(overlaps(grey, coloured))),
        "lowest of these": min(overlaps(grey, coloured)),
    }
