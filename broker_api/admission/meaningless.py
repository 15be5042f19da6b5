"""Refuse what a checkpoint has no use for: it would be accepted, do nothing, and nobody would know why the picture is as it is."""

from collections.abc import Callable
from typing import Final

from broker_api.admission.models import Models
from jobs.contract import DiffusionRequest, Txt2ImgRequest
from jobs.errors import FamilyMismatch, OptionUnsupported
from jobs.parts import Refine
from models_registry.entries import ModelEntry
from models_registry.families import FAMILIES, INPAINT, Guidance, facts_of

#: Up to this scale guidance changes nothing.
NO_GUIDANCE: Final = 1.0


def refuse_meaningless(asked: DiffusionRequest | Refine, entry: ModelEntry, models: Models, prefix: str = "") -> None:
    """Raise `OptionUnsupported` for guidance that does nothing; `prefix` stands before the names of fields at fault."""
    facts = facts_of(entry)
    if facts.guidance is Guidance.CLASSIFIER_FREE:
        return
    # An empty one of spaces says nothing either.
    if asked.negative_prompt.strip():
        other = _other(models, entry, lambda each: facts_of(each).guidance is Guidance.CLASSIFIER_FREE)
        raise OptionUnsupported(
            f"{entry.name} ({facts.title}) reads no negative prompt: say in the prompt what should be there{other}.",
            field=f"{prefix}negative_prompt",
        )
    if facts.guidance is Guidance.NONE and (asked.guidance_scale or 0) > NO_GUIDANCE:
        other = _other(models, entry, lambda each: facts_of(each).guidance is not Guidance.NONE)
        raise OptionUnsupported(
            f"{entry.name} ({facts.title}) was trained to draw without guidance: leave guidance_scale out{other}.",
            field=f"{prefix}guidance_scale",
        )


def check_clip_skip(clip_skip: int, entry: ModelEntry) -> None:
    """Raise `OptionUnsupported` when there are not so many layers to skip, or none at all."""
    family, layers = FAMILIES[entry.family], entry.text_layers
    if clip_skip > 1 and not family.takes_clip_skip:
        raise OptionUnsupported(
            f"{family.title} reads its text encoders to the end: leave clip_skip out.", field="clip_skip"
        )
    if layers is not None and clip_skip > layers:
        raise OptionUnsupported(
            f"The text encoder of {entry.name} has {layers} layers: clip_skip goes from 1 to {layers}.",
            field="clip_skip",
        )


def check_refiner(request: Txt2ImgRequest, entry: ModelEntry, models: Models) -> str | None:
    """Return the exact name of the checkpoint that takes over, raising a refusal unless it can go on with what `entry` began."""
    if request.refiner is None:
        return None
    field = "refiner.model"
    family = FAMILIES[entry.family]
    if not family.takes_refiner:
        able = " and ".join(each.title for each in FAMILIES.values() if each.takes_refiner)
        raise OptionUnsupported(
            f"{entry.name} ({family.title}) is drawn by one checkpoint to the end; {able} can be refined.",
            field="refiner",
        )
    found = models.named(request.refiner.model, field)
    begins, ends = facts_of(entry), facts_of(found)
    if found.family != entry.family:
        other = _other(models, entry, lambda each: each.family == entry.family and facts_of(each).tasks == {"img2img"})
        raise FamilyMismatch(
            f"{found.name} is {FAMILIES[found.family].title}; {entry.name} is {family.title}, and goes on as that alone{other}.",
            field=field,
        )
    if begins.prediction is not ends.prediction or found.variant == INPAINT:
        raise FamilyMismatch(
            f"{found.name} ({ends.title}) cannot go on with what {entry.name} ({begins.title}) began.", field=field
        )
    for fact in ("latent_channels", "latent_factor"):
        if getattr(found, fact) != getattr(entry, fact):
            raise FamilyMismatch(f"{found.name} has latents of another form than {entry.name}.", field=field)
    return found.name


def _other(models: Models, entry: ModelEntry, able: Callable[[ModelEntry], bool]) -> str:
    nearest = models.nearest(entry, able)
    return "" if nearest is None else f", or use the model {nearest.name}"
