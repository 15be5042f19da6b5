"""Use is counted once, whatever cuts the counting short, and survives the jobs."""

import asyncio
from collections.abc import Callable
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest

from infra.database import CONNECT, Connection
from jobs import sweeps
from jobs.claims import Claimer, claim
from jobs.control import delete
from jobs.errors import DrawingFailed
from jobs.history.usage import Counted, count_usage, note, read_pairs, read_usage, typical
from jobs.history.use_totals import BY_USES, read_uses
from jobs.parts import Lora, Refiner
from jobs.results import delete_results
from jobs.store import StoredPicture, complete, fail
from models_registry.entries import Kind
from models_registry.listing import Wanted, list_entries
from models_registry.records import FLEET

StoreJob = Callable[..., UUID]


@pytest.fixture
def entries(connection: Connection) -> dict[str, UUID]:
    """Register two checkpoints and three LoRAs."""
    found = {}
    kinds = {"shapes": "checkpoint", "polish": "checkpoint", "one": "lora", "two": "lora", "three": "lora"}
    for name, kind in kinds.items():
        row = connection.execute(
            "insert into models (name, kind, layout, family, variant, path, fingerprint, components, weight_bytes, native_size, "
            "latent_factor, latent_channels) values (%s, %s, 'file', 'sd15', 'base', '/x', %s, '[]', 1, 128, 8, 4) returning id",
            (name, kind, name),
        ).fetchone()
        assert row is not None
        found[name] = row["id"]
    return found


@pytest.fixture
def draw(connection: Connection, store_job: StoreJob, claimer: Claimer) -> Callable[..., UUID]:
    """Return a way to run a job with LoRAs to its end."""

    def run(
        *loras: tuple[str, float],
        fails: bool = False,
        owner: str = "ann",
        seconds: float = 2.0,
        refiner: str | None = None,
    ) -> UUID:
        stack = [Lora(name=name, weight=weight) for name, weight in loras]
        second = None if refiner is None else Refiner(model=refiner)
        job = store_job(loras=stack, refiner=second, owner=owner)
        (taken,) = claim(connection, claimer).jobs
        assert taken.id == job
        if fails:
            assert fail(connection, job, taken.epoch, 2, DrawingFailed("no")) is not None
        else:
            picture = StoredPicture(0, 7, 8, 8, "image/png", 1, "0" * 64, f"jobs/{job}/0")
            assert complete(connection, job, taken.epoch, 2, [picture], seconds) is not None
        return job

    return run


def run(database_url: str, work: Callable[["psycopg.AsyncConnection[Any]"], Any]) -> Any:
    """Do something on an asynchronous connection."""

    async def inner() -> Any:
        async with await psycopg.AsyncConnection.connect(database_url, **CONNECT) as line:
            return await work(line)

    return asyncio.run(inner())


def usage(database_url: str, entries: dict[str, UUID], name: str, owner: str | None = None) -> Counted:
    """Return an entry's usage."""
    found: Counted = run(database_url, lambda line: read_usage(line, [entries[name]], owner))[entries[name]]
    return found


def test_usage_counts_what_ended(
    connection: Connection, database_url: str, entries: dict[str, UUID], draw: Callable[..., UUID]
) -> None:
    """Uses, failures, seconds, weights, pairs and owners, each job once however often is counted."""
    draw(("one", 0.8), ("two", 1.0), seconds=2.0)
    draw(("one", 0.62), seconds=4.0)
    draw(("one", 5.0), fails=True)
    draw(("one", 0.8), owner="bob", seconds=3.0)
    assert count_usage(connection) == 4
    assert count_usage(connection) == 0
    counted = usage(database_url, entries, "one")
    assert (counted.usage.uses, counted.usage.failures, counted.usage.pictures, counted.owners) == (4, 1, 3, 2)
    assert counted.usage.failure_share == 0.25
    assert counted.usage.mean_seconds == 3.0
    assert counted.usage.weights is not None
    # Failed jobs say nothing of which weight is right.
    assert (counted.usage.weights.low, counted.usage.weights.median, counted.usage.weights.high) == (0.6, 0.8, 0.8)
    assert counted.usage.last_used_at is not None
    assert usage(database_url, entries, "one", "bob").usage.uses == 1
    assert usage(database_url, entries, "shapes").usage.uses == 4
    pairs = run(database_url, lambda line: read_pairs(line, entries["one"], 10))
    assert pairs == {entries["two"]: 1}


def test_totals_are_what_all_owners_used(
    connection: Connection, database_url: str, entries: dict[str, UUID], draw: Callable[..., UUID]
) -> None:
    """They are read in one statement, and the most used come first, page by page, those that nobody used last."""
    for weight in (0.5, 0.8, 0.8):
        draw(("one", weight), ("two", 1), owner="ann" if weight == 0.5 else "bob")
    draw(("one", 1), fails=True)
    while count_usage(connection):
        pass
    ids = list(entries.values())
    found = run(database_url, lambda line: read_uses(line, ids))
    one = found[entries["one"]]
    assert (one.uses, one.failure_share, one.mean_seconds, one.typical_weight) == (4, 0.25, 2.0, 0.8)
    assert one.last_used_at == usage(database_url, entries, "one").usage.last_used_at
    assert entries["three"] not in found

    async def pages(line: "psycopg.AsyncConnection[Any]") -> list[str]:
        names: list[str] = []
        cursor: str | None = None
        while not names or cursor is not None:
            page, cursor = await list_entries(
                line, Wanted((Kind.LORA,)), reader=FLEET, order=BY_USES, cursor=cursor, limit=1
            )
            names += [entry.name for entry in page]
        return names

    assert run(database_url, pages) == ["one", "two", "three"]


def test_usage_survives_the_jobs(
    connection: Connection, database_url: str, entries: dict[str, UUID], draw: Callable[..., UUID]
) -> None:
    """Retention deletes jobs, counted or not, and what was counted stays; it is no word against the entry."""
    draw(("one", 1.0))
    count_usage(connection)
    draw(("one", 1.0))
    connection.execute("update jobs set finished_at = now() - interval '2 days'")
    assert sweeps.retire(connection, 1) == 2
    count_usage(connection)
    counted = usage(database_url, entries, "one").usage
    assert (counted.uses, counted.pictures, counted.deleted) == (2, 2, 0)


def test_counting_that_is_cut_short_counts_nothing_twice(
    connection: Connection, database_url: str, entries: dict[str, UUID], draw: Callable[..., UUID]
) -> None:
    """What was not committed is counted the next time, once."""
    draw(("one", 1.0))
    with connection.transaction(force_rollback=True):
        assert count_usage(connection) == 1
    assert count_usage(connection) == 1
    assert usage(database_url, entries, "one").usage.uses == 1


def test_two_counters_share_the_notes(
    connection: Connection, database_url: str, entries: dict[str, UUID], draw: Callable[..., UUID]
) -> None:
    """A second one finds nothing of what the first is counting, and waits for nobody."""
    draw(("one", 1.0))
    with psycopg.connect(database_url, **CONNECT) as other, other.transaction():
        assert count_usage(other) == 1
        assert count_usage(connection) == 0
    assert usage(database_url, entries, "one").usage.uses == 1


def test_people_deleting_pictures_counts(
    connection: Connection, database_url: str, entries: dict[str, UUID], draw: Callable[..., UUID]
) -> None:
    """By picture and by job, once each; what somebody else's key asks for is nobody's."""
    first, second = draw(("one", 1.0)), draw(("one", 1.0))
    assert run(database_url, lambda line: delete_results(line, "bob", [(first, 0)])) == set()
    assert run(database_url, lambda line: delete_results(line, "ann", [(first, 0)])) == {(first, 0)}
    assert run(database_url, lambda line: delete(line, "ann", second))
    # Its picture is gone already.
    assert run(database_url, lambda line: delete(line, "ann", first))
    count_usage(connection)
    counted = usage(database_url, entries, "one").usage
    assert (counted.pictures, counted.deleted) == (2, 2)


def test_downloads_and_repeats_count(
    connection: Connection, database_url: str, entries: dict[str, UUID], draw: Callable[..., UUID]
) -> None:
    """They are noted for the job's owner; an unknown job leaves no note."""
    job = draw(("one", 1.0))

    async def work(line: "psycopg.AsyncConnection[Any]") -> None:
        await note(line, "ann", job, "downloaded")
        await note(line, "ann", job, "repeated")
        await note(line, "bob", job, "repeated")
        await note(line, "ann", uuid4(), "repeated")

    run(database_url, work)
    count_usage(connection)
    counted = usage(database_url, entries, "one").usage
    assert (counted.uses, counted.downloaded, counted.repeated) == (1, 1, 1)


def test_a_checkpoint_that_takes_over_is_used(
    connection: Connection, database_url: str, entries: dict[str, UUID], draw: Callable[..., UUID]
) -> None:
    """A refiner counts like the checkpoint before it, in sums and in the order of lists; its pictures were drawn with both."""
    draw(refiner="polish")
    draw()
    draw(refiner="polish", fails=True)
    # It may go on by itself: that is one use.
    draw(refiner="shapes")
    assert count_usage(connection) == 4
    polish, shapes = (usage(database_url, entries, name).usage for name in ("polish", "shapes"))
    assert (polish.uses, polish.failures, polish.pictures, polish.weights) == (2, 1, 1, None)
    assert (shapes.uses, shapes.failures, shapes.pictures) == (4, 1, 3)
    found = run(database_url, lambda line: read_uses(line, list(entries.values())))
    assert {name: found[model].uses for name, model in entries.items() if model in found} == {"polish": 2, "shapes": 4}


def test_a_lora_named_twice_is_used_once(
    connection: Connection, database_url: str, entries: dict[str, UUID], draw: Callable[..., UUID]
) -> None:
    """A stack may name one LoRA several times."""
    draw(("one", 1.0), ("one", 0.5))
    count_usage(connection)
    assert usage(database_url, entries, "one").usage.uses == 1


def test_deleted_entries_take_their_usage_along(
    connection: Connection, entries: dict[str, UUID], draw: Callable[..., UUID]
) -> None:
    """And notes of them are dropped without harm."""
    draw(("one", 1.0), ("two", 1.0))
    count_usage(connection)
    draw(("one", 1.0))
    connection.execute("delete from models where id = %s", (entries["one"],))
    assert count_usage(connection) == 1
    row = connection.execute("select count(*) as n from model_pairs").fetchone()
    assert row == {"n": 0}


def test_typical_weights_are_weighed_by_use() -> None:
    """One odd try moves neither the middle nor the edges."""
    found = typical([(-3.0, 1), (0.7, 10), (0.8, 12), (5.0, 1)])
    assert found is not None
    assert (found.low, found.median, found.high) == (0.7, 0.8, 0.8)
    assert typical([]) is None
