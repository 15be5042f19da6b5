"""FLUX.2: a transformer that reads the guidance is dev's; of klein a folder says whether it is distilled, of a file a word does."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

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
#: Layers of the text encoder that are read side by side.
READ_LAYERS: Final = 3


class _Reader(NamedTuple):
    """What reads the prompts of one kind of FLUX.2."""

    #: `model_type` of its text encoder.
    kind: str
    title: str
    #: The last of the layers that are read.
    last: int


#: By whether the transformer reads the guidance.
_READERS: Final[Mapping[bool, _Reader]] = MappingProxyType(
    {False: _Reader("qwen3", "FLUX.2 klein", 27), True: _Reader("mistral3", "FLUX.2 dev", 30)}
)
#: What a text encoder that sees pictures too is made of: these say which classes a library makes.
_INNER: Final[Mapping[str, str]] = MappingProxyType({"text_config": "mistral", "vision_config": "pixtral"})


def describe(configs: Configs, told: Told) -> Described:
    """Return what the configurations tell, raising a `ModelRefused` unless they fit each other and can be drawn with."""
    family = FAMILIES["flux2"]
    transformer, vae, text = (configs[name] for name in ("transformer", "vae", "text_encoder"))
    _check_form(transformer, vae)
    # Left out, it is true: so diffusers' class has it.
    reads_guidance = transformer.values.get("guidance_embeds", True) is not False
    width = READ_LAYERS * _check_reader(text, _READERS[reads_guidance]).whole("hidden_size")
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
        variant=choose(("dev",) if reads_guidance else _variants(told), told, _WORDS),
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


def text_settings(text_encoder: Config) -> Config:
    """Return the settings of what reads text; Mistral's stand beside those of what sees pictures."""
    return text_encoder.part("text_config") if "text_config" in text_encoder.values else text_encoder


def _check_form(transformer: Config, vae: Config) -> None:
    if transformer.whole("patch_size", 1) != 1:
        raise Unrecognised(transformer.path, "packs its latents in another way than FLUX.2 (patch_size)")
    if vae.values.get("patch_size", [2, 2]) != [2, 2]:
        raise Unrecognised(vae.path, "brings its latents to one measure in another way than FLUX.2 (patch_size)")


def _check_reader(text_encoder: Config, reader: _Reader) -> Config:
    """Return the settings of what reads text, raising unless it is what this kind of FLUX.2 reads prompts with."""
    text_encoder.of_class(reader.kind, key="model_type")
    if reader.kind == "mistral3":
        for name, kind in _INNER.items():
            text_encoder.part(name).of_class(kind, key="model_type")
    text = text_settings(text_encoder)
    layers = text.whole("num_hidden_layers", 32)
    if layers < reader.last:
        raise ConfigInvalid(
            text.path, f"has {layers} layers; of {reader.title}'s text encoder the {reader.last}th is read"
        )
    return text


def _variants(told: Told) -> tuple[str, ...]:
    if IS_DISTILLED not in told.settings:
        return "klein", "klein-base"
    return ("klein",) if told.settings[IS_DISTILLED] is True else ("klein-base",)
