"""Workers draw with models whose files are not on their host: they take them from storage, by content."""

import shutil
from pathlib import Path

import pytest

from infra.storage import Storage, open_storage
from models_registry.content import content_key
from models_registry.contents.shelving import Wanted, take_in
from models_registry.contents.storing import store_next
from models_registry.scanning.scan import scan
from tests.integration.workers.yard import ROOT, Yard


@pytest.fixture
def folder() -> Path:
    """Return a small real checkpoint; never change it."""
    return ROOT / "reference_models/shapes-sd15"


@pytest.fixture
def storage(yard: Yard) -> Storage:
    """Return the yard's storage."""
    return open_storage(yard.storage.as_uri())


def cached(yard: Yard) -> list[Path]:
    """Return the objects in this host's cache."""
    objects = yard.folder / "cache/models/objects"
    return list(objects.iterdir()) if objects.is_dir() else []


def store(yard: Yard, storage: Storage) -> bool:
    """Do what the keeper does for nodes; return whether something was asked for."""
    return store_next(yard.line, storage, ()) is not None


def test_agent_draws_with_a_model_that_is_not_on_its_host(yard: Yard, storage: Storage, folder: Path) -> None:
    """It asks for the files, gets them once the keeper has stored them, and draws what a worker beside the folder draws."""
    own = Path(shutil.copytree(folder, yard.folder / "models/tiny"))
    scan(yard.line, [own.parent])
    away = own.rename(yard.folder / "away")
    yard.start_agent(engine="local", threads=1)
    job = yard.submit(model="tiny", steps=2)
    wanted = "select from models where wanted_at is not null"
    yard.until(lambda: yard.line.execute(wanted).fetchone() is not None, 60)
    assert (yard.state(job), cached(yard)) == ("running", [])
    # The keeper's host has the folder; for the worker it is not there again before the files are stored and it is gone anew.
    away.rename(own)
    assert store(yard, storage)
    shutil.rmtree(own)
    yard.until_state(job, "succeeded", 120)
    row = yard.row(job)
    assert (row["attempts"], row["losses"]) == (0, 0)
    assert {path.name for path in cached(yard)} == {found.key.rpartition("/")[2] for found in storage.list("models")}
    again = yard.submit(model="tiny", steps=2)
    yard.until_state(again, "succeeded", 60)
    assert yard.images(again)[0]["sha256"] == yard.images(job)[0]["sha256"]
    yard.until(lambda: yard.loads() == 1)


def test_agents_of_one_host_fetch_a_model_once(yard: Yard, storage: Storage, folder: Path) -> None:
    """The second finds it in the cache that they share, also when storage has it no more."""
    shelved = take_in(yard.line, folder, Wanted("tiny"), storage=storage)
    yard.start_agent(0)
    first = yard.submit(model="tiny")
    yard.until_state(first, "succeeded", 60)
    assert cached(yard)
    for found in list(storage.list("models")):
        storage.delete(found.key)
    yard.agents[0].end()
    yard.start_agent(1)
    second = yard.submit(model="tiny")
    yard.until_state(second, "succeeded", 60)
    assert "model_fetched" in yard.agents[1].said()
    assert yard.line.execute("select damage from models where id = %s", (shelved.id,)).fetchone() == {"damage": None}


def test_agent_refuses_a_damaged_object_and_marks_its_entry(yard: Yard, storage: Storage, folder: Path) -> None:
    """The job fails with the reason, the entry is offered no more, and the worker draws on."""
    shelved = take_in(yard.line, folder, Wanted("tiny"), storage=storage)
    key = (
        content_key(shelved.entry.path.name)
        if folder.is_file()
        else max(storage.list("models"), key=lambda found: found.size).key
    )
    data = storage.get(key)
    storage.delete(key)
    storage.put(key, data[:-1])
    yard.start_agent()
    job = yard.submit(model="tiny")
    yard.until_state(job, "failed", 60)
    assert yard.row(job)["error_code"] == "model_damaged"
    row = yard.line.execute("select damage, missing_since is not null as away from models where id = %s", (shelved.id,))
    found = row.fetchone()
    assert found is not None
    assert (key.rpartition("/")[2] in found["damage"], found["away"]) == (True, True)
    following = yard.submit()
    yard.until_state(following, "succeeded")


def test_cancel_ends_a_job_whose_model_is_on_its_way(yard: Yard, folder: Path) -> None:
    """Nobody waits for files of which no one knows whether they come."""
    own = Path(shutil.copytree(folder, yard.folder / "models/tiny"))
    scan(yard.line, [own.parent])
    shutil.rmtree(own)
    agent = yard.start_agent()
    job = yard.submit(model="tiny")
    yard.until_state(job, "running")
    yard.line.execute("update jobs set cancel_requested_at = now() where id = %s", (job,))
    yard.until_state(job, "cancelled")
    following = yard.submit()
    yard.until_state(following, "succeeded")
    assert "model_fetched" not in agent.said()


def test_storing_mends_what_was_damaged(yard: Yard, storage: Storage, folder: Path) -> None:
    """An entry that lies in a folder as well is stored once more, over the damaged object."""
    scan(yard.line, [folder])
    row = yard.line.execute("update models set wanted_at = now() where name = 'shapes-sd15' returning id").fetchone()
    assert row is not None
    assert store(yard, storage)
    assert not store(yard, storage)
    key = max(storage.list("models"), key=lambda found: found.size).key
    data = storage.get(key)
    storage.delete(key)
    storage.put(key, data[:-1])
    yard.line.execute("update models set damage = 'x', stored_at = null, wanted_at = now() where id = %s", (row["id"],))
    assert store(yard, storage)
    assert storage.get(key) == data
    assert yard.line.execute("select key from garbage").fetchall() == []
