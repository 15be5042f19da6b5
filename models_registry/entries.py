"""A registered model, as everyone above the database sees it; pure."""

from enum import StrEnum
from pathlib import Path

from pydantic import BaseModel, ConfigDict


class Kind(StrEnum):
    """Name what a file is used as."""

    CHECKPOINT = "checkpoint"


class Layout(StrEnum):
    """Name how the files lie on disk."""

    DIFFUSERS = "diffusers"  # a folder with model_index.json


class Component(BaseModel):
    """One set of weights inside a checkpoint, equal everywhere its digest is equal."""

    model_config = ConfigDict(frozen=True)

    name: str  # `unet`, `vae`, `text_encoder` …
    bytes: int
    parameters: int
    dtype: str  # as stored: `F16`, `F32`, `BF16`


class ModelEntry(BaseModel):
    """One model of the catalogue."""

    model_config = ConfigDict(frozen=True)

    name: str
    kind: Kind
    layout: Layout
    family: str  # a key of `models_registry.families.FAMILIES`
    variant: str = "base"
    path: Path
    #: Changes when any byte that matters changes: part of `model_key`, so a warm copy is never mistaken for the new file.
    fingerprint: str
    components: tuple[Component, ...]
    #: Side of the square the model was trained at, pixels; the default size of its pictures.
    native_size: int
    #: Pixels per latent cell, from the VAE's config.
    latent_factor: int
    latent_channels: int
    #: The model's own recommendations, over the family's.
    default_steps: int | None = None
    default_guidance_scale: float | None = None
    default_scheduler: str | None = None

    @property
    def bytes(self) -> int:
        """Return the size of all weights as stored."""
        return sum(component.bytes for component in self.components)

    @property
    def model_key(self) -> str:
        """Return what a worker compares to know whether these weights are warm."""
        return f"{self.name}@{self.fingerprint[:16]}"

    @property
    def title(self) -> str:
        """Return the name with the beginning of the fingerprint, as A1111's clients show models."""
        return f"{self.name} [{self.fingerprint[:10]}]"
