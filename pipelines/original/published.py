"""The configurations that Stable Diffusion, SDXL and FLUX.1 were published with, in diffusers' terms: what no tensor of a file tells.

What is left out is the classes' own default. `rows` names one weight of each component whose rows tell the published size: widths alone
do not tell how many heads attend or how channels are grouped, so that any other file would be drawn wrongly.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from models_registry.published import PUBLISHED

Config = Mapping[str, Any]


class Published(NamedTuple):
    """How one component was published."""

    config: Config
    #: Name of a weight, in the original's names below the component's prefix, of text encoders in transformers' → its rows.
    rows: Mapping[str, int] = MappingProxyType({})


def _frozen(**values: Any) -> Config:
    return MappingProxyType(values)


_FIRST = "input_blocks.0.0.weight"
_NORM = "final_layer_norm.weight"
_U = _frozen(
    block_out_channels=[320, 640, 1280, 1280],
    down_block_types=[*["CrossAttnDownBlock2D"] * 3, "DownBlock2D"],
    up_block_types=["UpBlock2D", *["CrossAttnUpBlock2D"] * 3],
    layers_per_block=2,
)
_SD15 = _frozen(**_U, cross_attention_dim=768, attention_head_dim=8, sample_size=64)
_SD2 = _frozen(
    **_U, cross_attention_dim=1024, attention_head_dim=[5, 10, 20, 20], use_linear_projection=True, sample_size=64
)
#: At 768 pixels its attention overflows in half precision.
_SD2_V = _frozen(**{**_SD2, "sample_size": 96, "upcast_attention": True})
_SDXL = _frozen(
    block_out_channels=[320, 640, 1280],
    down_block_types=["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    up_block_types=["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
    layers_per_block=2,
    transformer_layers_per_block=[1, 2, 10],
    attention_head_dim=[5, 10, 20],
    use_linear_projection=True,
    cross_attention_dim=2048,
    addition_embed_type="text_time",
    addition_time_embed_dim=256,
    projection_class_embeddings_input_dim=2816,
    sample_size=128,
)
_REFINER = _frozen(
    **{
        **_SDXL,
        "block_out_channels": [384, 768, 1536, 1536],
        "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
        "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
        "transformer_layers_per_block": 4,
        "attention_head_dim": [6, 12, 24, 24],
        "cross_attention_dim": 1280,
        "projection_class_embeddings_input_dim": 2560,
    }
)


def _vae(scaling_factor: float, sample_size: int) -> Published:
    config = _frozen(
        block_out_channels=[128, 256, 512, 512],
        down_block_types=["DownEncoderBlock2D"] * 4,
        up_block_types=["UpDecoderBlock2D"] * 4,
        layers_per_block=2,
        latent_channels=4,
        scaling_factor=scaling_factor,
        sample_size=sample_size,
    )
    return Published(config, MappingProxyType({"encoder.conv_in.weight": 128}))


def _clip(width: int, layers: int, heads: int, activation: str, **others: Any) -> Published:
    config = _frozen(
        vocab_size=49408,
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        hidden_act=activation,
        max_position_embeddings=77,
        bos_token_id=49406,
        eos_token_id=49407,
        **others,
    )
    return Published(config, MappingProxyType({_NORM: width}))


_CLIP_L = _clip(768, 12, 12, "quick_gelu", projection_dim=768, pad_token_id=49407)
#: OpenCLIP's ViT-H, of whose 24 layers the last is never read.
_CLIP_H = _clip(1024, 23, 16, "gelu", projection_dim=512, pad_token_id=0)
_CLIP_G = _clip(1280, 32, 20, "gelu", projection_dim=1280, pad_token_id=0)

_NOISE = _frozen(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1)
_PNDM = _frozen(_class_name="PNDMScheduler", **_NOISE, clip_sample=False, set_alpha_to_one=False, skip_prk_steps=True)
_DDIM_V = _frozen(
    _class_name="DDIMScheduler",
    **_NOISE,
    clip_sample=False,
    set_alpha_to_one=False,
    prediction_type="v_prediction",
)
_EULER = _frozen(_class_name="EulerDiscreteScheduler", **_NOISE, timestep_spacing="leading")
_SDXL_SCHEDULERS: Mapping[str, Config] = _frozen(
    v=_frozen(**{**_EULER, "prediction_type": "v_prediction"}),
    turbo=_frozen(**{**_EULER, "_class_name": "EulerAncestralDiscreteScheduler", "timestep_spacing": "trailing"}),
    lightning=_frozen(**{**_EULER, "timestep_spacing": "trailing"}),
    lcm=_frozen(_class_name="LCMScheduler", **_NOISE),
)
_SD_VAE, _SDXL_VAE = _vae(0.18215, 512), _vae(0.13025, 1024)


def published(family: str, variant: str) -> Mapping[str, Published]:
    """Return how a family's variant was published, by component; the number of input channels is for the file to tell."""
    return _FAMILIES[family](variant)


def _sd15(_variant: str) -> Mapping[str, Published]:
    return {
        "unet": Published(_SD15, {_FIRST: 320}),
        "vae": _SD_VAE,
        "text_encoder": _CLIP_L,
        "scheduler": Published(_PNDM),
    }


def _sd2(variant: str) -> Mapping[str, Published]:
    predicts_v = variant == "v"
    return {
        "unet": Published(_SD2_V if predicts_v else _SD2, {_FIRST: 320}),
        "vae": _SD_VAE,
        "text_encoder": _CLIP_H,
        "scheduler": Published(_DDIM_V if predicts_v else _PNDM),
    }


def _sdxl(variant: str) -> Mapping[str, Published]:
    shared = {"vae": _SDXL_VAE, "text_encoder_2": _CLIP_G}
    if variant == "refiner":
        return {**shared, "unet": Published(_REFINER, {_FIRST: 384}), "scheduler": Published(_EULER)}
    unet = {**_SDXL, "sample_size": 64} if variant == "turbo" else _SDXL
    return {
        **shared,
        "text_encoder": _CLIP_L,
        "unet": Published(unet, {_FIRST: 320}),
        "scheduler": Published(_SDXL_SCHEDULERS.get(variant, _EULER)),
    }


def _flow(name: str, telling: Mapping[str, tuple[str, int]]) -> Mapping[str, Published]:
    """Return what the registry says of a family that draws along a flow, with a weight that tells each size."""
    return {
        component: Published(
            _frozen(**{key: value for key, value in config.items() if key not in _NAMES}),
            MappingProxyType(dict([telling[component]]) if component in telling else {}),
        )
        for component, config in PUBLISHED[name].items()
    }


def _sd3(variant: str) -> Mapping[str, Published]:
    large = variant.startswith("3.5-large")
    name = "sd3.5-large" if large else "sd3.5-medium" if variant == "3.5-medium" else "sd3-medium"
    rows = {"transformer": ("x_embedder.proj.weight", 2432 if large else 1536), **_WIDE}
    return _flow(name, {**rows, "text_encoder_2": (_NORM, 1280), "text_encoder_3": _T5_ROWS})


def _flux(variant: str) -> Mapping[str, Published]:
    # How much the first layer reads, and whether it reads guidance, is for the file to tell.
    rows = {"transformer": ("img_in.weight", 3072), **_WIDE, "text_encoder_2": _T5_ROWS}
    found = dict(_flow("flux", rows))
    own = {key: value for key, value in found["transformer"].config.items() if key not in _TOLD}
    found["transformer"] = found["transformer"]._replace(config=_frozen(**own))
    if variant == "schnell":
        found["scheduler"] = Published(
            _frozen(_class_name="FlowMatchEulerDiscreteScheduler", num_train_timesteps=1000, shift=1.0)
        )
    return found


#: What libraries would take for a setting.
_NAMES = frozenset({"model_type"})
_TOLD = frozenset({"in_channels", "guidance_embeds"})
_T5_ROWS = ("encoder.final_layer_norm.weight", 4096)
_WIDE: Mapping[str, tuple[str, int]] = MappingProxyType(
    {"vae": ("encoder.conv_in.weight", 128), "text_encoder": (_NORM, 768)}
)
_FAMILIES = MappingProxyType({"sd15": _sd15, "sd2": _sd2, "sdxl": _sdxl, "sd3": _sd3, "flux": _flux})
