"""What the configurations of a family's variant were when it was published, as the parts of a file are built by them.

`rows` names one weight of each component whose rows tell the published size: widths alone do not tell how many heads attend or how
channels are grouped, so that any other file would be drawn wrongly.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from models_registry.published import FLUX2_9B_WIDTH, PUBLISHED, Settings

#: What a file tells by itself, and what libraries would take for a setting.
_LEFT_OUT: Final = frozenset({"in_channels", "guidance_embeds", "model_type"})


class Published(NamedTuple):
    """How one component was published."""

    config: Settings
    #: Name of a weight, in the original's names below the component's prefix, of text encoders in transformers' → its rows.
    rows: Mapping[str, int] = MappingProxyType({})


def published(family: str, variant: str, width: int | None = None) -> Mapping[str, Published]:
    """Return how a family's variant was published, by component; what its first layer reads is for the file to tell.

    `width` is the network's, where variants were published in several sizes.
    """
    changes = _VARIANTS.get((family, variant), {})
    parts = {name: changes.get(name, settings) for name, settings in PUBLISHED[_name(family, variant, width)].items()}
    return {name: _published(settings) for name, settings in parts.items()}


def _name(family: str, variant: str, width: int | None) -> str:
    if family == "flux2":
        if variant == "dev":
            return "flux2-dev"
        return "flux2-9b" if width == FLUX2_9B_WIDTH else "flux2-4b"
    if family == "sd3":
        return (
            "sd3.5-large"
            if variant.startswith("3.5-large")
            else "sd3.5-medium"
            if variant == "3.5-medium"
            else "sd3-medium"
        )
    return "sdxl-refiner" if variant == "refiner" else family


def _published(settings: Settings) -> Published:
    kind = str(settings.get("_class_name", settings.get("model_type")))
    config = {key: value for key, value in settings.items() if key not in _LEFT_OUT}
    telling = _ROWS.get(kind)
    if telling is None:
        return Published(MappingProxyType(config))
    # What builds a network is its class; a scheduler's is looked up by its name.
    config.pop("_class_name", None)
    weight, rows = telling
    return Published(MappingProxyType(config), MappingProxyType({weight: rows(settings)}))


#: Class or kind of a component → a weight, and from the settings to its rows.
_ROWS: Final[Mapping[str, tuple[str, Callable[[Settings], int]]]] = MappingProxyType(
    {
        "UNet2DConditionModel": ("input_blocks.0.0.weight", lambda settings: settings["block_out_channels"][0]),
        "AutoencoderKL": ("encoder.conv_in.weight", lambda settings: settings["block_out_channels"][0]),
        "clip_text_model": ("final_layer_norm.weight", lambda settings: settings["hidden_size"]),
        "t5": ("encoder.final_layer_norm.weight", lambda settings: settings["d_model"]),
        "SD3Transformer2DModel": ("x_embedder.proj.weight", lambda settings: settings["caption_projection_dim"]),
        "FluxTransformer2DModel": (
            "img_in.weight",
            lambda settings: settings["num_attention_heads"] * settings["attention_head_dim"],
        ),
        "Flux2Transformer2DModel": (
            "img_in.weight",
            lambda settings: settings["num_attention_heads"] * settings["attention_head_dim"],
        ),
        "ZImageTransformer2DModel": ("x_embedder.weight", lambda settings: settings["dim"]),
        "QwenImageTransformer2DModel": (
            "img_in.weight",
            lambda settings: settings["num_attention_heads"] * settings["attention_head_dim"],
        ),
    }
)


def _changed(name: str, component: str, **settings: Any) -> Settings:
    return MappingProxyType({**PUBLISHED[name][component], **settings})


#: Where a variant's parts differ from those of its family's first.
_VARIANTS: Final[Mapping[tuple[str, str], Mapping[str, Settings]]] = MappingProxyType(
    {
        ("sd2", "v"): {
            # At 768 pixels its attention overflows in half precision.
            "unet": _changed("sd2", "unet", sample_size=96, upcast_attention=True),
            "scheduler": _changed("sd2", "scheduler", _class_name="DDIMScheduler", prediction_type="v_prediction"),
        },
        ("sdxl", "v"): {"scheduler": _changed("sdxl", "scheduler", prediction_type="v_prediction")},
        ("sdxl", "turbo"): {
            "unet": _changed("sdxl", "unet", sample_size=64),
            "scheduler": _changed(
                "sdxl", "scheduler", _class_name="EulerAncestralDiscreteScheduler", timestep_spacing="trailing"
            ),
        },
        ("sdxl", "lightning"): {"scheduler": _changed("sdxl", "scheduler", timestep_spacing="trailing")},
        ("sdxl", "lcm"): {"scheduler": _changed("sdxl", "scheduler", _class_name="LCMScheduler")},
        ("zimage", "turbo"): PUBLISHED["zimage-turbo"],
        ("flux", "schnell"): {
            "scheduler": MappingProxyType(
                {"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000, "shift": 1.0}
            )
        },
    }
)
