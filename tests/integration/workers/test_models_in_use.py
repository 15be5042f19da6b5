"""What a running and a waiting job draw with stays as it is, by whatever way somebody would take it away."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from infra.storage import Storage, open_storage
from jobs.parts import Lora
from keeper.duties import tidy
from models_registry.content import content_key
from tests.integration.broker_api.conftest import World, serving
from tests.integration.workers.test_agent_life import GATED
from tests.integration.workers.yard import Yard
from tests.lora_file import lora_bytes

#: What the running, and what the waiting job names.
NAMES = ("hats", "caps")
ROWS = "select id, kind, name, fingerprint, sha256, files, stored_at, missing_since from models order by id"


@dataclass
class Library:
    """A yard whose library an admin changes over HTTP."""

    yard: Yard
    client: httpx.Client
    storage: Storage
    #: Entries of `NAMES` as they were once, with other files.
    archive: bytes = b""
    backup: str = ""
    ids: dict[str, str] = field(default_factory=dict)

    def add(self, name: str, value: float) -> None:
        """Upload a LoRA."""
        sent = self.client.post("/v1/adapters/upload", data={"name": name}, files={"file": ("x", lora_bytes(value))})
        assert sent.status_code == 201, sent.text
        self.ids[name] = sent.json()["id"]

    def rows(self) -> list[Any]:
        """Return what the library holds."""
        return self.yard.line.execute(ROWS).fetchall()

    def contents(self) -> set[str]:
        """Return what files are stored."""
        return {found.key for found in self.storage.list("models")}

    def forget(self) -> list[str]:
        """Forget the entries of `NAMES` as if their files were away, and return which were forgotten."""
        mine = [self.ids[name] for name in NAMES]
        self.yard.line.execute("update models set missing_since = now() where id = any (%s::uuid[])", (mine,))
        answer = self.client.post("/v1/library/missing/forget", json={"ids": mine})
        self.yard.line.execute("update models set missing_since = null where id = any (%s::uuid[])", (mine,))
        deleted: list[str] = answer.json()["deleted"]
        return deleted

    def replace(self, **options: str) -> httpx.Response:
        """Import the archive over what is there."""
        return self.client.post(
            "/v1/archives/import",
            params={"conflict": "replace", **options},
            content=self.archive,
            headers={"content-type": "application/zip"},
        )

    def restore(self) -> httpx.Response:
        """Bring the backup back."""
        return self.client.post(f"/v1/archives/backups/{self.backup}/restore")


@pytest.fixture
def library(yard: Yard) -> Iterator[Library]:
    """Return a library of LoRAs, each twice, with an archive and a backup of other files under the same names."""
    world = World(yard.database_url, yard.redis_url, yard.folder, yard.line, yard.redis)
    with serving(world) as live, live.client(world.key("ann", ("user", "admin"))) as client:
        made = Library(yard, client, open_storage(yard.storage.as_uri()))
        for place, name in enumerate(NAMES):
            made.add(name, 10.0 + place)
        exported = client.post("/v1/archives/export", json={"filter": {"own": True}, "files": "include"})
        made.archive = exported.content
        made.backup = client.post("/v1/archives/backups", json={"files": "include"}).json()["id"]
        for name in NAMES:
            assert client.delete(f"/v1/adapters/{made.ids[name]}").status_code == 204
        for place, name in enumerate(NAMES):
            made.add(name, 20.0 + place)
            made.add(f"{name}-twin", 20.0 + place)
        yield made


def test_entries_keep_their_files_until_the_jobs_that_name_them_have_ended(library: Library) -> None:
    """Each way is refused or leaves them out, changing nothing; the jobs succeed with their files, and then each way is open."""
    yard = library.yard
    yard.start_agent(module=GATED)
    running = yard.submit(loras=[Lora(name="hats")])
    waiting = yard.submit(loras=[Lora(name="caps")], route="gpu-24g", wakes=False)
    yard.until(lambda: any(key.startswith("jobs/") for key in yard.objects()), 60)
    before = library.rows()
    for name in NAMES:
        refuse_each_way(library, name)
    assert library.forget() == []
    refuse_import_and_restore(library)
    assert library.rows() == before
    assert (yard.state(running), yard.state(waiting)) == ("running", "queued")
    (yard.folder / "gate").touch()
    yard.line.execute("update jobs set hardware = 'cpu' where id = %s", (waiting,))
    yard.wake()
    for job in (running, waiting):
        yard.until_state(job, "succeeded", 60)
    allow_each_way(library)


def refuse_each_way(library: Library, name: str) -> None:
    """Try to delete, rename and sweep one entry."""
    client, which = library.client, library.ids[name]
    for answer in (
        client.delete(f"/v1/adapters/{which}"),
        client.patch(f"/v1/adapters/{which}", json={"name": "other"}),
        client.patch(f"/v1/adapters/{which}", json={"version": "2"}),
    ):
        assert (answer.status_code, answer.json()["code"]) == (409, "in_use"), answer.text
    many = client.post("/v1/adapters/bulk", json={"action": "delete", "ids": [library.ids[f"{name}-twin"], which]})
    assert (many.status_code, many.json()["code"]) == (409, "bulk_refused")
    kept = client.post("/v1/library/duplicates/keep", json={"id": library.ids[f"{name}-twin"]})
    assert (kept.status_code, kept.json()["deleted"]) == (200, [])
    # A key that came into the garbage by mistake is looked at once more.
    row = library.yard.line.execute("select sha256 from models where id = %s", (which,)).fetchone()
    assert row is not None
    key = content_key(row["sha256"])
    library.yard.line.execute("insert into garbage (key) values (%s)", (key,))
    tidy(library.yard.line, library.storage, 30)
    assert library.yard.line.execute("select from garbage where key = %s", (key,)).fetchall() == []
    assert key in library.contents()


def refuse_import_and_restore(library: Library) -> None:
    """Try to bring other files in under the names."""
    foreseen = library.replace(dry_run="true")
    assert foreseen.status_code == 200, foreseen.text
    told = {entry["ref"]: (entry["action"], entry["code"]) for entry in foreseen.json()["entries"]}
    assert told == dict.fromkeys(NAMES, ("refused", "in_use"))
    refused = library.replace()
    assert (refused.status_code, refused.json()["code"]) == (409, "import_refused"), refused.text
    blocked = library.restore()
    assert (blocked.status_code, blocked.json()["code"]) == (409, "restore_blocked"), blocked.text


def allow_each_way(library: Library) -> None:
    """Do all that was refused, now that nobody needs the entries."""
    client, ids = library.client, library.ids
    renamed = client.patch(f"/v1/adapters/{ids['hats']}", json={"name": "other"})
    assert renamed.status_code == 200, renamed.text
    assert client.patch(f"/v1/adapters/{ids['hats']}", json={"name": "hats"}).status_code == 200
    kept = client.post("/v1/library/duplicates/keep", json={"id": ids["hats"]})
    assert kept.json()["deleted"] == [ids["hats-twin"]]
    done = library.replace()
    assert done.status_code == 201, done.text
    assert {entry["action"] for entry in done.json()["entries"]} == {"replaced"}
    assert library.restore().status_code == 200
    rows = {row["name"]: str(row["id"]) for row in library.rows() if row["kind"] == "lora"}
    assert rows.keys() == set(NAMES)
    ids |= rows
    assert sorted(library.forget()) == sorted(rows.values())
    tidy(library.yard.line, library.storage, 30)
    assert library.contents() == set()
