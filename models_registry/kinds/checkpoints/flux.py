"""FLUX.1: what its first layer reads beside the latents tells its variants apart, and whether it reads the guidance."""

from typing import Final

from models_registry.families import FAMILIES
from models_registry.kinds import parts
from models_registry.kinds.checkpoints.described import Described, Told, choose, word
from models_registry.kinds.parts import Configs
from models_registry.reading.configs import Config
from models_registry.refusals import ConfigInvalid, Unrecognised

#: Places of the latents that lie in one token: two by two.
PACKED: Final = 4
_WORDS: Final = {"canny": word("canny"), "depth": word("depth")}


def describe(configs: Configs, told: Told) -> Described:
    """Return what the configurations tell, raising a `ModelRefused` unless they fit each other and can be drawn with."""
    family = FAMILIES["flux"]
    transformer, vae, clip, t5 = (configs[name] for name in ("transformer", "vae", "text_encoder", "text_encoder_2"))
    if transformer.whole("patch_size", 1) != 1:
        raise Unrecognised(transformer.path, "packs its latents in another way than FLUX.1 (patch_size)")
    text_width = parts.check_text_width(transformer, "joint_attention_dim", t5.whole("d_model"), 4096)
    pooled = transformer.whole("pooled_projection_dim", 768)
    if pooled != clip.whole("hidden_size"):
        raise ConfigInvalid(
            transformer.path,
            f"reads a pooled text of width {pooled}; its first text encoder gives {clip.whole('hidden_size')}",
        )
    inputs = transformer.whole("in_channels", 64)
    outputs = transformer.maybe("out_channels") or inputs
    latents = parts.check_latents(transformer, vae, outputs // PACKED)
    factor = parts.latent_factor(vae, family)
    return Described(
        family=family.name,
        variant=choose(_variants(transformer, inputs, outputs, factor), told, _WORDS),
        # The transformer knows no size; the VAE tells which pictures it was trained on.
        native_size=parts.check_native(vae, vae.whole("sample_size", family.native_size), family),
        latent_factor=factor,
        latent_channels=latents,
        text_width=text_width,
        width=inner_width(transformer),
        text_layers=None,
    )


def inner_width(transformer: Config) -> int:
    """Return how wide a transformer is: its heads together."""
    return transformer.whole("attention_head_dim", 128) * transformer.whole("num_attention_heads", 24)


def _variants(transformer: Config, inputs: int, outputs: int, factor: int) -> tuple[str, ...]:
    guided = transformer.values.get("guidance_embeds") is True
    if inputs == outputs:
        return ("dev",) if guided else ("schnell",)
    if not guided:
        raise Unrecognised(transformer.path, f"takes {inputs} channels and no guidance, which no FLUX.1 does")
    if inputs == 2 * outputs:
        return ("canny", "depth")
    # The masked picture's latents, and the mask of every pixel.
    if inputs == 2 * outputs + PACKED * factor**2:
        return ("fill",)
    raise Unrecognised(transformer.path, f"takes {inputs} channels: another kind of model, which is not supported yet")
