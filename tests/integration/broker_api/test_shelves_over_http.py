"""What admins do about model folders and stored bytes."""

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from client.client import Client
from infra.database import Connection, connect
from keeper.duties import tidy
from keeper.librarian import Librarian
from models_registry.content import content_key
from models_registry.contents.shelving import Wanted, take_in
from models_registry.pins import pin
from tests.tensor_files import write_tensors

UNKNOWN = "01990000-0000-7000-8000-000000000000"


@pytest.fixture
def client(world: Any, start_server: Any) -> Iterator[httpx.Client]:
    """Return an admin's client."""
    with start_server() as live, live.client(world.key("root", ["admin"])) as opened:
        yield opened


@pytest.fixture
def line(world: Any) -> Iterator[Connection]:
    """Open a connection to look at the tables with."""
    with connect(world.database_url, application_name="test") as opened:
        yield opened


def test_scan_is_asked_for_and_followed(client: httpx.Client, world: Any, line: Connection, tmp_path: Path) -> None:
    """The API writes it down, a keeper does it, its report says what it found."""
    write_tensors(tmp_path / "models/word.safetensors", {"emb_params": (2, 16)})
    asked = client.post("/v1/library/scans", json={})
    assert (asked.status_code, asked.json()["state"]) == (202, "queued")
    Librarian(world.database_url, world.storage, [tmp_path / "models"], 0, threading.Event()).work_once(line)
    done = client.get(asked.headers["location"]).json()
    assert (done["state"], done["seen"], done["opened"]) == ("done", 1, 1)
    assert done["report"]["added"] == [{"kind": "embedding", "ref": "word"}]
    assert client.get(f"/v1/library/scans/{UNKNOWN}").status_code == 404


def test_missing_entries_are_listed_and_forgotten(client: httpx.Client, line: Connection, tmp_path: Path) -> None:
    """Page by page; only what is missing and unpinned is deleted."""
    taken = [
        take_in(line, write_tensors(tmp_path / "word", {"emb_params": (2 + each, 16)}), Wanted(f"word {each}"), storage=None)
        for each in range(4)
    ]  # fmt: skip
    line.execute("update models set missing_since = now() where name in ('word 0', 'word 1', 'word 2')")
    first = client.get("/v1/library/missing?limit=2").json()
    second = client.get(f"/v1/library/missing?limit=2&cursor={first['next_cursor']}").json()
    assert {item["ref"] for item in first["items"] + second["items"]} == {"word 0", "word 1", "word 2"}
    assert second["next_cursor"] is None
    pin(line, [taken[1].id], "a job", 60)
    asked = {"ids": [str(each.id) for each in taken] + [UNKNOWN]}
    deleted = client.post("/v1/library/missing/forget", json=asked).json()["deleted"]
    assert set(deleted) == {str(taken[0].id), str(taken[2].id)}
    assert client.get("/v1/library/missing?cursor=x").json()["code"] == "cursor_invalid"


def test_duplicates_are_found_by_content_and_one_is_kept(
    client: httpx.Client, line: Connection, tmp_path: Path
) -> None:
    """The others leave their names to the one that stays."""
    path = write_tensors(tmp_path / "word", {"emb_params": (2, 16)})
    taken = [take_in(line, path, Wanted(name), storage=None) for name in ("one", "two", "three")]
    take_in(line, write_tensors(tmp_path / "other", {"emb_params": (3, 16)}), Wanted("other"), storage=None)
    (found,) = client.get("/v1/library/duplicates").json()["items"]
    assert (found["sha256"], [each["ref"] for each in found["entries"]]) == (taken[0].sha256, ["one", "two", "three"])
    kept = client.post("/v1/library/duplicates/keep", json={"id": str(taken[1].id)})
    assert set(kept.json()["deleted"]) == {str(taken[0].id), str(taken[2].id)}
    assert client.get("/v1/library/duplicates").json()["items"] == []
    aliases = line.execute("select alias from model_aliases where model = %s order by alias", (taken[1].id,)).fetchall()
    assert [row["alias"] for row in aliases] == ["one", "three"]
    assert client.post("/v1/library/duplicates/keep", json={"id": UNKNOWN}).status_code == 404


def test_orphans_are_listed_and_left_to_the_keeper(
    client: httpx.Client, world: Any, line: Connection, tmp_path: Path
) -> None:
    """What an entry has is none, and what has just come may still become one."""
    path = write_tensors(tmp_path / "word", {"emb_params": (2, 16)})
    shelved = take_in(line, path, Wanted("word"), storage=world.storage)
    orphan, fresh = "0" * 64, "1" * 64
    for sha256 in (orphan, fresh):
        world.storage.put(content_key(sha256), b"nobody's")
    folder = Path(world.settings.storage.removeprefix("file://"))
    for sha256 in (orphan, shelved.sha256):
        os.utime(folder / content_key(sha256), (time.time() - 7200,) * 2)
    found = client.get("/v1/library/orphans").json()
    assert [(item["sha256"], item["bytes"]) for item in found["items"]] == [(orphan, 8)]
    assert client.post("/v1/library/orphans/remove").json() == {"removed": 1}
    tidy(line, world.storage, 30)
    left = {each.key for each in world.storage.list("models")}
    assert left == {content_key(shelved.sha256), content_key(fresh)}


def test_shelves_are_for_admins(world: Any, client: httpx.Client) -> None:
    """Paths on a host are not everyone's to see."""
    user = {"authorization": f"Bearer {world.key('ann')}"}
    for path in ("missing", "orphans", "duplicates"):
        assert client.get(f"/v1/library/{path}", headers=user).status_code == 403
    assert client.post("/v1/library/scans", json={}, headers=user).status_code == 403


def test_client_settles_what_it_finds(world: Any, start_server: Any, line: Connection, tmp_path: Path) -> None:
    """The typed client understands every answer about the shelves."""
    path = write_tensors(tmp_path / "word", {"emb_params": (2, 16)})
    taken = [take_in(line, path, Wanted(name), storage=None) for name in ("one", "two", "three")]
    with start_server() as live, Client(live.url, world.key("root", ["admin"])) as client:
        assert [len(each.entries) for each in client.shelves.duplicates().items] == [3]
        line.execute("update models set missing_since = now() where name = 'three'")
        (away,) = client.shelves.missing().items
        assert client.shelves.forget([away.id]).deleted == [taken[2].id]
        assert client.shelves.keep(taken[0].id).deleted == [taken[1].id]
        assert client.shelves.orphans().items == []
        assert client.shelves.remove_orphans().removed == 0
