"""What an analysis found out about models, on its way from the engine to its rows; pure."""

import hashlib
from dataclasses import dataclass
from typing import Final

#: Numbers in a sketch: a cosine is estimated with a deviation of at most 3 over the root of that, 0.13.
SKETCH_LENGTH: Final = 512


@dataclass(frozen=True)
class Signature:
    """What one LoRA does to the weights, in short; the product of two sketches estimates the cosine of the updates."""

    fingerprint: str
    #: Frobenius norm of the whole update at weight 1.
    norm: float
    layers: int
    #: `SKETCH_LENGTH` numbers, scaled so that the sketch of a LoRA times itself is about 1.
    sketch: tuple[float, ...]


@dataclass(frozen=True)
class Comparison:
    """How alike two LoRAs' updates are; by fingerprints, the smaller one first."""

    one: str
    other: str
    #: -1 … 1; a layer that only one of the two changes counts as different.
    cosine: float
    #: Layers that both change.
    layers: int


@dataclass(frozen=True)
class TextVector:
    """Where a text lies for one text encoder."""

    #: Fingerprint of the checkpoint whose text encoder it is.
    encoder: str
    #: As `text_digest` counts.
    digest: str
    #: Of length 1.
    vector: tuple[float, ...]


@dataclass(frozen=True)
class Findings:
    """Everything one analysis found out."""

    signatures: tuple[Signature, ...] = ()
    comparisons: tuple[Comparison, ...] = ()
    vectors: tuple[TextVector, ...] = ()


def text_digest(text: str) -> str:
    """Return what names a text where its vector is kept."""
    return hashlib.sha256(text.encode()).hexdigest()


def compared(one: str, other: str, cosine: float, layers: int) -> Comparison:
    """Return the comparison of two fingerprints in the order in which it is kept."""
    return Comparison(min(one, other), max(one, other), cosine, layers)
