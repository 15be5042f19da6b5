"""One entry of the library: added once, found by every name it has, changed, deleted unless it is pinned."""

from typing import Any
from uuid import uuid4

import pytest

from infra.database import Connection, connect
from models_registry import pins
from models_registry.entries import Kind
from models_registry.library import (
    EntryInUse,
    RefAmbiguous,
    RefTaken,
    create_entry,
    delete_entry,
    read_entry,
    update_entry,
)
from models_registry.records import Facts, File, Reader
from tests.library_entries import entry


@pytest.fixture
def connection(database_url: str) -> Any:
    """Connect to a database of the test's own."""
    with connect(database_url, application_name="test") as opened:
        yield opened


def test_an_entry_is_read_as_it_was_added(connection: Connection) -> None:
    """Everything comes back, and what a job needs of it is the model that was given."""
    file = File(path=".", bytes=1000, mtime_ns=2**60, sha256="cd" * 32)
    facts = Facts(
        owner="ann", visibility="private", allowed_keys=("k1",), description="a dusk", tags=("style", "dark"), weight=0.7,
        hashes={"autov2": "cdcdcdcdcd"}, files=(file,), metadata={"ss_dim": "4"}, sha256="cd" * 32, aliases=("night",),
    )  # fmt: skip
    model = entry("dusk@v2", rank=4)
    made = create_entry(connection, model, facts)
    found = read_entry(connection, made)
    assert found is not None
    assert (found.ref, found.name, found.version, found.bytes) == ("dusk@v2", "dusk", "v2", 1000)
    assert found.model == model
    assert (found.files, found.metadata, found.aliases) == ((file,), {"ss_dim": "4"}, ("night",))
    for name in ("owner", "visibility", "allowed_keys", "description", "tags", "weight", "hashes", "sha256"):
        assert getattr(found, name) == getattr(facts, name)


def test_the_same_name_and_version_is_refused(connection: Connection) -> None:
    """In any case, within one kind; another version or kind is another entry."""
    create_entry(connection, entry("dusk@v1"))
    with pytest.raises(RefTaken):
        create_entry(connection, entry("Dusk@V1"))
    create_entry(connection, entry("dusk@v2"))
    create_entry(connection, entry("dusk@v1", Kind.EMBEDDING))
    with pytest.raises(RefTaken):
        create_entry(connection, entry("dawn"), Facts(aliases=("a", "A")))
    assert read_entry(connection, "dawn") is None, "nothing of a refused entry stays"


def test_an_entry_is_found_by_each_of_its_names(connection: Connection) -> None:
    """The exact ref first, then an alias, then the name for its newest version whose files are there."""
    old = create_entry(connection, entry("dusk@v2"), Facts(aliases=("night",)))
    new = create_entry(connection, entry("dusk@v10"))
    gone = create_entry(connection, entry("dusk@v11"))
    connection.execute("update models set missing_since = now() where id = %s", (gone,))
    for name, expected in (("DUSK@v2", old), ("Night", old), ("dusk", new), ("dusk@v11", gone)):
        found = read_entry(connection, name)
        assert found is not None
        assert found.id == expected
    assert read_entry(connection, "dusk@v3") is None
    assert read_entry(connection, uuid4()) is None
    create_entry(connection, entry("night", Kind.EMBEDDING))
    found = read_entry(connection, "night")
    assert found is not None
    assert found.kind is Kind.EMBEDDING, "a name comes before an alias"
    create_entry(connection, entry("night", Kind.VAE))
    with pytest.raises(RefAmbiguous):
        read_entry(connection, "night")


def test_an_entry_exists_for_those_who_may_use_it(connection: Connection) -> None:
    """A private one for its owner and admins, one with allowed keys for those keys besides."""
    private = create_entry(connection, entry("mine"), Facts(owner="ann", visibility="private"))
    keyed = create_entry(connection, entry("keyed"), Facts(owner="ann", allowed_keys=("k1",)))
    for reader, sees in (
        (Reader("ann", "k9"), {private, keyed}),
        (Reader("bob", "k1"), {keyed}),
        (Reader("bob", "k2"), set()),
        (Reader("bob", "k2", is_admin=True), {private, keyed}),
    ):
        found = {which for which in (private, keyed) if read_entry(connection, which, reader=reader) is not None}
        assert found == sees
        named = {name for name in ("mine", "keyed") if read_entry(connection, name, reader=reader) is not None}
        assert len(named) == len(sees)


def test_an_entry_is_changed_whole_or_not(connection: Connection) -> None:
    """A refused name or alias leaves the rest as it was."""
    made = create_entry(connection, entry("dusk"))
    create_entry(connection, entry("dawn"), Facts(aliases=("morning",)))
    assert update_entry(connection, made, {"tags": ["a"]}, ref="dusk@v1", aliases=["night"])
    for refused in ({"ref": "DAWN"}, {"aliases": ["Morning"]}):
        with pytest.raises(RefTaken):
            update_entry(connection, made, {"tags": ["b"]}, **refused)
    found = read_entry(connection, made)
    assert found is not None
    assert (found.ref, found.aliases, found.tags) == ("dusk@v1", ("night",), ("a",))
    assert not update_entry(connection, uuid4(), {"tags": []})
    with pytest.raises(KeyError):
        update_entry(connection, made, {"kind": "vae"})


def test_a_pinned_entry_is_not_deleted(connection: Connection) -> None:
    """A pin holds it until it is taken back or its time is over; what does not exist cannot be pinned."""
    made = create_entry(connection, entry("dusk"), Facts(aliases=("night",)))
    assert pins.pin(connection, [made, uuid4()], "job", 60) == {made}
    with pytest.raises(EntryInUse):
        delete_entry(connection, made)
    assert read_entry(connection, made) is not None
    pins.unpin(connection, "job")
    pins.pin(connection, [made], "other", 60)
    connection.execute("update model_pins set until = now()")
    assert delete_entry(connection, made), "a pin whose time is over holds nothing"
    assert not delete_entry(connection, made)
    assert read_entry(connection, "night") is None


def test_expired_pins_are_dropped(connection: Connection) -> None:
    """Only those; and a later pin of the same holder lengthens, never shortens."""
    made = create_entry(connection, entry("dusk"))
    pins.pin(connection, [made], "a", 3600)
    pins.pin(connection, [made], "a", 1)
    pins.pin(connection, [made], "b", 0)
    assert pins.expire(connection) == 1
    left = connection.execute("select holder, until > now() + interval '1 minute' as long from model_pins").fetchall()
    assert [(row["holder"], row["long"]) for row in left] == [("a", True)]
