"""The keeper's librarian: scans that were asked for, watching, hashes of large files, files for nodes."""

import asyncio
import threading
from pathlib import Path

import psycopg

from infra.database import CONNECT, Connection, connect
from infra.storage import open_storage
from keeper.librarian import Librarian, librarian
from models_registry.content import content_key
from models_registry.contents.stock import want
from models_registry.scanning.scans import LibraryScan, ask_for_scan, read_scan
from tests.tensor_files import write_tensors

LAYER = "lora_unet_mid_block_attentions_0_transformer_blocks_0_ff_net_2"
LARGE = {f"{LAYER}.lora_down.weight": (4, 900_000), f"{LAYER}.lora_up.weight": (900_000, 4)}


def ask(url: str, *, again: bool = False) -> LibraryScan:
    """Ask for a scan as the API does."""

    async def run() -> LibraryScan:
        async with await psycopg.AsyncConnection.connect(url, **CONNECT) as connection:
            return await ask_for_scan(connection, "ann", again=again)

    return asyncio.run(run())


def read(url: str, scan: LibraryScan) -> LibraryScan:
    """Read a scan as the API does."""

    async def run() -> LibraryScan:
        async with await psycopg.AsyncConnection.connect(url, **CONNECT) as connection:
            found = await read_scan(connection, scan.id)
            assert found is not None
            return found

    return asyncio.run(run())


def only(connection: Connection) -> dict[str, object]:
    """Return the only entry."""
    (row,) = connection.execute("select * from models").fetchall()
    return row


def test_librarian_does_what_is_asked_for_then_what_is_left(database_url: str, tmp_path: Path) -> None:
    """A scan, the hashes of what was too large for it, and storing what a node wants, in that order of urgency."""
    storage = open_storage((tmp_path / "storage").as_uri())
    path = write_tensors(tmp_path / "models/large.safetensors", LARGE)
    (tmp_path / "models/bad.safetensors").write_bytes(b"bad")
    work = Librarian(database_url, storage, [tmp_path / "models"], 0, threading.Event())
    with connect(database_url, application_name="test") as connection:
        assert not work.work_once(connection)
        asked = ask(database_url)
        assert (asked.state, work.work_once(connection)) == ("queued", True)
        done = read(database_url, asked)
        assert (done.state, done.seen, done.opened) == ("done", 2, 2)
        assert done.report is not None
        assert [entry.ref for entry in done.report.added] == ["large"]
        assert [(refused.code, refused.path) for refused in done.report.refused] == [
            ("not_safetensors", str(tmp_path / "models/bad.safetensors"))
        ]
        row = only(connection)
        assert row["sha256"] is None
        assert work.work_once(connection)
        sha256 = only(connection)["sha256"]
        assert isinstance(sha256, str)
        assert not work.work_once(connection)
        want(connection, row["id"])  # type: ignore[arg-type]
        assert work.work_once(connection)
        assert storage.head(content_key(sha256)).size == path.stat().st_size
        assert (only(connection)["wanted_at"], only(connection)["stored_at"] is not None) == (None, True)


def test_librarian_takes_back_what_turns_out_to_hold_a_nan(database_url: str, tmp_path: Path) -> None:
    """What a scan does not read whole is judged when its hash is computed; later scans know."""
    path = write_tensors(tmp_path / "models/large.safetensors", LARGE)
    with path.open("r+b") as file:
        file.seek(-7_000_002, 2)
        file.write(b"\x01\x7e")
    work = Librarian(database_url, open_storage("memory:///"), [tmp_path / "models"], 0, threading.Event())
    with connect(database_url, application_name="test") as connection:
        ask(database_url)
        assert work.work_once(connection)
        assert only(connection)["missing_since"] is None
        assert work.work_once(connection)
        row = only(connection)
        assert row["missing_since"] is not None
        assert "not a number" in str(row["damage"])
        again = ask(database_url)
        work.work_once(connection)
        report = read(database_url, again).report
        assert report is not None
        assert [refused.code for refused in report.refused] == ["not_a_number"]
        assert only(connection)["missing_since"] is not None


def test_librarian_watches(database_url: str, tmp_path: Path) -> None:
    """A file that is put into a folder becomes an entry without a word; a scan whose keeper has died is done anew."""
    (tmp_path / "models").mkdir()
    asked = ask(database_url)
    stop, seen = threading.Event(), threading.Event()
    with connect(database_url, application_name="test") as connection:
        connection.execute("update model_scans set state = 'running'")
        with librarian(database_url, open_storage("memory:///"), [tmp_path / "models"], 0.05, stop):
            write_tensors(tmp_path / "models/word.safetensors", {"emb_params": (2, 16)})
            for _ in range(400):
                if connection.execute("select from models").fetchall() and read(database_url, asked).state == "done":
                    seen.set()
                    break
                seen.wait(0.05)
        assert seen.is_set()
