"""What is offered is found by every name it has, by those for whom it exists, and changes in place."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models_registry.entries import Kind, ModelEntry, ModelRef
from models_registry.offers import Catalogue, Offer
from models_registry.records import Reader
from tests.library_entries import entry

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
ANN, BOB, ADMIN = Reader("ann", "k1"), Reader("bob", "k2"), Reader("root", "k3", is_admin=True)


def offer(name: str, kind: Kind = Kind.LORA, *, after: int = 0, **changes: Any) -> Offer:
    """Make an offer that was found so many seconds after the beginning."""
    made = entry(name, kind, fingerprint=f"{name.encode().hex():0<64}")
    values: dict[str, Any] = {"id": uuid4(), "entry": made, "found_at": BEGIN + timedelta(seconds=after)}
    return Offer(**(values | changes))


def catalogue(*offers: Offer) -> Catalogue:
    """Make a catalogue of offers."""
    made = Catalogue()
    for each in offers:
        made.put(each)
    return made


def name_of(entry: ModelEntry | None) -> str | None:
    """Return the name of what was found."""
    return None if entry is None else entry.name


def test_a_name_alone_is_its_newest_version() -> None:
    """By version, not by age; the one without a version is meant by its exact name; those that are away do not count."""
    made = catalogue(
        offer("dusk@v10"), offer("dusk@v9", after=1), offer("dusk@v11", missing=True), offer("dawn@v2"), offer("dawn")
    )
    assert name_of(made.find("DUSK", Kind.LORA)) == "dusk@v10"
    assert name_of(made.find("dusk@V9", Kind.LORA)) == "dusk@v9"
    assert name_of(made.find("dawn", Kind.LORA)) == "dawn"
    assert made.find("dusk@v11", Kind.LORA) is made.find("dusk", Kind.VAE) is None
    assert made.is_missing(ModelRef(Kind.LORA, "dusk@v11"))


def test_an_alias_finds_its_entry() -> None:
    """In any case, and only where nothing has the name itself."""
    made = catalogue(offer("dusk", aliases=("night", "dawn")), offer("dawn"))
    assert name_of(made.find("Night", Kind.LORA)) == "dusk"
    assert name_of(made.find("dawn", Kind.LORA)) == "dawn"


@pytest.mark.parametrize(
    ("changes", "seen"),
    [
        ({}, {"ann", "bob", "root"}),
        ({"owner": "ann"}, {"ann", "bob", "root"}),
        ({"owner": "ann", "is_public": False}, {"ann", "root"}),
        ({"owner": "ann", "allowed_keys": frozenset({"k2"})}, {"ann", "bob", "root"}),
        ({"allowed_keys": frozenset({"k9"})}, {"root"}),
        ({"owner": "ann", "is_public": False, "allowed_keys": frozenset({"k2"})}, {"ann", "root"}),
    ],
)
def test_an_offer_exists_for_those_who_may_use_it(changes: dict[str, Any], seen: set[str]) -> None:
    """By every name and in every list; for the others it is as if it were not there."""
    hidden = offer("dusk@v2", Kind.CHECKPOINT, aliases=("night",), **changes)
    made = catalogue(hidden, offer("dusk@v1", Kind.CHECKPOINT, after=1))
    for reader in (ANN, BOB, ADMIN):
        mine = made.seen_by(reader)
        found = {name_of(mine.find(name)) for name in ("dusk@v2", "dusk", "night", hidden.entry.title)}
        assert (found == {"dusk@v2"}) is (reader.owner in seen)
        assert ("dusk@v2" in found) is (reader.owner in seen)
        assert (hidden.entry in mine.of_kind(Kind.CHECKPOINT)) is (reader.owner in seen)
        assert (hidden.entry.ref in mine.entries) is (reader.owner in seen)
        assert name_of(mine.default()) == ("dusk@v2" if reader.owner in seen else "dusk@v1")


def test_default_of_models_found_together_is_the_least_demanding() -> None:
    """A first scan finds everything at once: then no name decides, and nothing that wants more than a prompt is taken."""

    def found(name: str, family: str, variant: str) -> Offer:
        made = offer(name, Kind.CHECKPOINT)
        return replace(made, entry=made.entry.model_copy(update={"family": family, "variant": variant}))

    picky = (found("a", "sdxl", "refiner"), found("b", "flux", "depth"), found("c", "sd15", "inpaint"))
    large, small = found("d", "flux", "dev"), found("e", "sd15", "base")
    assert catalogue(*picky).default() is None
    assert catalogue(*picky, large).default() == large.entry
    assert catalogue(*picky, large, small).default() == small.entry


def test_a_missing_private_offer_is_unknown_to_others() -> None:
    """That its files are away is nobody else's business."""
    made = catalogue(offer("dusk", owner="ann", is_public=False, missing=True))
    ref = ModelRef(Kind.LORA, "dusk")
    assert made.seen_by(ANN).is_missing(ref)
    assert not made.seen_by(BOB).is_missing(ref)
    assert made.seen_by(BOB).missing == set()


def test_embeddings_are_looked_for_by_the_words_of_a_prompt() -> None:
    """Only those whose name could stand there are looked at."""
    names = ("by night", "night", "(odd)", "by-day", "other")
    made = catalogue(*(offer(name, Kind.EMBEDDING, after=place) for place, name in enumerate(names)))
    found = [entry.name for entry in made.embeddings_in(["a frame BY night"])]
    assert found == ["by night", "night", "(odd)"]


_CHANGES = st.lists(
    st.tuples(
        st.integers(0, 5),
        st.none()
        | st.tuples(
            st.sampled_from(["a", "A", "b", "a@v1", "a@v2"]), st.booleans(), st.sampled_from([(), ("x",), ("y",)])
        ),
    ),
    max_size=30,
)


@given(_CHANGES)
def test_changes_in_place_equal_a_new_catalogue(
    changes: list[tuple[int, tuple[str, bool, tuple[str, ...]] | None]],
) -> None:
    """However entries are added, renamed, hidden and dropped, what is found is what a catalogue of the same entries finds."""
    made, kept = Catalogue(), dict[int, Offer]()
    for which, change in changes:
        if change is None:
            made.drop(UUID(int=which))
            kept.pop(which, None)
            continue
        name, missing, aliases = change
        taken = {(each.entry.name.casefold()) for place, each in kept.items() if place != which}
        used = {alias for place, each in kept.items() if place != which for alias in each.aliases}
        if name.casefold() in taken or used & set(aliases):
            continue
        kept[which] = offer(name, after=which, id=UUID(int=which), missing=missing, aliases=aliases)
        made.put(kept[which])
    fresh = catalogue(*kept.values())
    assert made == fresh
    for name in ("a", "A", "b", "a@v1", "a@v2", "x", "y", "616161"):
        assert made.find(name, Kind.LORA) == fresh.find(name, Kind.LORA)
