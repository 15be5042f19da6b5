"""FLUX.2 klein: its folder says whether it is distilled, of a file a word does; a transformer that reads the guidance is another's."""

from typing import Final

from models_registry.diffusers_classes import IS_DISTILLED
from models_registry.families import FAMILIES
from models_registry.kinds import parts
from models_registry.kinds.checkpoints.described import Described, Told, choose, word
from models_registry.kinds.parts import Configs
from models_registry.reading.configs import Config
from models_registry.refusals import ConfigInvalid, Unrecognised

#: Cells of the latents that the transformer sees as one: two by two.
PATCHED: Final = 4
_WORDS: Final = {"klein-base": word("base")}
#: Layers of the text encoder that are read side by side, and the last of them.
READ_LAYERS: Final = 3
LAST_LAYER: Final = 27


def describe(configs: Configs, told: Told) -> Described:
    """Return what the configurations tell, raising a `ModelRefused` unless they fit each other and can be drawn with."""
    family = FAMILIES["flux2"]
    transformer, vae, text = (configs[name] for name in ("transformer", "vae", "text_encoder"))
    _check_form(transformer, vae)
    _check_layers(text)
    width = READ_LAYERS * text.whole("hidden_size")
    channels = transformer.whole("in_channels", 128)
    if transformer.maybe("out_channels") not in {None, channels}:
        raise Unrecognised(transformer.path, f"reads {channels} channels and draws others, which is not supported yet")
    latents = vae.whole("latent_channels", 32)
    if channels != PATCHED * latents:
        raise ConfigInvalid(
            transformer.path, f"draws {channels} channels; four cells of its VAE have {PATCHED * latents}"
        )
    return Described(
        family=family.name,
        variant=choose(_variants(told), told, _WORDS),
        # The transformer knows no size; the VAE tells which pictures it was trained on.
        native_size=parts.check_native(vae, vae.whole("sample_size", family.native_size), family),
        latent_factor=parts.latent_factor(vae, family),
        latent_channels=latents,
        text_width=parts.check_text_width(transformer, "joint_attention_dim", width, 15360),
        width=inner_width(transformer),
        text_layers=None,
    )


def inner_width(transformer: Config) -> int:
    """Return how wide a transformer is: its heads together."""
    return transformer.whole("attention_head_dim", 128) * transformer.whole("num_attention_heads", 48)


def _check_form(transformer: Config, vae: Config) -> None:
    if transformer.whole("patch_size", 1) != 1:
        raise Unrecognised(transformer.path, "packs its latents in another way than FLUX.2 (patch_size)")
    # Left out, it is true: so diffusers' class has it.
    if transformer.values.get("guidance_embeds", True) is not False:
        raise Unrecognised(transformer.path, "reads the guidance, as FLUX.2 dev does, which is not supported yet")
    if vae.values.get("patch_size", [2, 2]) != [2, 2]:
        raise Unrecognised(vae.path, "brings its latents to one measure in another way than FLUX.2 (patch_size)")


def _check_layers(text: Config) -> None:
    layers = text.whole("num_hidden_layers", 32)
    if layers < LAST_LAYER:
        raise ConfigInvalid(text.path, f"has {layers} layers; of FLUX.2's text encoder the {LAST_LAYER}th is read")


def _variants(told: Told) -> tuple[str, ...]:
    if IS_DISTILLED not in told.settings:
        return "klein", "klein-base"
    return ("klein",) if told.settings[IS_DISTILLED] is True else ("klein-base",)
