"""Find the adapters of a stack for one caller, and a checkpoint that they all fit."""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from broker_api.endpoints import Call
from broker_api.library.recipe_views import reader_of
from jobs.errors import AdapterUnknown, FamilyMismatch, ModelUnknown
from models_registry.compatibility import TITLES, mismatch
from models_registry.entries import Kind, ModelEntry
from models_registry.offers import Catalogue
from models_registry.recipes.stacks import Facts, read_facts

#: So many entries that resemble one are looked at for an alternative.
_NEAREST: Final = 20


@dataclass(frozen=True)
class Asked:
    """One adapter as it was asked for."""

    kind: Kind
    name: str
    weight: float | None
    text_encoder_weight: float | None
    field: str | None


@dataclass(frozen=True)
class Found:
    """One adapter that is here and may be used."""

    asked: Asked
    entry: ModelEntry
    facts: Facts


async def find_adapters(call: Call, asked: Sequence[Asked], *, skip_missing: bool, warnings: list[str]) -> list[Found]:
    """Return what is here of a stack, each once; what is not is refused, or left out with a warning."""
    catalogue = call.services.snapshots.now.catalogue.seen_by(call.principal.reader)
    if any(catalogue.find(each.name, each.kind) is None for each in asked):
        # It may be newer than the snapshot.
        catalogue = (await call.services.snapshots.refresh()).catalogue.seen_by(call.principal.reader)
    entries = [catalogue.find(each.name, each.kind) for each in asked]
    async with call.services.pool.connection() as connection:
        refs = [entry.ref for entry in entries if entry is not None]
        facts = await read_facts(connection, refs, reader_of(call)) if refs else {}
    found: dict[object, Found] = {}
    for each, entry in zip(asked, entries, strict=True):
        known = None if entry is None else facts.get(entry.ref)
        if entry is not None and known is not None:
            found.setdefault(entry.ref, Found(each, entry, known))
        elif skip_missing:
            warnings.append(f"{each.name} is not here and was left out.")
        else:
            away = f"{TITLES[each.kind]} named {each.name[:100]!r} is not here, or its files are away."
            raise AdapterUnknown(away[:1].upper() + away[1:], field=each.field)
    return list(found.values())


async def choose_checkpoint(call: Call, named: str | None, stack: Sequence[Found]) -> str:
    """Return the checkpoint that was named, or the first one that fits all adapters; raise `FamilyMismatch` with an alternative."""
    catalogue = call.services.snapshots.now.catalogue.seen_by(call.principal.reader)
    if named is not None and catalogue.find(named) is None:
        catalogue = (await call.services.snapshots.refresh()).catalogue.seen_by(call.principal.reader)
    chosen = catalogue.default() if named is None else catalogue.find(named)
    usable = await _usable(call, [] if chosen is None else [chosen])
    if not usable and named is not None:
        raise ModelUnknown(f"No model is named {named[:100]!r}.", field="model")
    fitting = await _fitting_all(call, catalogue, stack)
    if named is None:
        chosen = next((each for each in usable if each in fitting), fitting[0] if fitting else chosen)
    if chosen is None:
        raise ModelUnknown("No model is registered that you may use.", field="model")
    for found in stack:
        problem = mismatch(found.entry, chosen)
        if problem is not None:
            others = await _alternatives(call, catalogue, found.entry, chosen, fitting)
            raise FamilyMismatch(f"{problem}{others}", field=found.asked.field)
    return chosen.name


async def _fitting_all(call: Call, catalogue: Catalogue, stack: Sequence[Found]) -> list[ModelEntry]:
    fitting = [
        each
        for each in catalogue.of_kind(Kind.CHECKPOINT)
        if all(mismatch(found.entry, each) is None for found in stack)
    ]
    return await _usable(call, fitting[:_NEAREST])


async def _alternatives(
    call: Call, catalogue: Catalogue, adapter: ModelEntry, checkpoint: ModelEntry, fitting: Sequence[ModelEntry]
) -> str:
    """Say which checkpoint takes the whole stack, or the adapter, and which adapter resembles it for this checkpoint."""
    alone = [each for each in catalogue.of_kind(Kind.CHECKPOINT) if mismatch(adapter, each) is None]
    takes = fitting or await _usable(call, alone[:_NEAREST])
    others = [each for each in catalogue.of_kind(adapter.kind) if mismatch(each, checkpoint) is None]
    others.sort(key=lambda each: -difflib.SequenceMatcher(None, each.name.casefold(), adapter.name.casefold()).ratio())
    like = await _usable(call, others[:_NEAREST])
    told = f" The nearest model that takes it is {takes[0].name}." if takes else ""
    return told + (f" For {checkpoint.name} the nearest {adapter.kind} is {like[0].name}." if like else "")


async def _usable(call: Call, entries: Sequence[ModelEntry]) -> list[ModelEntry]:
    if not entries:
        return []
    async with call.services.pool.connection() as connection:
        facts = await read_facts(connection, [entry.ref for entry in entries], reader_of(call))
    return [entry for entry in entries if entry.ref in facts]
