"""Stable Diffusion 1.x and 2.x: the same parts, told apart by their UNet."""

from typing import Final

from models_registry.families import BASE, INPAINT, FamilyFacts, Prediction
from models_registry.kinds import parts
from models_registry.kinds.checkpoints.described import Described, Told, choose, word
from models_registry.kinds.parts import Configs
from models_registry.kinds.unets import INPAINT_CHANNELS, REFINER_TEXT_WIDTH, family_of, refuse_channels, refuse_extras
from models_registry.reading.configs import Config
from models_registry.refusals import ConfigInvalid, Unrecognised

#: The families that are told apart here.
NAMES: Final = ("sd15", "sd2")
_WORDS: Final = {"v": word("768-?v|v[-_ ]?pred(?:iction)?")}


def describe(configs: Configs, told: Told) -> Described:
    """Return what the configurations tell, raising a `ModelRefused` unless they fit each other and can be drawn with."""
    unet, vae, text = configs["unet"], configs["vae"], configs["text_encoder"]
    family = family_of(unet)
    if family.name not in NAMES:
        raise Unrecognised(unet.path, f"is the network of {family.title}, whose other parts are not here")
    channels = unet.whole("in_channels", 4)
    refuse_channels(unet.path, channels, family.latent_channels)
    possible = _variants(family, channels, configs[parts.SCHEDULER])
    refuse_extras(unet)
    text_width = parts.check_text_width(unet, "cross_attention_dim", text.whole("hidden_size"), REFINER_TEXT_WIDTH)
    latents = parts.check_latents(unet, vae, unet.whole("out_channels", 4))
    if latents != family.latent_channels:
        raise ConfigInvalid(unet.path, f"has {latents} latent channels; {family.title} has {family.latent_channels}")
    factor = parts.latent_factor(vae, family)
    return Described(
        family=family.name,
        variant=choose(possible, told, _WORDS),
        native_size=parts.native_size(unet, family, factor),
        latent_factor=factor,
        latent_channels=latents,
        text_width=text_width,
        width=unet.wholes("block_out_channels")[0],
        text_layers=text.whole("num_hidden_layers", parts.TEXT_LAYERS),
    )


def _variants(family: FamilyFacts, channels: int, scheduler: Config) -> tuple[str, ...]:
    prediction = scheduler.values.get("prediction_type", Prediction.EPSILON)
    wanted = INPAINT if channels == INPAINT_CHANNELS else None
    found = tuple(
        name
        for name, facts in family.variants.items()
        if facts.prediction == prediction and name == (wanted or name) and (wanted or name != INPAINT)
    )
    if not found:
        known = sorted({facts.prediction.value for name, facts in family.variants.items() if name == (wanted or name)})
        raise Unrecognised(
            scheduler.path,
            f"predicts {str(prediction)[:40]!r}; {family.variants[wanted or BASE].title} predicts {' or '.join(known)}",
        )
    return found
