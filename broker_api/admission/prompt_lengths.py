"""Refuse prompts that are longer than a model's text encoder reads, where this host can count them; where not, drawing does."""

import asyncio

from broker_api.admission.refusals import PromptTooLong
from broker_api.admission.vocabularies import Reader, Vocabularies, count_windows
from jobs.contract import DiffusionParameters, JobParameters, RefineParameters, UpscaleParameters
from models_registry.entries import Kind, ModelRef
from models_registry.families import FAMILIES, is_guided
from models_registry.offers import Catalogue


async def refuse_long_prompts(vocabularies: Vocabularies, parameters: JobParameters, catalogue: Catalogue) -> None:
    """Raise `PromptTooLong` for a prompt with more tokens than the job's model reads; nothing where that cannot be known here."""
    asked, prefix = _asked(parameters)
    entry = None if asked is None else catalogue.entries.get(ModelRef(Kind.CHECKPOINT, parameters.model))
    if asked is None or entry is None:
        return
    reader = await vocabularies.reader(entry)
    if reader is None or reader.whole is None:
        return
    reads_negative = is_guided(entry, asked.guidance_scale)
    texts = {"prompt": asked.prompt} | ({"negative_prompt": asked.negative_prompt} if reads_negative else {})
    for field, text in texts.items():
        found = await asyncio.to_thread(_count, reader, text)
        if found is not None and found > reader.room:
            raise PromptTooLong(
                f"The {field.replace('_', ' ')} has {found} tokens; {entry.name} ({FAMILIES[entry.family].title}) reads at most "
                f"{reader.room}.",
                field=f"{prefix}{field}",
            )


def _asked(parameters: JobParameters) -> tuple[DiffusionParameters | RefineParameters | None, str]:
    """Return what holds the prompts, and what stands before the names of its fields."""
    if isinstance(parameters, UpscaleParameters):
        return parameters.refine, "refine."
    return (parameters, "") if isinstance(parameters, DiffusionParameters) else (None, "")


def _count(reader: Reader, text: str) -> int | None:
    try:
        return sum(count_windows(reader, text, {}))
    except ValueError:
        return None
