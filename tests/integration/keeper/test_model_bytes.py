"""The bytes of models leave the storage after the last entry that has them, and not before."""

from pathlib import Path

from infra.database import Connection, connect
from infra.storage import open_storage
from keeper.duties import tidy
from models_registry.content import content_key
from models_registry.contents.shelving import Wanted, take_in
from models_registry.library import delete_entry, update_entry
from tests.tensor_files import write_tensors

SHAPES = {"emb_params": (2, 16)}


def test_bytes_leave_with_the_last_entry_that_has_them(database_url: str, tmp_path: Path) -> None:
    """Two entries share an object; it goes with the second, whichever statement deletes it."""
    storage = open_storage((tmp_path / "storage").as_uri())
    path = write_tensors(tmp_path / "word", SHAPES)
    with connect(database_url, application_name="test") as connection:
        first = take_in(connection, path, Wanted("one"), storage=storage)
        second = take_in(connection, path, Wanted("two"), storage=storage)
        key = content_key(first.sha256)
        assert first.sha256 == second.sha256
        delete_entry(connection, first.id)
        assert _garbage(connection) == [key]
        tidy(connection, storage, 30)
        assert (_garbage(connection), storage.head(key).size) == ([], path.stat().st_size)
        delete_entry(connection, second.id)
        tidy(connection, storage, 30)
        assert (_garbage(connection), list(storage.list())) == ([], [])


def test_bytes_that_come_again_stay(database_url: str, tmp_path: Path) -> None:
    """An entry made while its bytes wait to be removed keeps them."""
    storage = open_storage((tmp_path / "storage").as_uri())
    path = write_tensors(tmp_path / "word", SHAPES)
    with connect(database_url, application_name="test") as connection:
        first = take_in(connection, path, Wanted("one"), storage=storage)
        delete_entry(connection, first.id)
        again = take_in(connection, path, Wanted("one"), storage=storage)
        assert _garbage(connection) == []
        tidy(connection, storage, 30)
        assert storage.head(content_key(again.sha256)).size == path.stat().st_size


def test_bytes_of_replaced_files_leave(database_url: str, tmp_path: Path) -> None:
    """An entry whose files are others now, or are not kept in storage any more, lets go of the old bytes."""
    storage = open_storage((tmp_path / "storage").as_uri())
    path = write_tensors(tmp_path / "word", SHAPES)
    with connect(database_url, application_name="test") as connection:
        shelved = take_in(connection, path, Wanted("one"), storage=storage)
        update_entry(connection, shelved.id, {"description": "Nothing about files."})
        assert _garbage(connection) == []
        update_entry(connection, shelved.id, {"stored_at": None})
        assert _garbage(connection) == [content_key(shelved.sha256)]
        tidy(connection, storage, 30)
        assert list(storage.list()) == []


def _garbage(connection: Connection) -> list[str]:
    return [row["key"] for row in connection.execute("select key from garbage").fetchall()]
