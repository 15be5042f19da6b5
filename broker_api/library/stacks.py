"""Find the adapters of a stack for one caller, and a checkpoint that they all fit."""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

from broker_api.endpoints import Call
from broker_api.library.recipe_views import reader_of
from jobs.errors import AdapterUnknown, FamilyMismatch, ModelUnknown
from models_registry.compatibility import TITLES, mismatch
from models_registry.entries import Kind, ModelEntry
from models_registry.offers import Catalogue
from models_registry.recipes.stacks import Facts, read_facts


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
    catalogue = call.services.snapshots.now.catalogue.seen_by(reader_of(call))
    if named is not None and catalogue.find(named) is None:
        catalogue = (await call.services.snapshots.refresh()).catalogue.seen_by(reader_of(call))
    fitting = [
        each
        for each in catalogue.of_kind(Kind.CHECKPOINT)
        if all(mismatch(found.entry, each) is None for found in stack)
    ]
    chosen = catalogue.default() if named is None else catalogue.find(named)
    if chosen is None and named is not None:
        raise ModelUnknown(f"No model is named {named[:100]!r}.", field="model")
    if named is None and chosen not in fitting:
        chosen = fitting[0] if fitting else chosen
    if chosen is None:
        raise ModelUnknown("No model is registered that you may use.", field="model")
    for found in stack:
        problem = mismatch(found.entry, chosen)
        if problem is not None:
            raise FamilyMismatch(
                f"{problem}{_alternatives(catalogue, found.entry, chosen, fitting)}", field=found.asked.field
            )
    return chosen.name


def _alternatives(
    catalogue: Catalogue, adapter: ModelEntry, checkpoint: ModelEntry, fitting: Sequence[ModelEntry]
) -> str:
    """Say which checkpoint takes the whole stack, or the adapter, and which adapter resembles it for this checkpoint."""
    alone = (each for each in catalogue.of_kind(Kind.CHECKPOINT) if mismatch(adapter, each) is None)
    takes = fitting[0] if fitting else next(alone, None)
    others = {
        each.name.casefold(): each for each in catalogue.of_kind(adapter.kind) if mismatch(each, checkpoint) is None
    }
    near = difflib.get_close_matches(adapter.name.casefold(), others, n=1, cutoff=0.0)
    told = f" The nearest model that takes it is {takes.name}." if takes is not None else ""
    return told + (f" For {checkpoint.name} the nearest {adapter.kind} is {others[near[0]].name}." if near else "")
