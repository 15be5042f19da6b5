"""What each model family can do: pure facts, so that a request can be refused before any GPU sees it.

A family is one architecture; its variants are trained for different things and are told apart by `ModelEntry.variant`.
"""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final, NamedTuple

from models_registry.entries import Kind, ModelEntry

BASE: Final = "base"
INPAINT: Final = "inpaint"


class Guidance(StrEnum):
    """Name what `guidance_scale` does to a model."""

    #: Two rows per call, above a scale of 1: the negative prompt is what the picture is led away from.
    CLASSIFIER_FREE = "classifier_free"
    #: The network reads the scale as one of its inputs: one row per call, and no negative prompt.
    EMBEDDED = "embedded"
    #: Trained away: neither the scale nor a negative prompt does anything.
    NONE = "none"


class Prediction(StrEnum):
    """Name what a network predicts, as the configurations of schedulers call it; `flow` is the velocity of a rectified flow."""

    EPSILON = "epsilon"
    V = "v_prediction"
    FLOW = "flow"


class VariantFacts(NamedTuple):
    """State what one variant of a family is asked for, and its published defaults."""

    #: What people call it.
    title: str
    tasks: frozenset[str]
    steps: int
    guidance_scale: float
    scheduler: str
    guidance: Guidance = Guidance.CLASSIFIER_FREE
    prediction: Prediction = Prediction.EPSILON
    #: Side of the square it was trained at, pixels; 0 is the family's.
    native_size: int = 0
    #: Whether its first layer reads a control picture beside the latents: such a job has one control, without a model.
    reads_control: bool = False
    #: Whether ControlNets can guide it; a network that reads more than latents has none.
    takes_controlnets: bool = True


class FamilyFacts(NamedTuple):
    """State what one family supports."""

    name: str
    title: str
    #: By `ModelEntry.variant`.
    variants: Mapping[str, VariantFacts]
    #: What can be added to its checkpoints, or take the place of a part of them.
    adapters: frozenset[Kind]
    #: Width and height must be multiples of this many pixels.
    size_step: int
    min_side: int
    max_side: int
    native_size: int
    #: Of the published models; a checkpoint's own configuration holds.
    latent_channels: int
    latent_factor: int
    #: Bytes of activations per pixel of the picture at fp16, batch of two rows; learnt peaks refine it later.
    activation_bytes_per_pixel: int
    #: Diffusers classes that a folder's model_index.json may name → the variant that such a folder is; None where the class does not say.
    pipeline_classes: Mapping[str, str | None]
    #: Whether it reads the layers of a CLIP text encoder, of which the last ones can be skipped.
    takes_clip_skip: bool = True
    #: Whether another of its checkpoints can draw the last of the noise away.
    takes_refiner: bool = False
    #: Up to this scale classifier-free guidance draws by the prompt alone. It is 0 where the whole scale is added to the prompt's own part.
    unguided_scale: float = 1.0

    @property
    def tasks(self) -> frozenset[str]:
        """Return what any of its variants does."""
        return frozenset().union(*(variant.tasks for variant in self.variants.values()))


_ANY: Final = frozenset({"txt2img", "img2img", INPAINT})
_TXT2IMG: Final = frozenset({"txt2img", "img2img"})
_INPAINT: Final = frozenset({INPAINT})

_SD15: Final = FamilyFacts(
    name="sd15",
    title="Stable Diffusion 1.x",
    variants=MappingProxyType(
        {
            BASE: VariantFacts("Stable Diffusion 1.x", _ANY, 25, 7.0, "DPM++ 2M Karras"),
            # A network that reads a mask beside the latents has nothing to read without one.
            INPAINT: VariantFacts("Stable Diffusion 1.x inpainting", _INPAINT, 25, 7.0, "DPM++ 2M Karras"),
        }
    ),
    adapters=frozenset({Kind.LORA, Kind.CONTROLNET, Kind.EMBEDDING, Kind.VAE}),
    size_step=8,
    min_side=64,
    max_side=4096,
    native_size=512,
    latent_channels=4,
    latent_factor=8,
    # SD 1.5 at 512 x 512 in fp16 peaks about 1.2 GiB above its weights with sliced attention off.
    activation_bytes_per_pixel=5_000,
    pipeline_classes=MappingProxyType({"StableDiffusionPipeline": None, "StableDiffusionInpaintPipeline": INPAINT}),
)

# Even the classes are those of Stable Diffusion 1.x: what is inside tells them apart.
_SD2: Final = _SD15._replace(
    name="sd2",
    title="Stable Diffusion 2.x",
    variants=MappingProxyType(
        {
            BASE: VariantFacts("Stable Diffusion 2.x base", _ANY, 25, 7.0, "DPM++ 2M Karras"),
            "v": VariantFacts(
                "Stable Diffusion 2.x", _ANY, 25, 7.0, "DPM++ 2M Karras", prediction=Prediction.V, native_size=768
            ),
            INPAINT: VariantFacts("Stable Diffusion 2.x inpainting", _INPAINT, 25, 7.0, "DPM++ 2M Karras"),
        }
    ),
)

_SDXL: Final = FamilyFacts(
    name="sdxl",
    title="SDXL",
    variants=MappingProxyType(
        {
            # Pony, Illustrious and their like are this one; what they were trained from stands in the entry's `base_model`.
            BASE: VariantFacts("SDXL", _ANY, 30, 5.0, "DPM++ 2M Karras"),
            "v": VariantFacts("SDXL, v-prediction", _ANY, 30, 5.0, "Euler", prediction=Prediction.V),
            "refiner": VariantFacts(
                "SDXL refiner", frozenset({"img2img"}), 30, 5.0, "DPM++ 2M Karras", takes_controlnets=False
            ),
            INPAINT: VariantFacts("SDXL inpainting", _INPAINT, 25, 7.0, "DPM++ 2M Karras"),
            "turbo": VariantFacts("SDXL Turbo", _ANY, 4, 0.0, "Euler a SGM Uniform", native_size=512),
            "lightning": VariantFacts("SDXL Lightning", _ANY, 4, 0.0, "Euler SGM Uniform"),
            # Merged from a LoRA …
            "lcm": VariantFacts("SDXL LCM", _ANY, 6, 0.0, "LCM"),
            # … or distilled whole (latent-consistency/lcm-sdxl), by which the network reads the scale.
            "lcm-full": VariantFacts("SDXL LCM, full", _ANY, 4, 8.0, "LCM", Guidance.EMBEDDED),
        }
    ),
    adapters=frozenset({Kind.LORA, Kind.CONTROLNET, Kind.EMBEDDING, Kind.VAE}),
    size_step=8,
    min_side=64,
    max_side=4096,
    native_size=1024,
    latent_channels=4,
    latent_factor=8,
    activation_bytes_per_pixel=3_000,
    pipeline_classes=MappingProxyType(
        {
            "StableDiffusionXLPipeline": None,
            "StableDiffusionXLImg2ImgPipeline": None,
            "StableDiffusionXLInpaintPipeline": INPAINT,
        }
    ),
    takes_refiner=True,
)

_SD3: Final = FamilyFacts(
    name="sd3",
    title="Stable Diffusion 3",
    variants=MappingProxyType(
        {
            "medium": VariantFacts("Stable Diffusion 3 Medium", _ANY, 28, 7.0, "Euler", prediction=Prediction.FLOW),
            "3.5-medium": VariantFacts(
                "Stable Diffusion 3.5 Medium", _ANY, 40, 4.5, "Euler", prediction=Prediction.FLOW
            ),
            "3.5-large": VariantFacts("Stable Diffusion 3.5 Large", _ANY, 28, 3.5, "Euler", prediction=Prediction.FLOW),
            "3.5-large-turbo": VariantFacts(
                "Stable Diffusion 3.5 Large Turbo", _ANY, 4, 0.0, "Euler", prediction=Prediction.FLOW
            ),
        }
    ),
    adapters=frozenset({Kind.LORA, Kind.CONTROLNET, Kind.VAE}),
    # A cell of the transformer is two cells of the latents.
    size_step=16,
    min_side=64,
    max_side=2048,
    native_size=1024,
    latent_channels=16,
    latent_factor=8,
    activation_bytes_per_pixel=3_000,
    pipeline_classes=MappingProxyType({"StableDiffusion3Pipeline": None}),
    takes_clip_skip=False,
)

_FLUX: Final = FamilyFacts(
    name="flux",
    title="FLUX.1",
    variants=MappingProxyType(
        {
            "dev": VariantFacts("FLUX.1 dev", _ANY, 28, 3.5, "Euler", Guidance.EMBEDDED, Prediction.FLOW),
            "schnell": VariantFacts("FLUX.1 schnell", _ANY, 4, 0.0, "Euler", Guidance.NONE, Prediction.FLOW),
            "fill": VariantFacts(
                "FLUX.1 Fill", _INPAINT, 50, 30.0, "Euler", Guidance.EMBEDDED, Prediction.FLOW, takes_controlnets=False
            ),
            # These two draw a picture after a control picture, which their first layer reads beside the latents.
            "canny": VariantFacts(
                "FLUX.1 Canny",
                _TXT2IMG,
                50,
                30.0,
                "Euler",
                Guidance.EMBEDDED,
                Prediction.FLOW,
                reads_control=True,
                takes_controlnets=False,
            ),
            "depth": VariantFacts(
                "FLUX.1 Depth",
                _TXT2IMG,
                30,
                10.0,
                "Euler",
                Guidance.EMBEDDED,
                Prediction.FLOW,
                reads_control=True,
                takes_controlnets=False,
            ),
        }
    ),
    adapters=frozenset({Kind.LORA, Kind.CONTROLNET, Kind.VAE}),
    size_step=16,
    min_side=64,
    max_side=2048,
    native_size=1024,
    latent_channels=16,
    latent_factor=8,
    activation_bytes_per_pixel=2_500,
    pipeline_classes=MappingProxyType({"FluxPipeline": None, "FluxFillPipeline": "fill", "FluxControlPipeline": None}),
    takes_clip_skip=False,
)

_ZIMAGE: Final = FamilyFacts(
    name="zimage",
    title="Z-Image",
    variants=MappingProxyType(
        {
            "turbo": VariantFacts(
                "Z-Image Turbo", _ANY, 8, 0.0, "Euler", Guidance.NONE, Prediction.FLOW, takes_controlnets=False
            ),
            BASE: VariantFacts("Z-Image", _ANY, 50, 4.0, "Euler", prediction=Prediction.FLOW, takes_controlnets=False),
        }
    ),
    adapters=frozenset({Kind.LORA, Kind.VAE}),
    size_step=16,
    min_side=64,
    max_side=2048,
    native_size=1024,
    latent_channels=16,
    latent_factor=8,
    activation_bytes_per_pixel=3_000,
    pipeline_classes=MappingProxyType({"ZImagePipeline": None}),
    takes_clip_skip=False,
    unguided_scale=0.0,
)

_QWENIMAGE: Final = FamilyFacts(
    name="qwenimage",
    title="Qwen-Image",
    variants=MappingProxyType(
        {
            BASE: VariantFacts("Qwen-Image", _ANY, 50, 4.0, "Euler", prediction=Prediction.FLOW),
        }
    ),
    adapters=frozenset({Kind.LORA, Kind.CONTROLNET}),
    size_step=16,
    min_side=64,
    max_side=2048,
    native_size=1328,
    latent_channels=16,
    latent_factor=8,
    # Its VAE keeps what each of its convolutions saw: 2.8 KB a pixel while it decodes, and what the convolutions themselves need.
    activation_bytes_per_pixel=4_000,
    pipeline_classes=MappingProxyType({"QwenImagePipeline": None}),
    takes_clip_skip=False,
)

_FLUX2: Final = FamilyFacts(
    name="flux2",
    title="FLUX.2",
    variants=MappingProxyType(
        {
            "klein": VariantFacts(
                "FLUX.2 klein", _ANY, 4, 0.0, "Euler", Guidance.NONE, Prediction.FLOW, takes_controlnets=False
            ),
            "klein-base": VariantFacts(
                "FLUX.2 klein base", _ANY, 50, 4.0, "Euler", prediction=Prediction.FLOW, takes_controlnets=False
            ),
            "dev": VariantFacts(
                "FLUX.2 dev", _ANY, 50, 4.0, "Euler", Guidance.EMBEDDED, Prediction.FLOW, takes_controlnets=False
            ),
        }
    ),
    adapters=frozenset({Kind.LORA}),
    size_step=16,
    min_side=64,
    max_side=2048,
    native_size=1024,
    # Of the VAE; the transformer sees four of its cells as one of 128 channels.
    latent_channels=32,
    latent_factor=8,
    activation_bytes_per_pixel=2_500,
    # Whether klein is distilled stands beside the class.
    pipeline_classes=MappingProxyType({"Flux2KleinPipeline": None, "Flux2Pipeline": "dev"}),
    takes_clip_skip=False,
)

#: The least demanding first.
FAMILIES: Final[Mapping[str, FamilyFacts]] = MappingProxyType(
    {family.name: family for family in (_SD15, _SD2, _SDXL, _SD3, _ZIMAGE, _FLUX, _FLUX2, _QWENIMAGE)}
)


def facts_of(entry: ModelEntry) -> VariantFacts:
    """Return what is known of a checkpoint's variant; one that a newer version named is taken for the family's first."""
    variants = FAMILIES[entry.family].variants
    return variants.get(entry.variant) or next(iter(variants.values()))


def is_guided(entry: ModelEntry, guidance_scale: float) -> bool:
    """Tell whether a checkpoint draws with a second row for the negative prompt at this scale."""
    by_prompts = facts_of(entry).guidance is Guidance.CLASSIFIER_FREE
    return by_prompts and guidance_scale > FAMILIES[entry.family].unguided_scale


def tasks_of(entry: ModelEntry) -> frozenset[str]:
    """Return the tasks that can be asked of one model."""
    if entry.kind is Kind.UPSCALER:
        return frozenset({"upscale"})
    if entry.kind is Kind.PREPROCESSOR:
        return frozenset({"preprocess"})
    if entry.kind is not Kind.CHECKPOINT:
        return frozenset()
    return facts_of(entry).tasks
