"""Recommend adapters like one, adapters for a prompt, adapters to use together."""

from typing import Final

from starlette.responses import Response

from broker_api.endpoints import Call
from broker_api.http.answers import json_answer
from broker_api.recommendations.asking import ask, find_adapter, grounds_of, reader_of, wait_for_analyses
from broker_api.recommendations.hearing import (
    CANDIDATES,
    weigh_pairs,
    weigh_texts,
    weigh_updates,
    weigh_use,
)
from broker_api.recommendations.views import AdapterQuery, PromptQuery
from broker_api.recommendations.weighing import Heard, answer, shares_of
from jobs.analysing.analyses import AnalysisSource, Grounds, ask_for_text, ask_to_compare, is_answered, lora
from jobs.analysing.findings import text_digest
from jobs.errors import ModelUnknown
from models_registry.entries import ANY_FAMILY, Kind
from models_registry.library import read_entry_async
from models_registry.likeness.ranking import Wanted, read_vector
from models_registry.likeness.tastes import Facts, Preferences, read_facts, read_preferences, read_refused
from models_registry.likeness.texts import text_of
from models_registry.records import Entry

#: LoRAs one job compares exactly: the best ones by their sketches.
MOST_COMPARED: Final = 16


async def recommend_similar(call: Call) -> Response:
    """Return adapters that are like one."""
    query = call.query(AdapterQuery)
    entry = await find_adapter(call, query.adapter)
    preferences = await _preferences(call)
    heard = Heard(shares_of(preferences, query.sources))
    grounds = await grounds_of(call, entry)
    await _look(call, grounds, heard, entry, query.wait, compares=True)
    wanted = Wanted((entry.kind,), (entry.family,), CANDIDATES)
    reader = reader_of(call)
    async with call.services.pool.connection() as line:
        if heard.asks("weights") and entry.kind is Kind.LORA:
            await weigh_updates(line, heard, reader, entry)
        elif heard.asks("weights"):
            heard.silent("weights", "Only LoRAs' weights are compared.")
        if heard.asks("text"):
            text = _text(entry)
            encoder = None if grounds.reads is None else grounds.reads.fingerprint
            vector = None if encoder is None else await read_vector(line, encoder, text_digest(text))
            await weigh_texts(
                line, heard, reader, text, wanted, encoder=encoder, vector=vector,
                without_vector="By words alone: the fleet has not read this adapter's text yet.", waiting=vector is None,
            )  # fmt: skip
        if heard.asks("use"):
            await weigh_use(line, heard, wanted)
        facts = await read_facts(line, reader, heard.mentioned)
        refused = await read_refused(line, reader.owner, text_digest(str(entry.id)))
    fitting = {other: fact for other, fact in facts.items() if _fits(fact, entry)}
    return json_answer(answer(heard, fitting, query.limit, {entry.id, *preferences.hidden, *refused}))


async def recommend_together(call: Call) -> Response:
    """Return LoRAs that work together with one."""
    query = call.query(AdapterQuery)
    entry = await find_adapter(call, query.adapter)
    preferences = await _preferences(call)
    heard = Heard(shares_of(preferences, query.sources))
    grounds = await grounds_of(call, entry)
    if heard.asks("weights"):
        await _look(call, grounds, heard, entry, query.wait, compares=False)
    reader = reader_of(call)
    async with call.services.pool.connection() as line:
        if heard.asks("use"):
            await weigh_pairs(line, heard, entry)
        if heard.asks("weights") and entry.kind is Kind.LORA:
            await weigh_updates(line, heard, reader, entry, apart=True)
        elif heard.asks("weights"):
            heard.silent("weights", "Only LoRAs' weights are compared.")
        facts = await read_facts(line, reader, heard.mentioned)
        refused = await read_refused(line, reader.owner, text_digest(str(entry.id)))
    fitting = {
        other: fact
        for other, fact in facts.items()
        if fact.family == entry.family and (fact.kind, fact.name) != (entry.kind, entry.name)
    }
    return json_answer(answer(heard, fitting, query.limit, {entry.id, *preferences.hidden, *refused}))


async def recommend_for_prompt(call: Call) -> Response:
    """Return adapters for a prompt."""
    query = call.query(PromptQuery)
    preferences = await _preferences(call)
    heard = Heard(shares_of(preferences, query.sources) | {"weights": 0.0})
    grounds = await grounds_of(call)
    families = None if query.model is None else await _families(call, query.model)
    wanted = Wanted((query.kind,), families, CANDIDATES)
    without = ""
    if heard.asks("text"):
        without = await _read_prompt(call, grounds, query.prompt, query.wait)
    reader = reader_of(call)
    async with call.services.pool.connection() as line:
        if heard.asks("text"):
            encoder = None if grounds.reads is None else grounds.reads.fingerprint
            vector = None if encoder is None else await read_vector(line, encoder, text_digest(query.prompt))
            await weigh_texts(
                line, heard, reader, query.prompt, wanted, encoder=encoder, vector=vector, without_vector=without,
                waiting=vector is None and without.endswith(_LATER),
            )  # fmt: skip
        if heard.asks("use"):
            await weigh_use(line, heard, wanted)
        facts = await read_facts(line, reader, heard.mentioned)
        refused = await read_refused(line, reader.owner, text_digest(query.prompt))
    fitting = {
        other: fact
        for other, fact in facts.items()
        if fact.kind == query.kind and (families is None or fact.family in families)
    }
    return json_answer(answer(heard, fitting, query.limit, {*preferences.hidden, *refused}))


_LATER: Final = "ask again later."


async def _read_prompt(call: Call, grounds: Grounds, prompt: str, seconds: float) -> str:
    """Have the prompt read within so many seconds, unless it is known; return what to say where it was not."""
    services = call.services
    if grounds.reads is None:
        return "By words alone: no checkpoint is here whose text encoder could read."
    async with services.pool.connection() as line:
        if await read_vector(line, grounds.reads.fingerprint, text_digest(prompt)) is not None:
            await ask(call, grounds, ("text",))
            return ""
    if not is_answered(grounds):
        return "By words alone: no worker that reads texts is online."
    await ask(call, grounds, ("text",))
    async with services.pool.connection() as line:
        accepted = await ask_for_text(line, grounds, prompt)
    if accepted is None:
        return "By words alone: no worker can hold the checkpoint whose text encoder reads."
    if accepted.change is not None:
        services.relay.announce(accepted.change)
    await wait_for_analyses(call, seconds)
    return f"By words alone: the fleet has not read the prompt within {seconds:g} s; {_LATER}"


async def _look(call: Call, grounds: Grounds, heard: Heard, entry: Entry, seconds: float, *, compares: bool) -> None:
    """Have the fleet look at what is not known yet, waiting for it as long as was asked."""
    wanted: tuple[AnalysisSource, ...] = tuple(
        source for source in ("weights", "text") if heard.asks(source) and (compares or source == "weights")
    )
    await ask(call, grounds, wanted, first=entry.id)
    await wait_for_analyses(call, seconds)
    one = lora(grounds.models, entry.ref)
    if not heard.asks("weights") or one is None:
        return
    reader = reader_of(call)
    async with call.services.pool.connection() as line:
        estimated = await weigh_updates(line, Heard(heard.shares), reader, entry, apart=not compares)
        others = [other for fact in estimated[:MOST_COMPARED] if (other := lora(grounds.models, fact.ref)) is not None]
        accepted = await ask_to_compare(line, grounds, one, others) if others else None
    if accepted is not None:
        if accepted.change is not None:
            call.services.relay.announce(accepted.change)
        await wait_for_analyses(call, seconds)


async def _preferences(call: Call) -> Preferences:
    async with call.services.pool.connection() as line:
        return await read_preferences(line, call.principal.owner)


async def _families(call: Call, model: str) -> tuple[str, ...]:
    async with call.services.pool.connection() as line:
        found = await read_entry_async(line, model, kinds=(Kind.CHECKPOINT,), reader=reader_of(call))
    if found is None:
        raise ModelUnknown(f"No model is called '{model}'.", field="model")
    return (found.family, ANY_FAMILY)


def _text(entry: Entry) -> str:
    return text_of(
        {**entry.model_dump(include={"trigger_words", "tags", "description", "metadata"}), "model_name": entry.name}
    )


def _fits(fact: Facts, entry: Entry) -> bool:
    return fact.kind == entry.kind and fact.family == entry.family
