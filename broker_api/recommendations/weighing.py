"""From opinions to an answer: what exists for the caller, the best first, each with its reasons."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from uuid import UUID

from broker_api.recommendations.views import (
    Adapter,
    Recommendation,
    Recommendations,
    SourceOpinion,
    SourceReport,
)
from models_registry.likeness.scores import SOURCES, Opinion, Source, blend
from models_registry.likeness.tastes import Facts, Preferences


@dataclass
class Heard:
    """What the sources said, and what became of each."""

    shares: Mapping[Source, float]
    opinions: dict[Source, Mapping[UUID, Opinion]] = field(default_factory=dict)
    reports: dict[Source, SourceReport] = field(default_factory=dict)

    def asks(self, source: Source) -> bool:
        """Tell whether a source is to be heard."""
        return self.shares.get(source, 0) > 0

    def said(self, source: Source, opinions: Mapping[UUID, Opinion], why: str, *, waiting: bool = False) -> None:
        """Take what a source says; `waiting` when it will know more."""
        self.opinions[source] = opinions
        state = "waiting" if waiting else "used"
        self.reports[source] = SourceReport(state=state, share=self.shares[source], why=why)

    def silent(self, source: Source, why: str, *, waiting: bool = False) -> None:
        """Note that a source has nothing to say, and why; its share is the others'."""
        state = "waiting" if waiting else "unavailable"
        self.reports[source] = SourceReport(state=state, share=self.shares[source], why=why)

    @property
    def mentioned(self) -> set[UUID]:
        """Return every entry of which something was said."""
        return {entry for opinions in self.opinions.values() for entry in opinions}


def shares_of(preferences: Preferences, sources: str | None) -> dict[Source, float]:
    """Return the share of each source: the caller's preferences, but only the sources asked for, which are then all heard."""
    if sources is None:
        return dict(preferences.shares)
    wanted = set(sources.split(","))
    return {source: (preferences.shares[source] or 1.0) if source in wanted else 0.0 for source in SOURCES}


def answer(
    heard: Heard, facts: Mapping[UUID, Facts], limit: int, without: Collection[UUID] = frozenset()
) -> Recommendations:
    """Return the entries of `facts` that something speaks for, the best first."""
    spoken = {source: heard.shares[source] for source in heard.opinions}
    items = []
    for entry, fact in facts.items():
        if entry in without:
            continue
        opinions = {source: said[entry] for source, said in heard.opinions.items() if entry in said}
        score = blend(opinions, spoken)
        if score > 0:
            items.append(_item(fact, score, opinions, spoken))
    items.sort(key=lambda item: (-item.score, item.adapter.ref))
    reports = {source: heard.reports.get(source) or _off() for source in SOURCES}
    return Recommendations(items=items[:limit], sources=reports)


def _off() -> SourceReport:
    return SourceReport(state="off", share=0.0, why="Switched off, or of no use for this question.")


def _item(
    fact: Facts, score: float, opinions: Mapping[Source, Opinion], shares: Mapping[Source, float]
) -> Recommendation:
    first = max(opinions, key=lambda source: opinions[source].score * shares[source])
    return Recommendation(
        adapter=shown(fact),
        score=round(score, 4),
        why=opinions[first].why,
        sources={
            source: SourceOpinion(score=round(said.score, 4), why=said.why, exact=said.exact)
            for source, said in opinions.items()
        },
    )


def shown(fact: Facts) -> Adapter:
    """Return what an answer shows of an entry."""
    return Adapter(
        id=fact.id,
        ref=fact.ref,
        name=fact.name,
        version=fact.version,
        kind=fact.kind,
        family=fact.family,
        trigger_words=list(fact.trigger_words),
        tags=list(fact.tags),
        weight=fact.weight,
    )
