"""Hold in memory what is offered, found by every name it has; what changed is put in its place."""

import bisect
import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from copy import copy
from dataclasses import dataclass
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, Final
from uuid import UUID, uuid4

from models_registry.entries import Kind, ModelEntry, ModelRef
from models_registry.families import FAMILIES, facts_of, tasks_of
from models_registry.records import FLEET, Reader
from models_registry.versions import split_ref, version_order

#: Shorter beginnings of a fingerprint are names that happen to be hexadecimal.
MIN_HASH: Final = 6
_TITLE: Final = re.compile(r"(?P<name>.*?)(?:\.safetensors)?(?: \[(?P<hash>[0-9a-fA-F]{6,64})\])?", re.DOTALL)
_WORD: Final = re.compile(r"[\w-]+")
_NO_ENTRIES: Final[Mapping[ModelRef, ModelEntry]] = MappingProxyType({})
_FIRST: Final = datetime(1970, 1, 1, tzinfo=UTC)
_RANKS: Final[Mapping[str, int]] = MappingProxyType({family: rank for rank, family in enumerate(FAMILIES)})

#: A kind and a folded name.
_Claim = tuple[Kind, str]


@dataclass(frozen=True)
class Offer:
    """One entry, who may use it, and by which names."""

    id: UUID
    entry: ModelEntry
    found_at: datetime
    #: Its files are away: it is known, and not offered.
    missing: bool = False
    owner: str | None = None
    is_public: bool = True
    #: Ids of API keys; None for all.
    allowed_keys: frozenset[str] | None = None
    #: What a LoRA is used with that is named without a weight.
    weight: float | None = None
    aliases: tuple[str, ...] = ()

    @property
    def is_open(self) -> bool:
        """Tell whether everyone may use it."""
        return self.is_public and self.allowed_keys is None

    def is_for(self, reader: Reader) -> bool:
        """Tell whether it exists for them."""
        if self.is_open or reader.is_admin or (self.owner is not None and self.owner == reader.owner):
            return True
        return self.is_public and reader.key is not None and reader.key in (self.allowed_keys or ())

    @property
    def age(self) -> tuple[datetime, int, str, str]:
        """Return what entries are ordered by: those known longest come first, of those found together the least demanding families'."""
        return (self.found_at, _RANKS.get(self.entry.family, len(_RANKS)), self.entry.name, self.entry.kind)


class _Index:
    """Find offers by id, ref, folded name, alias, name without version, fingerprint, first word; nothing here knows a reader."""

    def __init__(self) -> None:
        self.by_id: dict[UUID, Offer] = {}
        self.by_ref: dict[ModelRef, Offer] = {}
        self.named: dict[_Claim, Offer] = {}
        self.aliased: dict[_Claim, Offer] = {}
        self.versions: dict[_Claim, list[Offer]] = defaultdict(list)
        self.hashed: dict[_Claim, list[Offer]] = defaultdict(list)
        self.worded: dict[_Claim, list[Offer]] = defaultdict(list)
        #: Offered ones of each kind, the one known longest first.
        self.kinds: dict[Kind, list[Offer]] = {kind: [] for kind in Kind}
        #: How many are not for everyone.
        self.closed = 0

    def put(self, offer: Offer) -> None:
        self.drop(offer.id)
        entry = offer.entry
        self.by_id[offer.id] = self.by_ref[entry.ref] = offer
        self.closed += not offer.is_open
        if offer.missing:
            return
        bisect.insort(self.kinds[entry.kind], offer, key=_age)
        self.named[_claim(entry.kind, entry.name)] = offer
        for alias in offer.aliases:
            self.aliased[_claim(entry.kind, alias)] = offer
        for index, claim in _claims(entry):
            getattr(self, index)[claim].append(offer)

    def drop(self, gone: UUID) -> None:
        offer = self.by_id.pop(gone, None)
        if offer is None:
            return
        entry = offer.entry
        # A name that was given on belongs to another one by now.
        _forget(self.by_ref, entry.ref, offer)
        self.closed -= not offer.is_open
        if offer.missing:
            return
        ordered = self.kinds[entry.kind]
        del ordered[bisect.bisect_left(ordered, offer.age, key=_age)]
        _forget(self.named, _claim(entry.kind, entry.name), offer)
        for alias in offer.aliases:
            _forget(self.aliased, _claim(entry.kind, alias), offer)
        for index, claim in _claims(entry):
            among = getattr(self, index)
            among[claim].remove(offer)
            if not among[claim]:
                del among[claim]


class Catalogue:
    """Hold the models that are offered to one reader, in the order in which they were first found."""

    def __init__(
        self, entries: Mapping[ModelRef, ModelEntry] = _NO_ENTRIES, missing: Collection[ModelRef] = frozenset()
    ) -> None:
        """Offer these entries to everyone."""
        self._index = _Index()
        self._reader = FLEET
        self._missing = frozenset(missing)
        for entry in entries.values():
            self.put(Offer(uuid4(), entry, _FIRST.replace(microsecond=len(self._index.by_id) % 1_000_000)))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Catalogue):
            return NotImplemented
        return list(self.entries.items()) == list(other.entries.items()) and self.missing == other.missing

    __hash__ = None  # type: ignore[assignment] # it changes

    def put(self, offer: Offer) -> None:
        """Take an entry in, in place of what had its id."""
        self._index.put(offer)

    def drop(self, gone: UUID) -> None:
        """Forget the entry of this id, if there is one."""
        self._index.drop(gone)

    def seen_by(self, reader: Reader) -> "Catalogue":
        """Return the same catalogue without what does not exist for this reader; it changes as this one does."""
        seen = copy(self)
        seen._reader = reader  # noqa: SLF001 - of its own class
        return seen

    @property
    def entries(self) -> Mapping[ModelRef, ModelEntry]:
        """Return what is offered by what names it exactly."""
        return _Entries(self._index, self._sees)

    @property
    def missing(self) -> AbstractSet[ModelRef]:
        """Return what is known but whose files are away."""
        away = {ref for ref, offer in self._index.by_ref.items() if offer.missing and self._sees(offer)}
        return self._missing | away

    def is_missing(self, ref: ModelRef) -> bool:
        """Tell whether exactly this is known and its files are away."""
        offer = self._index.by_ref.get(ref)
        return ref in self._missing or (offer is not None and offer.missing and self._sees(offer))

    def find(self, name: str, kind: Kind = Kind.CHECKPOINT) -> ModelEntry | None:
        """Return the entry of this name in any case.

        The name is a ref (`name`, `name@version`), a title (`name [hash]`, `name.safetensors [hash]`), a unique beginning of a fingerprint,
        an alias, or the name that versions have in common, which is the newest of them.
        """
        offer = self.offer(name, kind)
        return None if offer is None else offer.entry

    def offer(self, name: str, kind: Kind = Kind.CHECKPOINT) -> Offer | None:
        """Return what `find` finds, with who may use it and the weight it is used with."""
        exact = self._index.by_ref.get(ModelRef(kind, name))
        if exact is not None and not exact.missing and self._sees(exact):
            return exact
        return (
            self._titled(name, kind)
            or self._visible(self._index.aliased.get(_claim(kind, name)))
            or self._newest(kind, name)
        )

    def of_kind(self, kind: Kind) -> tuple[ModelEntry, ...]:
        """Return every model of a kind, the one known longest first."""
        return tuple(self.each_of(kind))

    def each_of(self, kind: Kind) -> Iterator[ModelEntry]:
        """Yield what `of_kind` returns, for those who need only the first few."""
        return (offer.entry for offer in self._index.kinds[kind] if self._sees(offer))

    def default(self) -> ModelEntry | None:
        """Return the model that draws when a request names none: the one known longest, so that adding models never changes it."""
        return next(filter(_draws_from_words, self.each_of(Kind.CHECKPOINT)), None)

    def embeddings_in(self, prompts: Iterable[str]) -> list[ModelEntry]:
        """Return the embeddings of whose names the first word stands in a prompt, in any case; those known longest first."""
        words = {word for prompt in prompts for word in _WORD.findall(prompt.casefold())}
        # What begins with a bracket has no first word.
        claims = ((Kind.EMBEDDING, word) for word in ("", *words))
        offers = {offer.id: offer for claim in claims for offer in self._index.worded.get(claim, ())}
        return [offer.entry for offer in sorted(offers.values(), key=_age) if self._sees(offer)]

    def _titled(self, name: str, kind: Kind) -> Offer | None:
        named = self._visible(self._index.named.get(_claim(kind, name)))
        if named is not None:
            return named
        parts = _TITLE.fullmatch(name)
        if parts is None:
            return None
        named = self._visible(self._index.named.get(_claim(kind, parts["name"])))
        if parts["hash"]:
            return named if named is not None and named.entry.fingerprint.startswith(parts["hash"].lower()) else None
        return named or self._hashed(kind, parts["name"].lower())

    def _hashed(self, kind: Kind, start: str) -> Offer | None:
        if len(start) < MIN_HASH:
            return None
        near = self._index.hashed.get((kind, start[:MIN_HASH]), ())
        matches = [offer for offer in near if offer.entry.fingerprint.startswith(start) and self._sees(offer)]
        return matches[0] if len(matches) == 1 else None

    def _newest(self, kind: Kind, name: str) -> Offer | None:
        versions = [offer for offer in self._index.versions.get(_claim(kind, name), ()) if self._sees(offer)]
        return max(
            versions, key=lambda offer: (version_order(split_ref(offer.entry.name)[1]), _age(offer)), default=None
        )

    def _visible(self, offer: Offer | None) -> Offer | None:
        return offer if offer is not None and self._sees(offer) else None

    def _sees(self, offer: Offer) -> bool:
        return self._index.closed == 0 or offer.is_for(self._reader)


class _Entries(Mapping[ModelRef, ModelEntry]):
    """Show the offered entries of an index as a mapping, without a copy."""

    def __init__(self, index: _Index, sees: Callable[[Offer], bool]) -> None:
        self._index = index
        self._sees = sees

    def __getitem__(self, ref: ModelRef) -> ModelEntry:
        offer = self._index.by_ref[ref]
        if offer.missing or not self._sees(offer):
            raise KeyError(ref)
        return offer.entry

    def __iter__(self) -> Iterator[ModelRef]:
        offers = (offer for offers in self._index.kinds.values() for offer in offers if self._sees(offer))
        return (offer.entry.ref for offer in sorted(offers, key=_age))

    def __len__(self) -> int:
        return sum(1 for _ in self)


def _claim(kind: Kind, name: str) -> _Claim:
    return kind, name.casefold()


def _claims(entry: ModelEntry) -> Iterable[tuple[str, _Claim]]:
    """Yield the indexes that hold several entries under one claim, and the claims of this entry there."""
    name, version = split_ref(entry.name)
    if version:
        yield "versions", _claim(entry.kind, name)
    yield "hashed", (entry.kind, entry.fingerprint[:MIN_HASH])
    if entry.kind is Kind.EMBEDDING:
        first = _WORD.match(entry.name.casefold())
        yield "worded", (entry.kind, first[0] if first else "")


def _forget(index: dict[Any, Offer], key: Any, offer: Offer) -> None:
    if index.get(key) is offer:
        del index[key]


def _draws_from_words(entry: ModelEntry) -> bool:
    """Tell whether a prompt is all that a checkpoint needs."""
    return "txt2img" in tasks_of(entry) and not facts_of(entry).reads_control


def _age(offer: Offer) -> tuple[datetime, int, str, str]:
    return offer.age
