"""Stable Diffusion 3 and 3.5: the transformer's settings tell the sizes apart, and words the distilled one."""

from typing import Final

from models_registry.families import FAMILIES
from models_registry.kinds import parts
from models_registry.kinds.checkpoints.described import Described, Told, choose, word
from models_registry.kinds.parts import Configs
from models_registry.reading.configs import Config
from models_registry.refusals import ConfigInvalid, Unrecognised

_WORDS: Final = {"3.5-large-turbo": word("turbo")}


def describe(configs: Configs, told: Told) -> Described:
    """Return what the configurations tell, raising a `ModelRefused` unless they fit each other and can be drawn with."""
    family = FAMILIES["sd3"]
    transformer, vae = configs["transformer"], configs["vae"]
    channels = transformer.whole("in_channels", 16)
    if transformer.maybe("out_channels") not in {None, channels}:
        raise Unrecognised(transformer.path, f"reads {channels} channels and draws others, which is not supported yet")
    _check_text(transformer, configs)
    factor = parts.latent_factor(vae, family)
    return Described(
        family=family.name,
        variant=choose(_variants(transformer), told, _WORDS),
        native_size=parts.native_size(transformer, family, factor),
        latent_factor=factor,
        latent_channels=parts.check_latents(transformer, vae, channels),
        text_width=transformer.whole("joint_attention_dim", 4096),
        width=inner_width(transformer),
        text_layers=None,
    )


def inner_width(transformer: Config) -> int:
    """Return how wide a transformer is: its heads together."""
    return transformer.whole("attention_head_dim", 64) * transformer.whole("num_attention_heads", 18)


def _check_text(transformer: Config, configs: Configs) -> None:
    first, second = configs["text_encoder"], configs["text_encoder_2"]
    width = transformer.whole("joint_attention_dim", 4096)
    third = configs.get("text_encoder_3")
    if third is not None:
        parts.check_text_width(transformer, "joint_attention_dim", third.whole("d_model"), 4096)
    # Both side by side, filled up to the width of T5.
    beside = first.whole("hidden_size") + second.whole("hidden_size")
    if beside > width:
        raise ConfigInvalid(
            transformer.path, f"reads text features of width {width}; its first text encoders give {beside}"
        )
    pooled = first.whole("projection_dim", 512) + second.whole("projection_dim", 512)
    if transformer.whole("pooled_projection_dim", 2048) != pooled:
        raise ConfigInvalid(
            transformer.path,
            f"reads a pooled text of width {transformer.values.get('pooled_projection_dim')}; its encoders give {pooled}",
        )


def _variants(transformer: Config) -> tuple[str, ...]:
    if transformer.values.get("dual_attention_layers"):
        return ("3.5-medium",)
    # 3.5 brought a norm of queries and keys.
    if transformer.values.get("qk_norm") is not None:
        return ("3.5-large", "3.5-large-turbo")
    return ("medium",)
