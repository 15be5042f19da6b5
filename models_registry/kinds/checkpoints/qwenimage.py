"""Qwen-Image: its relatives have the same classes, and settings tell that they read or draw something else."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from models_registry.families import BASE, FAMILIES
from models_registry.kinds import parts
from models_registry.kinds.checkpoints.described import Described, Told, choose
from models_registry.kinds.parts import Configs
from models_registry.reading.configs import Config
from models_registry.refusals import ConfigInvalid, Unrecognised

#: Places of the latents that lie in one token: two by two.
PACKED: Final = 4
#: Settings that only relatives switch on → what these are.
_RELATIVES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "guidance_embeds": "reads the guidance, which no published Qwen-Image does",
        "zero_cond_t": "is Qwen-Image-Edit, which is not supported yet",
        "use_additional_t_cond": "is Qwen-Image-Layered, which is not supported yet",
        "use_layer3d_rope": "is Qwen-Image-Layered, which is not supported yet",
    }
)
_COLOURS: Final = 3


def describe(configs: Configs, told: Told) -> Described:
    """Return what the configurations tell, raising a `ModelRefused` unless they fit each other and can be drawn with."""
    family = FAMILIES["qwenimage"]
    transformer, vae = configs["transformer"], configs["vae"]
    for setting, reason in _RELATIVES.items():
        if transformer.values.get(setting):
            raise Unrecognised(transformer.path, f"{reason} ({setting})")
    inputs, patch = transformer.whole("in_channels", 64), transformer.whole("patch_size", 2)
    drawn = patch**2 * (transformer.maybe("out_channels") or inputs)
    if patch**2 != PACKED or inputs != drawn:
        raise Unrecognised(
            transformer.path,
            f"takes {inputs} channels a token and draws {drawn}, in patches of {patch}: no Qwen-Image does",
        )
    factor = _factor(vae)
    parts.check_factor(vae.path, factor, family)
    return Described(
        family=family.name,
        variant=choose((BASE,), told, {}),
        # Neither the transformer nor the VAE knows a size.
        native_size=family.native_size,
        latent_factor=factor,
        latent_channels=_channels(transformer, vae, inputs // PACKED),
        text_width=parts.check_text_width(
            transformer, "joint_attention_dim", text_settings(configs["text_encoder"]).whole("hidden_size"), 3584
        ),
        width=inner_width(transformer),
        text_layers=None,
    )


def inner_width(transformer: Config) -> int:
    """Return how wide a transformer is: its heads together."""
    return transformer.whole("attention_head_dim", 128) * transformer.whole("num_attention_heads", 24)


def text_settings(text_encoder: Config) -> Config:
    """Return the settings of what reads text; older versions of its library wrote them beside those of the whole."""
    own = text_encoder.part("text_config")
    return own if own.values else text_encoder


def _factor(vae: Config) -> int:
    """Return the pixels per latent cell: each level but the first halves the sides."""
    levels, halvings = vae.wholes("dim_mult"), vae.values.get("temperal_downsample")
    if not isinstance(halvings, list) or len(halvings) != len(levels) - 1:
        raise ConfigInvalid(
            vae.path, f"has {len(levels)} levels, between which it does not say how it shrinks (temperal_downsample)"
        )
    return int(2 ** len(halvings))


def _channels(transformer: Config, vae: Config, drawn: int) -> int:
    if vae.whole("input_channels", _COLOURS) != _COLOURS:
        raise Unrecognised(
            vae.path, "is of a model whose pictures have more than three colours, which is not supported yet"
        )
    channels = vae.whole("z_dim", 16)
    if channels != drawn:
        raise ConfigInvalid(transformer.path, f"draws {drawn} latent channels; its VAE has {channels}")
    for key in ("latents_mean", "latents_std"):
        values = vae.values.get(key)
        if not isinstance(values, list) or len(values) != channels:
            raise ConfigInvalid(vae.path, f"should have one figure for each of {channels} latent channels as {key}")
    return channels
