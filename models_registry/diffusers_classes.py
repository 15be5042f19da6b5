"""Which classes a diffusers folder may name, and which files they are read from; pure.

A configuration decides what code a library runs. So nothing that is not listed here reaches a library, however harmless it looks.
Which keys each class knows stands in `models_registry.diffusers_keys`.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from models_registry import diffusers_keys as keys

#: Library and class, as a `model_index.json` names them.
Named = tuple[str, str]

#: Pipelines that exist but are not drawn yet, with the name people know them by.
LATER_PIPELINES: Mapping[str, str] = MappingProxyType(
    {
        "AuraFlowPipeline": "AuraFlow",
        "ChromaPipeline": "Chroma",
        "Flux2KleinKVPipeline": "FLUX.2 klein with kept pictures",
        "FluxKontextPipeline": "FLUX.1 Kontext",
        "FluxPriorReduxPipeline": "FLUX.1 Redux",
        "HiDreamImagePipeline": "HiDream",
        "HunyuanDiTPipeline": "Hunyuan-DiT",
        "KolorsPipeline": "Kolors",
        "Lumina2Pipeline": "Lumina 2",
        "PixArtAlphaPipeline": "PixArt alpha",
        "PixArtSigmaPipeline": "PixArt sigma",
        "QwenImageEditPipeline": "Qwen-Image-Edit",
        "QwenImageEditPlusPipeline": "Qwen-Image-Edit",
        "QwenImageLayeredPipeline": "Qwen-Image-Layered",
        "SanaPipeline": "Sana",
        "StableCascadeCombinedPipeline": "Stable Cascade",
        "StableDiffusionDepth2ImgPipeline": "Stable Diffusion 2.x with depth",
        "StableDiffusionImg2ImgPipeline": "Stable Diffusion 1.x, image to image",
        "StableDiffusionInstructPix2PixPipeline": "InstructPix2Pix",
        "StableDiffusionUpscalePipeline": "the upscaler of Stable Diffusion 2.x",
        "StableDiffusionXLInstructPix2PixPipeline": "SDXL InstructPix2Pix",
        "ZImageOmniPipeline": "Z-Image Omni",
    }
)


class PartClass(NamedTuple):
    """Say how a component of one class lies in its folder."""

    #: Its configuration may have these keys.
    keys: frozenset[str]
    #: The one file, or the beginning of the names of several, that its weights are read from; empty for what has none.
    weights: str = ""
    #: `model_type` of a class of transformers, whose configurations name their class in `architectures`.
    model_type: str = ""
    #: Configurations inside of its own, by the key that holds each → the keys that it may have.
    inner: Mapping[str, frozenset[str]] = MappingProxyType({})
    #: Classes around this one, which its configuration may name in its place: their other parts are left out.
    around: tuple[str, ...] = ()


DIFFUSERS_WEIGHTS: Final = "diffusion_pytorch_model.safetensors"
TRANSFORMERS_WEIGHTS: Final = "model.safetensors"
#: Components that hold weights, by class.
CLASSES: Final[Mapping[str, PartClass]] = MappingProxyType(
    {
        "UNet2DConditionModel": PartClass(keys.UNET_KEYS, DIFFUSERS_WEIGHTS),
        "SD3Transformer2DModel": PartClass(keys.SD3_TRANSFORMER_KEYS, DIFFUSERS_WEIGHTS),
        "FluxTransformer2DModel": PartClass(keys.FLUX_TRANSFORMER_KEYS, DIFFUSERS_WEIGHTS),
        "Flux2Transformer2DModel": PartClass(keys.FLUX2_TRANSFORMER_KEYS, DIFFUSERS_WEIGHTS),
        "ZImageTransformer2DModel": PartClass(keys.ZIMAGE_TRANSFORMER_KEYS, DIFFUSERS_WEIGHTS),
        "AutoencoderKL": PartClass(keys.VAE_KEYS, DIFFUSERS_WEIGHTS),
        "AutoencoderKLFlux2": PartClass(keys.FLUX2_VAE_KEYS, DIFFUSERS_WEIGHTS),
        "CLIPTextModel": PartClass(keys.CLIP_TEXT_KEYS, TRANSFORMERS_WEIGHTS, "clip_text_model"),
        "CLIPTextModelWithProjection": PartClass(keys.CLIP_TEXT_KEYS, TRANSFORMERS_WEIGHTS, "clip_text_model"),
        "T5EncoderModel": PartClass(keys.T5_KEYS, TRANSFORMERS_WEIGHTS, "t5"),
        "Qwen3ForCausalLM": PartClass(keys.QWEN3_KEYS, TRANSFORMERS_WEIGHTS, "qwen3"),
        "Mistral3ForConditionalGeneration": PartClass(
            keys.MISTRAL3_KEYS, TRANSFORMERS_WEIGHTS, "mistral3", keys.MISTRAL3_INNER_KEYS
        ),
        "QwenImageTransformer2DModel": PartClass(keys.QWENIMAGE_TRANSFORMER_KEYS, DIFFUSERS_WEIGHTS),
        "AutoencoderKLQwenImage": PartClass(keys.QWENIMAGE_VAE_KEYS, DIFFUSERS_WEIGHTS),
        "Qwen2_5_VLForConditionalGeneration": PartClass(
            keys.QWEN25_VL_KEYS, TRANSFORMERS_WEIGHTS, "qwen2_5_vl", keys.QWEN25_VL_INNER_KEYS
        ),
        "Qwen3Model": PartClass(keys.QWEN3_KEYS, TRANSFORMERS_WEIGHTS, "qwen3", around=("Qwen3ForCausalLM",)),
    }
)

SCHEDULER_CLASSES: Final = (
    "DDIMScheduler",
    "DDPMScheduler",
    "DEISMultistepScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSDEScheduler",
    "DPMSolverSinglestepScheduler",
    "EulerAncestralDiscreteScheduler",
    "EulerDiscreteScheduler",
    "HeunDiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "KDPM2DiscreteScheduler",
    "LCMScheduler",
    "LMSDiscreteScheduler",
    "PNDMScheduler",
    "SASolverScheduler",
    "TCDScheduler",
    "UniPCMultistepScheduler",
)
#: Of networks that predict the velocity of a flow.
FLOW_SCHEDULER_CLASSES: Final = ("FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler")


#: A pipeline's setting: its model was taught to draw in a few steps, and guidance does nothing.
IS_DISTILLED: Final = "is_distilled"


class FolderLayout(NamedTuple):
    """Say which components the folder of an architecture has."""

    #: What denoises, the VAE, and what reads prompts, in this order.
    weights: tuple[str, ...]
    #: Component → the (library, class) pairs it may have; none for what must be left out.
    components: Mapping[str, frozenset[Named]]
    #: Components that some of its models do without.
    optional: frozenset[str] = frozenset()
    #: Settings of the pipeline itself.
    settings: frozenset[str] = frozenset()


def _of(library: str, *names: str) -> frozenset[Named]:
    return frozenset((library, name) for name in names)


_TRANSFORMERS: Final = "transformers"
_DIFFUSERS: Final = "diffusers"
_CLIP_TOKENIZER: Final = _of(_TRANSFORMERS, "CLIPTokenizer", "CLIPTokenizerFast")
_T5_TOKENIZER: Final = _of(_TRANSFORMERS, "T5Tokenizer", "T5TokenizerFast")
_QWEN_TOKENIZER: Final = _of(_TRANSFORMERS, "Qwen2Tokenizer", "Qwen2TokenizerFast")
#: What reads pictures beside its tokenizer is never loaded.
_MISTRAL_PROCESSOR: Final = _of(_TRANSFORMERS, "PixtralProcessor")
_VAE: Final = _of(_DIFFUSERS, "AutoencoderKL")
_UNET: Final = _of(_DIFFUSERS, "UNet2DConditionModel")
_CLIP: Final = _of(_TRANSFORMERS, "CLIPTextModel")
_CLIP_PROJECTED: Final = _of(_TRANSFORMERS, "CLIPTextModelWithProjection")
_T5: Final = _of(_TRANSFORMERS, "T5EncoderModel")
_SCHEDULERS: Final = _of(_DIFFUSERS, *SCHEDULER_CLASSES)
_FLOW_SCHEDULERS: Final = _of(_DIFFUSERS, *FLOW_SCHEDULER_CLASSES)
#: Known, never loaded: nothing here judges pictures.
_FEATURES: Final = _of(_TRANSFORMERS, "CLIPFeatureExtractor", "CLIPImageProcessor")
_NOTHING: Final[frozenset[Named]] = frozenset()

_SD: Final = FolderLayout(
    weights=("unet", "vae", "text_encoder"),
    components=MappingProxyType(
        {
            "unet": _UNET,
            "vae": _VAE,
            "text_encoder": _CLIP,
            "tokenizer": _CLIP_TOKENIZER,
            "scheduler": _SCHEDULERS,
            "safety_checker": _of("stable_diffusion", "StableDiffusionSafetyChecker"),
            "feature_extractor": _FEATURES,
            "image_encoder": _NOTHING,
        }
    ),
    optional=frozenset({"safety_checker", "feature_extractor", "image_encoder"}),
    settings=frozenset({"requires_safety_checker"}),
)
_SDXL: Final = FolderLayout(
    weights=("unet", "vae", "text_encoder", "text_encoder_2"),
    components=MappingProxyType(
        {
            "unet": _UNET,
            "vae": _VAE,
            "text_encoder": _CLIP,
            "text_encoder_2": _CLIP_PROJECTED,
            "tokenizer": _CLIP_TOKENIZER,
            "tokenizer_2": _CLIP_TOKENIZER,
            "scheduler": _SCHEDULERS,
            "feature_extractor": _FEATURES,
            "image_encoder": _NOTHING,
        }
    ),
    # The refiner reads prompts by its second text encoder alone.
    optional=frozenset({"text_encoder", "tokenizer", "feature_extractor", "image_encoder"}),
    settings=frozenset({"add_watermarker", "force_zeros_for_empty_prompt", "requires_aesthetics_score"}),
)
_SD3: Final = FolderLayout(
    weights=("transformer", "vae", "text_encoder", "text_encoder_2", "text_encoder_3"),
    components=MappingProxyType(
        {
            "transformer": _of(_DIFFUSERS, "SD3Transformer2DModel"),
            "vae": _VAE,
            "text_encoder": _CLIP_PROJECTED,
            "text_encoder_2": _CLIP_PROJECTED,
            "text_encoder_3": _T5,
            "tokenizer": _CLIP_TOKENIZER,
            "tokenizer_2": _CLIP_TOKENIZER,
            "tokenizer_3": _T5_TOKENIZER,
            "scheduler": _FLOW_SCHEDULERS,
            "feature_extractor": _NOTHING,
            "image_encoder": _NOTHING,
        }
    ),
    # It was trained to do without T5, which has twice the weights of all the rest.
    optional=frozenset({"text_encoder_3", "tokenizer_3", "feature_extractor", "image_encoder"}),
)
_FLUX: Final = FolderLayout(
    weights=("transformer", "vae", "text_encoder", "text_encoder_2"),
    components=MappingProxyType(
        {
            "transformer": _of(_DIFFUSERS, "FluxTransformer2DModel"),
            "vae": _VAE,
            "text_encoder": _CLIP,
            "text_encoder_2": _T5,
            "tokenizer": _CLIP_TOKENIZER,
            "tokenizer_2": _T5_TOKENIZER,
            "scheduler": _FLOW_SCHEDULERS,
            "feature_extractor": _NOTHING,
            "image_encoder": _NOTHING,
        }
    ),
    optional=frozenset({"feature_extractor", "image_encoder"}),
)
_FLUX2: Final = FolderLayout(
    weights=("transformer", "vae", "text_encoder"),
    components=MappingProxyType(
        {
            "transformer": _of(_DIFFUSERS, "Flux2Transformer2DModel"),
            "vae": _of(_DIFFUSERS, "AutoencoderKLFlux2"),
            "text_encoder": _of(_TRANSFORMERS, "Qwen3ForCausalLM"),
            "tokenizer": _QWEN_TOKENIZER,
            "scheduler": _FLOW_SCHEDULERS,
        }
    ),
    settings=frozenset({IS_DISTILLED}),
)
_FLUX2_DEV: Final = FolderLayout(
    weights=_FLUX2.weights,
    components=MappingProxyType(
        {
            **_FLUX2.components,
            "text_encoder": _of(_TRANSFORMERS, "Mistral3ForConditionalGeneration"),
            "tokenizer": _MISTRAL_PROCESSOR,
        }
    ),
)
_QWENIMAGE: Final = FolderLayout(
    weights=("transformer", "vae", "text_encoder"),
    components=MappingProxyType(
        {
            "transformer": _of(_DIFFUSERS, "QwenImageTransformer2DModel"),
            "vae": _of(_DIFFUSERS, "AutoencoderKLQwenImage"),
            "text_encoder": _of(_TRANSFORMERS, "Qwen2_5_VLForConditionalGeneration"),
            "tokenizer": _QWEN_TOKENIZER,
            "scheduler": _FLOW_SCHEDULERS,
        }
    ),
)
_ZIMAGE: Final = FolderLayout(
    weights=("transformer", "vae", "text_encoder"),
    components=MappingProxyType(
        {
            "transformer": _of(_DIFFUSERS, "ZImageTransformer2DModel"),
            "vae": _VAE,
            "text_encoder": _of(_TRANSFORMERS, "Qwen3Model"),
            "tokenizer": _QWEN_TOKENIZER,
            "scheduler": _FLOW_SCHEDULERS,
        }
    ),
)
#: By family; Stable Diffusion 1.x and 2.x share theirs.
LAYOUTS: Final[Mapping[str, FolderLayout]] = MappingProxyType(
    {
        "sd15": _SD,
        "sd2": _SD,
        "sdxl": _SDXL,
        "sd3": _SD3,
        "zimage": _ZIMAGE,
        "flux": _FLUX,
        "flux2": _FLUX2,
        "qwenimage": _QWENIMAGE,
    }
)

#: Pipelines whose folders have other components than those of their family.
_OF_PIPELINES: Final[Mapping[str, FolderLayout]] = MappingProxyType({"Flux2Pipeline": _FLUX2_DEV})
#: Components that are no tokenizer themselves → the classes that the tokenizer in their folder may be said to have.
TOKENIZERS_INSIDE: Final[Mapping[str, frozenset[str]]] = MappingProxyType(
    {
        "PixtralProcessor": frozenset(
            {"LlamaTokenizer", "LlamaTokenizerFast", "PreTrainedTokenizerFast", "TokenizersBackend"}
        )
    }
)

TOKENIZER_FILES: Final = (
    "tokenizer.json",
    "vocab.json",
    "merges.txt",
    "spiece.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
)


def layout_of(family: str, pipeline: str) -> FolderLayout:
    """Return the components of a folder of a family, by the pipeline that it names."""
    return _OF_PIPELINES.get(pipeline, LAYOUTS[family])
