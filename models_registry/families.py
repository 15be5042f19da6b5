"""What each model family can do: pure facts, so that a request can be refused before any GPU sees it."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from models_registry.entries import Kind, ModelEntry

INPAINT: Final = "inpaint"


class FamilyFacts(NamedTuple):
    """State what one family supports and what its defaults are."""

    name: str
    title: str
    #: Of an ordinary checkpoint; `tasks_of` says what one model does.
    tasks: frozenset[str]
    #: What can be added to its checkpoints, or take the place of a part of them.
    adapters: frozenset[Kind]
    #: Width and height must be multiples of this many pixels.
    size_step: int
    min_side: int
    max_side: int
    native_size: int
    latent_channels: int
    latent_factor: int
    default_steps: int
    default_guidance_scale: float
    default_scheduler: str
    #: `epsilon` families accept every scheduler of `models_registry.schedulers` of this kind.
    prediction: str
    #: Bytes of activations per pixel of the picture at fp16, batch of two rows; learnt peaks refine it later.
    activation_bytes_per_pixel: int
    #: Diffusers class named in a folder's model_index.json.
    pipeline_classes: frozenset[str]


FAMILIES: Mapping[str, FamilyFacts] = MappingProxyType(
    {
        "sd15": FamilyFacts(
            name="sd15",
            title="Stable Diffusion 1.x",
            tasks=frozenset({"txt2img", "img2img", INPAINT}),
            adapters=frozenset({Kind.LORA, Kind.CONTROLNET, Kind.EMBEDDING, Kind.VAE}),
            size_step=8,
            min_side=64,
            max_side=4096,
            native_size=512,
            latent_channels=4,
            latent_factor=8,
            default_steps=25,
            default_guidance_scale=7.0,
            default_scheduler="DPM++ 2M Karras",
            prediction="epsilon",
            # SD 1.5 at 512 x 512 in fp16 peaks about 1.2 GiB above its weights with sliced attention off.
            activation_bytes_per_pixel=5_000,
            pipeline_classes=frozenset({"StableDiffusionPipeline", "StableDiffusionInpaintPipeline"}),
        ),
    }
)


def tasks_of(entry: ModelEntry) -> frozenset[str]:
    """Return the tasks that can be asked of one model."""
    if entry.kind is Kind.UPSCALER:
        return frozenset({"upscale"})
    if entry.kind is Kind.PREPROCESSOR:
        return frozenset({"preprocess"})
    if entry.kind is not Kind.CHECKPOINT:
        return frozenset()
    # A network that reads a mask beside the latents has nothing to read without one.
    return frozenset({INPAINT}) if entry.variant == INPAINT else FAMILIES[entry.family].tasks
