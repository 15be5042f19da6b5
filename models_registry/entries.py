"""A registered model, as everyone above the database sees it; pure."""

from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict


class Kind(StrEnum):
    """Name what a file is used as."""

    CHECKPOINT = "checkpoint"
    LORA = "lora"  # and LoCon, LoHa, LoKr: `variant` says which
    CONTROLNET = "controlnet"
    EMBEDDING = "embedding"
    VAE = "vae"
    UPSCALER = "upscaler"
    PREPROCESSOR = "preprocessor"  # weights of an annotator


class Layout(StrEnum):
    """Name how the files lie on disk."""

    DIFFUSERS = "diffusers"  # a folder with model_index.json, or of one component with config.json
    SINGLE_FILE = "file"  # one safetensors file
    FOLDER = "folder"  # several safetensors files that are used together: an annotator's


#: The family of what serves every family: upscalers and preprocessors.
ANY_FAMILY = "any"


class ModelRef(NamedTuple):
    """Name one entry: names are unique among entries of one kind."""

    kind: Kind
    name: str


class Component(BaseModel):
    """One set of weights inside a checkpoint, equal everywhere its digest is equal."""

    model_config = ConfigDict(frozen=True)

    name: str  # `unet`, `vae`, `text_encoder` …
    bytes: int
    parameters: int
    dtype: str  # as stored: `F16`, `F32`, `BF16`
    #: SHA-256 of its files' contents, or of the list of them where they are several; empty until they were read whole, and where other
    #: components lie in the same file.
    digest: str = ""


class ModelEntry(BaseModel):
    """One model of the catalogue."""

    model_config = ConfigDict(frozen=True)

    name: str
    kind: Kind
    layout: Layout
    family: str  # a key of `models_registry.families.FAMILIES`, or `ANY_FAMILY`
    #: Checkpoints: a key of their family's variants; LoRAs: `lora`, `locon`, `loha`, `lokr`; VAEs: `base`, `tiny`.
    variant: str = "base"
    path: Path
    #: Changes when any byte that matters changes: part of `model_key`, so a warm copy is never mistaken for the new file.
    fingerprint: str
    components: tuple[Component, ...]
    #: Side of the square the model was trained at, pixels; the default size of its pictures. Like the next two, 0 for what does not draw.
    native_size: int = 0
    #: Pixels per latent cell, from the VAE's config.
    latent_factor: int = 0
    latent_channels: int = 0
    #: Width of the text features that are read or given (`cross_attention_dim`): what is made for one width fits no other.
    #: None for what does not touch them, or does not say.
    text_width: int | None = None
    #: Checkpoints: layers of the text encoder, of which `clip_skip` can leave out all but one; None before a scan has counted them.
    text_layers: int | None = None
    #: Channels of the denoiser's first layer (320 of Stable Diffusion, 3072 of FLUX.1): what is made for one width fits no other.
    #: None for what does not touch it, or does not say.
    width: int | None = None
    #: Upscalers: how much one pass enlarges; None where only the library that runs it can tell.
    scale: int | None = None
    #: LoRAs: the largest rank of their matrices; None where they are whole.
    rank: int | None = None
    #: Embeddings: how many tokens the name stands for.
    vectors: int | None = None
    #: The model's own recommendations, over the family's.
    default_steps: int | None = None
    default_guidance_scale: float | None = None
    default_scheduler: str | None = None

    @property
    def bytes(self) -> int:
        """Return the size of all weights as stored."""
        return sum(component.bytes for component in self.components)

    @property
    def ref(self) -> ModelRef:
        """Return what names it."""
        return ModelRef(self.kind, self.name)

    @property
    def model_key(self) -> str:
        """Return what a worker compares to know whether these weights are warm."""
        return f"{self.name}@{self.fingerprint[:16]}"

    @property
    def title(self) -> str:
        """Return the name with the beginning of the fingerprint, as A1111's clients show models."""
        return f"{self.name} [{self.fingerprint[:10]}]"
