"""Resolve what is stacked onto a checkpoint: LoRAs of the list and of the prompts, embeddings, controls, another VAE."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from broker_api.admission.models import Models
from broker_api.admission.refusals import suggest
from jobs.contract import DiffusionRequest
from jobs.errors import OptionUnsupported
from jobs.parts import MAX_STACK, Control, Lora
from jobs.prompts.tags import named_embeddings, take_tags
from models_registry.compatibility import mismatch
from models_registry.entries import Kind, ModelEntry
from models_registry.families import FAMILIES, facts_of

#: What `Lora` takes.
_HEAVIEST = 10.0


class _Asked(NamedTuple):
    lora: Lora
    #: Where it was asked for: `loras.0.name`, `prompt`.
    field: str


def stacked(request: DiffusionRequest, entry: ModelEntry, models: Models) -> Mapping[str, Any]:
    """Return prompts without tags, LoRAs, embeddings, controls and VAE by their exact names."""
    prompt, negative = take_tags(request.prompt), take_tags(request.negative_prompt)
    asked = [_Asked(lora, f"loras.{place}.name") for place, lora in enumerate(request.loras)]
    asked += [_Asked(lora, "prompt") for lora in prompt.loras]
    asked += [_Asked(lora, "negative_prompt") for lora in negative.loras]
    vae = request.vae
    return {
        "prompt": prompt.text,
        "negative_prompt": negative.text,
        "loras": _loras(asked, entry, models),
        "embeddings": _embeddings(request.embeddings, (prompt.text, negative.text), entry, models),
        "controls": list(_controls(request.controls, entry, models)),
        "vae": None if vae is None else models.adapter(Kind.VAE, vae, "vae", entry).name,
    }


def _loras(asked: list[_Asked], entry: ModelEntry, models: Models) -> list[Lora]:
    """Return each LoRA once, in the order first named; the same one named twice adds up."""
    weights: dict[str, tuple[float, float, str]] = {}
    for named, field in asked:
        lora = models.lora(named, field, entry)
        name = lora.name
        text_encoder = lora.weight if lora.text_encoder_weight is None else lora.text_encoder_weight
        before = weights.get(name, (0.0, 0.0, field))
        weights[name] = (before[0] + lora.weight, before[1] + text_encoder, field)
    if len(weights) > MAX_STACK:
        raise OptionUnsupported(f"A job takes {MAX_STACK} LoRAs at most; these are {len(weights)}.", field="loras")
    return [_lora(name, *summed) for name, summed in weights.items()]


def _lora(name: str, weight: float, text_encoder: float, field: str) -> Lora:
    if max(abs(weight), abs(text_encoder)) > _HEAVIEST:
        raise OptionUnsupported(
            f"The weights of {name} add up to {weight:g}; at most {_HEAVIEST:g} makes sense.", field=field
        )
    return Lora(name=name, weight=weight, text_encoder_weight=None if text_encoder == weight else text_encoder)


def _embeddings(listed: list[str], prompts: tuple[str, str], entry: ModelEntry, models: Models) -> list[str]:
    """Return the embeddings that were listed, and those whose names the prompts hold and that fit the checkpoint."""
    names = [
        models.adapter(Kind.EMBEDDING, name, f"embeddings.{place}", entry).name for place, name in enumerate(listed)
    ]
    fitting = [each.name for each in models.catalogue.embeddings_in(prompts) if mismatch(each, entry) is None]
    found = list(dict.fromkeys([*names, *named_embeddings(prompts, fitting)]))
    if len(found) > MAX_STACK:
        raise OptionUnsupported(
            f"A job takes {MAX_STACK} embeddings at most; the prompts name {len(found)}.", field="embeddings"
        )
    return found


def _controls(asked: list[Control], entry: ModelEntry, models: Models) -> Iterator[Control]:
    facts = facts_of(entry)
    if facts.reads_control:
        _check_own_control(asked, entry)
    elif asked and not facts.takes_controlnets:
        guided = [each.title for each in FAMILIES[entry.family].variants.values() if each.takes_controlnets]
        able = f"of its family these can: {', '.join(guided)}" if guided else "none of its family can"
        raise OptionUnsupported(
            f"{entry.name} ({facts.title}) cannot be guided by ControlNets; {able}.", field="controls"
        )
    for place, control in enumerate(asked):
        own = f"controls.{place}"
        update: dict[str, str | None] = {"model": _network(control, own, entry, models)}
        if control.preprocessor is not None:
            update["preprocessor"] = models.preprocessor(
                control.preprocessor, control.preprocessor_options, f"{own}.preprocessor", f"{own}.preprocessor_options"
            )
        elif control.preprocessor_options:
            raise OptionUnsupported("Options need a preprocessor.", field=f"{own}.preprocessor_options")
        yield control.model_copy(update=update)


def _network(control: Control, field: str, entry: ModelEntry, models: Models) -> str | None:
    """Return the ControlNet that reads a control picture; None where the checkpoint itself does."""
    if control.model is not None:
        return models.adapter(Kind.CONTROLNET, control.model, f"{field}.model", entry).name
    if facts_of(entry).reads_control:
        return None
    fitting = [each.name for each in models.catalogue.of_kind(Kind.CONTROLNET) if mismatch(each, entry) is None]
    raise OptionUnsupported(
        f"{entry.name} ({facts_of(entry).title}) reads no control picture by itself: name a ControlNet. {suggest('', fitting)}",
        field=f"{field}.model",
    )


def _check_own_control(asked: list[Control], entry: ModelEntry) -> None:
    title = f"{entry.name} ({facts_of(entry).title})"
    if len(asked) != 1:
        raise OptionUnsupported(
            f"{title} draws after one control picture: `controls` takes exactly one, without a model.", field="controls"
        )
    (control,) = asked
    if control.model is not None:
        raise OptionUnsupported(
            f"{title} reads its control picture itself: leave the model of the control out.", field="controls.0.model"
        )
    for field, whole in (("scale", 1.0), ("start", 0.0), ("end", 1.0)):
        if getattr(control, field) != whole:
            raise OptionUnsupported(
                f"{title} reads its control picture in every step as it is: leave {field} out.",
                field=f"controls.0.{field}",
            )
