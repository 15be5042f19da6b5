"""Find the models a request names: checkpoints that do its task, adapters that fit them, upscalers, preprocessors."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from broker_api.admission.refusals import NoModels, suggest
from jobs.errors import (
    AdapterUnknown,
    FamilyMismatch,
    ModelUnknown,
    OptionUnsupported,
    PreprocessorUnknown,
    TaskUnsupported,
)
from jobs.parts import Lora
from models_registry.builtins import LATENT_RESAMPLER, PIXEL_RESAMPLERS, is_resampler
from models_registry.compatibility import mismatch
from models_registry.entries import Kind, ModelEntry, ModelRef
from models_registry.families import facts_of, tasks_of
from models_registry.offers import Catalogue
from models_registry.preprocessors import PREPROCESSORS

_TITLES: Final[Mapping[Kind, str]] = MappingProxyType(
    {
        Kind.LORA: "LoRA",
        Kind.CONTROLNET: "ControlNet",
        Kind.EMBEDDING: "embedding",
        Kind.VAE: "VAE",
        Kind.UPSCALER: "upscaler",
    }
)


@dataclass(frozen=True)
class Models:
    """Look models up, raising refusals that name the field."""

    catalogue: Catalogue

    def checkpoint(self, name: str | None, task: str, *, field: str = "model", task_field: str = "task") -> ModelEntry:
        """Return the checkpoint of this name, or the first one that does the task when none is named."""
        if name is None:
            return self._default(task)
        found = self.named(name, field)
        if task not in tasks_of(found):
            raise TaskUnsupported(self._other_ways(found, task), field=task_field)
        return found

    def named(self, name: str, field: str = "model") -> ModelEntry:
        """Return the checkpoint of this name, whatever it does."""
        found = self.catalogue.find(name)
        if found is not None:
            return found
        if self.catalogue.is_missing(ModelRef(Kind.CHECKPOINT, name)):
            raise ModelUnknown(f"The files of the model {name!r} are away.", field=field)
        raise ModelUnknown(
            f"No model is named {name[:100]!r}. {suggest(name, self._names(Kind.CHECKPOINT))}", field=field
        )

    def nearest(self, entry: ModelEntry, able: Callable[[ModelEntry], bool]) -> ModelEntry | None:
        """Return a checkpoint that is able to do something, of the same family where there is one."""
        others = [each for each in self.catalogue.of_kind(Kind.CHECKPOINT) if able(each)]
        others.sort(key=lambda each: each.family != entry.family)
        return next(iter(others), None)

    def adapter(self, kind: Kind, name: str, field: str, checkpoint: ModelEntry) -> ModelEntry:
        """Return the adapter of this kind and name, which must have been made for such a checkpoint."""
        found = self._adapter(kind, name, field)
        problem = mismatch(found, checkpoint)
        if problem is not None:
            raise FamilyMismatch(problem, field=field)
        return found

    def lora(self, asked: Lora, field: str, checkpoint: ModelEntry) -> Lora:
        """Return a LoRA by its exact name, with the weight that its entry recommends where none was asked for."""
        name = self.adapter(Kind.LORA, asked.name, field, checkpoint).name
        offer = self.catalogue.offer(name, Kind.LORA)
        usual = None if offer is None else offer.weight
        if usual is None or "weight" in asked.model_fields_set:
            return asked.model_copy(update={"name": name})
        return asked.model_copy(update={"name": name, "weight": usual})

    def upscaler(self, name: str, field: str, *, latent: bool) -> str | ModelEntry:
        """Return an upscaler, or the name of the resampler that is meant; `latent` tells whether there are latents to resample."""
        if is_resampler(name):
            if name.casefold() == LATENT_RESAMPLER and not latent:
                raise OptionUnsupported(
                    f"'{LATENT_RESAMPLER}' enlarges latents between two passes; here use {', '.join(PIXEL_RESAMPLERS)} "
                    "or a registered upscaler.",
                    field=field,
                )
            return name.casefold()
        return self._adapter(Kind.UPSCALER, name, field)

    def preprocessor(self, name: str, options: Mapping[str, float], field: str, options_field: str) -> str:
        """Return the exact name of a preprocessor whose options are inside their bounds and whose weights are here."""
        facts = PREPROCESSORS.get(name) or PREPROCESSORS.get(name.casefold())
        if facts is None:
            raise PreprocessorUnknown(
                f"No preprocessor is named {name[:100]!r}. {suggest(name, list(PREPROCESSORS))}", field=field
            )
        if facts.needs_weights and self.catalogue.find(facts.name, Kind.PREPROCESSOR) is None:
            raise PreprocessorUnknown(
                f"The weights of the preprocessor '{facts.name}' are not registered: put {facts.name}.safetensors into a "
                "folder named `annotators` below a models folder, and scan.",
                field=field,
            )
        for option, value in options.items():
            bounds = facts.options.get(option)
            if bounds is None:
                known = ", ".join(facts.options) or "none"
                raise OptionUnsupported(f"{facts.name} has the options: {known}.", field=f"{options_field}.{option}")
            if not bounds.low <= value <= bounds.high:
                raise OptionUnsupported(
                    f"{option} of {facts.name} goes from {bounds.low:g} to {bounds.high:g}; {value:g} is outside.",
                    field=f"{options_field}.{option}",
                )
        return facts.name

    def _default(self, task: str) -> ModelEntry:
        usual = self.catalogue.default()
        if usual is not None and task in tasks_of(usual) and not facts_of(usual).reads_control:
            return usual
        checkpoints = self.catalogue.of_kind(Kind.CHECKPOINT)
        if not checkpoints:
            raise NoModels("No model is registered yet: `imagefleet models scan` looks for some.", field="model")
        # What needs a control picture as well is nobody's default while there is another.
        ready = sorted(checkpoints, key=lambda entry: facts_of(entry).reads_control)
        able = next((entry for entry in ready if task in tasks_of(entry)), None)
        if able is None:
            known = ", ".join(sorted({each for entry in checkpoints for each in tasks_of(entry)}))
            raise TaskUnsupported(f"No registered model does {task}; they do: {known}.", field="task")
        return able

    def _other_ways(self, entry: ModelEntry, task: str) -> str:
        does = ", ".join(sorted(tasks_of(entry)))
        other = self.nearest(entry, lambda each: task in tasks_of(each))
        hint = "" if other is None else f" For {task} use the model {other.name}."
        return f"{entry.name} ({facts_of(entry).title}) can do: {does}.{hint}"

    def _adapter(self, kind: Kind, name: str, field: str) -> ModelEntry:
        found = self.catalogue.find(name, kind)
        if found is not None:
            return found
        title = _TITLES[kind]
        if self.catalogue.is_missing(ModelRef(kind, name)):
            raise AdapterUnknown(f"The files of the {title} {name!r} are away.", field=field)
        known = self._names(kind) + (list(PIXEL_RESAMPLERS) if kind is Kind.UPSCALER else [])
        raise AdapterUnknown(f"No {title} is named {name[:100]!r}. {suggest(name, known)}", field=field)

    def _names(self, kind: Kind) -> list[str]:
        return [entry.name for entry in self.catalogue.of_kind(kind)]
