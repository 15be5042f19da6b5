"""Hostile files and archives sent over HTTP are refused, each with its code, at little cost, and nothing of them is left."""

import hashlib
import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from models_registry.archives.manifest import file_member
from models_registry.archives.writing import About, Member, write_archive
from tests.hostile_files import MIB, write_hostile
from tests.integration.broker_api.library.test_archives import stored
from tests.unit.models_registry.archives.test_hostile_archives import HOSTILE

__all__ = ["stored"]

ZIP = {"content-type": "application/zip"}
#: Besides what was sent: a header, and what any request reads.
MOST_READ = 9 * MIB


class Sender:
    """Send to an API in a process of its own, and see what it did for it."""

    def __init__(self, world: Any, process: psutil.Process, client: httpx.Client) -> None:
        self.world = world
        self.process = process
        self.client = client
        self.before = self.state()

    def upload(self, data: bytes, path: str = "/v1/adapters/upload") -> httpx.Response:
        """Send a file in a form."""
        return self.client.post(path, data={"name": "hats"}, files={"file": ("x.safetensors", data)})

    def bring(self, archive: bytes, *, dry: bool) -> httpx.Response:
        """Send an archive."""
        return self.client.post("/v1/archives/import", params={"dry_run": dry}, content=archive, headers=ZIP)

    def state(self) -> Any:
        """Return all rows, objects and files that an upload could leave."""
        rows = self.world.connection.execute("select id, name, changed_at from models order by id").fetchall()
        rows += self.world.connection.execute("select key from garbage").fetchall()
        files = [
            path for name in ("incoming", "passing") for path in (self.world.home / name).rglob("*") if path.is_file()
        ]
        return rows, {found.key for found in self.world.storage.list() if not found.key.startswith("probe")}, files

    def read(self) -> int:
        """Return the bytes that the process has read, of sockets and of files."""
        return int(self.process.io_counters().read_chars)

    def forget_peak(self) -> int:
        """Let the peak of the memory begin at what is in use now, and return that."""
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5", encoding="ascii")
        return self.peak()

    def peak(self) -> int:
        """Return the most memory it had in use, bytes."""
        status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii")
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024


@pytest.fixture
def sender(stored: Any, server: Any) -> Iterator[Sender]:
    """Return a way to send to an API that has a small library."""
    process, url = server
    headers = {"authorization": f"Bearer {stored.key('ann', ('user', 'admin'))}"}
    with httpx.Client(base_url=url, headers=headers, trust_env=False, timeout=60) as client:
        yield Sender(stored, psutil.Process(process.pid), client)


@pytest.fixture
def contents(tmp_path: Path) -> dict[str, tuple[bytes, str]]:
    """Return what can be sent of the hostile files, with the codes; links, pipes, and files that are holes of 900 MiB cannot."""
    folder = tmp_path / "hostile"
    folder.mkdir()
    codes = write_hostile(folder)
    return {
        path.stem: (path.read_bytes(), codes[path.name])
        for path in folder.iterdir()
        if path.is_file() and not path.is_symlink() and path.stat().st_size <= 64 * MIB
    }


def archive_of(template: dict[str, Any], contents: dict[str, bytes]) -> bytes:
    """Return an archive of entries with these files."""
    rows = []
    for number, (name, data) in enumerate(contents.items()):
        digest = hashlib.sha256(data).hexdigest()
        file = {"path": "x.safetensors", "bytes": len(data), "mtime_ns": 0, "sha256": digest}
        called = {"id": f"01990000-0000-7000-8000-{number:012}", "ref": name, "name": name, "version": ""}
        rows.append(template | called | {"kind": "embedding", "sha256": digest, "fingerprint": digest, "files": [file]})
    lines = "".join(f"{json.dumps(row)}\n" for row in rows).encode()
    members = [Member("entries.jsonl", lambda: iter([lines]))]
    files = {file_member(hashlib.sha256(data).hexdigest()): data for data in contents.values()}
    members += [Member(name, lambda data=data: iter([data])) for name, data in files.items()]  # type: ignore[misc]
    return b"".join(write_archive(members, About("export", "include", len(rows), 0)))


def test_hostile_files_and_archives_are_refused_over_http(
    sender: Sender, contents: dict[str, tuple[bytes, str]]
) -> None:
    """As uploads and in archives, tried and for real; the process reads no more than a header of each, stays small, and keeps nothing."""
    archives = {name: (make(), code) for name, (make, code) in HOSTILE.items()}
    assert len(contents) >= 60
    begun = sender.forget_peak()
    refuse_files(sender, contents)
    refuse_archives(sender, archives)
    assert sender.peak() - begun < 256 * MIB
    assert sender.state() == sender.before


def refuse_files(sender: Sender, contents: dict[str, tuple[bytes, str]]) -> None:
    """Send each file as an upload and as a member of an archive, and all of them in one to be looked at."""
    exported = sender.client.post("/v1/archives/export", json={"filter": {"own": True}}).content
    with zipfile.ZipFile(io.BytesIO(exported)) as archive:
        template = json.loads(archive.read("entries.jsonl"))
    together = archive_of(template, {name: data for name, (data, _) in contents.items()})
    for name, (data, code) in contents.items():
        read = sender.read()
        refused = sender.upload(data)
        assert (name, refused.status_code, refused.json()["code"]) == (name, 422, code)
        assert sender.read() - read - len(data) <= MOST_READ, name
        assert str(sender.world.home) not in refused.text
        single = sender.bring(archive_of(template, {name: data}), dry=False)
        assert (name, single.status_code, single.json()["code"]) == (name, 409, "import_refused")
        assert f"({code})" in single.json()["detail"]
    foreseen = sender.bring(together, dry=True)
    assert foreseen.status_code == 200, foreseen.text
    assert {entry["ref"]: (entry["action"], entry["code"]) for entry in foreseen.json()["entries"]} == {
        name: ("refused", code) for name, (_, code) in contents.items()
    }


def refuse_archives(sender: Sender, archives: dict[str, tuple[bytes, str]]) -> None:
    """Send each archive, to be looked at and to be imported."""
    for name, (data, code) in archives.items():
        for dry in (True, False):
            refused = sender.bring(data, dry=dry)
            status = 413 if code == "archive_too_large" else 422
            assert (name, refused.status_code, refused.json()["code"]) == (name, status, code)
