"""Hear one source after another: what they say of entries, and what the fleet has still to look at."""

from collections.abc import Mapping, Sequence
from typing import Any, Final
from uuid import UUID

from psycopg import AsyncConnection

from broker_api.recommendations.use import pair_opinions, use_opinions
from broker_api.recommendations.weighing import Heard
from jobs.history.usage import UNUSED, most_used, read_pairs, read_usage
from models_registry.likeness.ranking import Wanted, compared_with, near_by_text, near_by_weights, near_by_words
from models_registry.likeness.scores import Opinion, text_cosines, word_scores
from models_registry.likeness.tastes import Facts, newest, read_facts, read_said
from models_registry.records import Entry, Reader

Line = AsyncConnection[Any]
#: Entries each source may bring forward.
CANDIDATES: Final = 100
#: Likeness of texts: half by their vectors, half by their words.
_VECTOR_SHARE: Final = 0.5
#: Updates of LoRAs that have more in common than this are called alike.
_ALIKE: Final = 0.1


async def weigh_updates(line: Line, heard: Heard, reader: Reader, entry: Entry, *, apart: bool = False) -> list[Facts]:
    """Hear what LoRAs do to the weights; return those whose cosine with this one is an estimate still, the nearest first.

    With `apart` those score high that have little in common, as two should that are used together.
    """
    found = await near_by_weights(
        line, reader, entry.fingerprint, entry.family, CANDIDATES * 10 if apart else CANDIDATES
    )
    if found is None:
        heard.silent("weights", "The fleet has not looked at this adapter's weights yet.", waiting=True)
        return []
    exact = await compared_with(line, entry.fingerprint)
    facts = await read_facts(line, reader, found)
    opinions, estimated = {}, []
    for other, estimate in found.items():
        if other not in facts:
            continue
        known = exact.get(facts[other].fingerprint)
        cosine = estimate if known is None else known.cosine
        layers = "" if known is None else f" over {known.layers} layers that both change"
        opinions[other] = _weights_opinion(cosine, layers, exact=known is not None, apart=apart)
        if known is None:
            estimated.append(facts[other])
    heard.said("weights", opinions, f"Compared with {len(opinions)} LoRAs of its family by their updates.")
    return estimated


def _weights_opinion(cosine: float, layers: str, *, exact: bool, apart: bool) -> Opinion:
    about = "" if exact else "about "
    if apart:
        told = "they disturb each other little" if abs(cosine) < _ALIKE else "they pull at the same weights"
        return Opinion(1 - min(1.0, abs(cosine)), f"Cosine of the updates {about}{cosine:.2f}{layers}: {told}.", exact)
    told = "they change the weights alike" if cosine > _ALIKE else "they change the weights in different ways"
    return Opinion(max(0.0, min(1.0, cosine)), f"Cosine of the updates {about}{cosine:.2f}{layers}: {told}.", exact)


async def weigh_texts(
    line: Line,
    heard: Heard,
    reader: Reader,
    text: str,
    wanted: Wanted,
    *,
    encoder: str | None,
    vector: Sequence[float] | None,
    without_vector: str,
    waiting: bool = False,
) -> None:
    """Hear what entries say of themselves: by vectors and words, or where there is no vector for `text` by words alone."""
    words = await near_by_words(line, reader, text, wanted)
    covered = word_scores(words)
    cosines: Mapping[UUID, float] = {}
    if vector is not None and encoder is not None:
        cosines = text_cosines(vector, await near_by_text(line, reader, encoder, vector, wanted))
    opinions = {}
    for entry in {*covered, *cosines}:
        share, cosine = covered.get(entry, 0.0), cosines.get(entry)
        said = f"it says {_quoted(words[entry])}" if words.get(entry) else "no word in common"
        if not cosines:
            opinions[entry] = Opinion(share, f"By words alone: {said}.")
        elif cosine is None:
            opinions[entry] = Opinion(share * (1 - _VECTOR_SHARE), f"{said.capitalize()}; its text was not read yet.")
        else:
            score = _VECTOR_SHARE * max(0.0, cosine) + (1 - _VECTOR_SHARE) * share
            opinions[entry] = Opinion(score, f"Its text lies {_nearness(cosine)} ({cosine:.2f}), and {said}.")
    why = f"Read by a text encoder, and compared with {len(cosines)} texts." if cosines else without_vector
    heard.said("text", opinions, why, waiting=waiting)


def _nearness(cosine: float) -> str:
    return "near" if cosine > 0.3 else "not far" if cosine > 0 else "far away"  # noqa: PLR2004 - words for a number that is told as well


def _quoted(words: frozenset[str]) -> str:
    return ", ".join(f"'{word}'" for word in sorted(words, key=lambda word: (-len(word), word))[:3])


async def weigh_use(line: Line, heard: Heard, wanted: Wanted) -> None:
    """Hear what jobs and people did with entries: with those mentioned already, and those used most."""
    candidates = {*heard.mentioned, *await most_used(line, wanted.kinds, wanted.families, CANDIDATES)}
    opinions = use_opinions(await read_usage(line, list(candidates)), await read_said(line, candidates))
    if opinions:
        heard.said("use", opinions, f"{len(opinions)} of the entries in question have been used or rated.")
    else:
        heard.silent("use", "Nothing in question has been used or rated yet.")


async def weigh_pairs(line: Line, heard: Heard, entry: Entry) -> None:
    """Hear what was used together with an entry."""
    together = await read_pairs(line, entry.id, CANDIDATES)
    if not together:
        heard.silent("use", "It has not been used together with another LoRA yet.")
        return
    usage = await read_usage(line, [entry.id, *together])
    own = usage.get(entry.id, UNUSED).usage.uses
    heard.said("use", pair_opinions(own, together, usage), f"Used together with {len(together)} others.")


async def anything(line: Line, reader: Reader, wanted: Wanted) -> list[UUID]:
    """Return what came last: what there is to recommend where no source says a word."""
    return await newest(line, reader, wanted.kinds, wanted.families, wanted.limit)
