"""SDXL: two text encoders, or for the refiner the second alone; what it was distilled for is told by its scheduler, or in words."""

from typing import Final

from models_registry.families import BASE, FAMILIES, INPAINT, Prediction
from models_registry.kinds import parts
from models_registry.kinds.checkpoints.described import Described, Told, choose, word
from models_registry.kinds.parts import Configs
from models_registry.kinds.unets import INPAINT_CHANNELS, refuse_channels, refuse_extras
from models_registry.reading.configs import Config
from models_registry.refusals import ConfigInvalid, Unrecognised

REFINER: Final = "refiner"
GUIDED: Final = "time_cond_proj_dim"
#: Settings of what the UNet reads beside the prompt: numbers about the picture, and of LCM the guidance scale.
ADDED: Final = frozenset({"addition_embed_type", GUIDED})
_TEXT_TIME: Final = "text_time"
#: The numbers of SDXL, and of the refiner; each has a width of its own.
_NUMBERS: Final = {True: 6, False: 5}
_WORDS: Final = {
    "v": word("v[-_ ]?pred(?:iction)?"),
    "turbo": word("turbo"),
    "lightning": word("lightning"),
    "lcm": word("lcm"),
}


def describe(configs: Configs, told: Told) -> Described:
    """Return what the configurations tell, raising a `ModelRefused` unless they fit each other and can be drawn with."""
    family = FAMILIES["sdxl"]
    unet, vae, second = configs["unet"], configs["vae"], configs["text_encoder_2"]
    first, scheduler = configs.get("text_encoder"), configs[parts.SCHEDULER]
    channels = unet.whole("in_channels", 4)
    refuse_channels(unet.path, channels, family.latent_channels)
    refuse_extras(unet, ADDED)
    check_added(unet)
    given = second.whole("hidden_size") + (0 if first is None else first.whole("hidden_size"))
    text_width = parts.check_text_width(unet, "cross_attention_dim", given, 1280)
    _check_sizes(unet, second.whole("projection_dim", 512), has_first=first is not None)
    latents = parts.check_latents(unet, vae, unet.whole("out_channels", 4))
    if latents != family.latent_channels:
        raise ConfigInvalid(unet.path, f"has {latents} latent channels; {family.title} has {family.latent_channels}")
    factor = parts.latent_factor(vae, family)
    encoders = [second] if first is None else [first, second]
    return Described(
        family=family.name,
        variant=choose(_variants(unet, scheduler, is_refiner=first is None), told, _WORDS, _made_for(scheduler)),
        native_size=parts.native_size(unet, family, factor),
        latent_factor=factor,
        latent_channels=latents,
        text_width=text_width,
        width=unet.wholes("block_out_channels")[0],
        text_layers=min(each.whole("num_hidden_layers", parts.TEXT_LAYERS) for each in encoders),
    )


def check_added(unet: Config) -> None:
    """Raise `ConfigInvalid` unless a network reads the sizes that SDXL's pipelines hand over."""
    if unet.values.get("addition_embed_type") != _TEXT_TIME:
        raise ConfigInvalid(unet.path, "does not read the sizes that SDXL's pipelines hand over (addition_embed_type)")


def _check_sizes(unet: Config, pooled: int, *, has_first: bool) -> None:
    numbers = _NUMBERS[has_first]
    wanted = unet.whole("addition_time_embed_dim") * numbers + pooled
    found = unet.whole("projection_class_embeddings_input_dim")
    if found != wanted:
        raise ConfigInvalid(
            unet.path,
            f"reads {found} numbers beside the prompt; {numbers} of a picture and {pooled} of text make {wanted}",
        )


def _variants(unet: Config, scheduler: Config, *, is_refiner: bool) -> tuple[str, ...]:
    prediction = scheduler.values.get("prediction_type", Prediction.EPSILON)
    special = REFINER if is_refiner else INPAINT if unet.whole("in_channels", 4) == INPAINT_CHANNELS else None
    if special is None and prediction == Prediction.V:
        return ("v",)
    if prediction != Prediction.EPSILON:
        raise Unrecognised(
            scheduler.path, f"predicts {str(prediction)[:40]!r}, which no {special or 'ordinary'} model of SDXL does"
        )
    if special is not None:
        return (special,)
    return ("lcm-full",) if unet.values.get(GUIDED) is not None else (BASE, "turbo", "lightning", "lcm")


def _made_for(scheduler: Config) -> tuple[str, ...]:
    """Return what a scheduler was made for: few steps begin at the noisiest time, which `trailing` says."""
    name = scheduler.values.get("_class_name")
    if name == "LCMScheduler":
        return ("lcm",)
    if scheduler.values.get("timestep_spacing") == "trailing":
        if name == "EulerAncestralDiscreteScheduler":
            return ("turbo", "lightning")
        if name == "EulerDiscreteScheduler":
            return ("lightning", "turbo")
    return ()
