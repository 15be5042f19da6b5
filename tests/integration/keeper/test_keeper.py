"""The caretaker on real servers: what is lost is found again, by one keeper at a time."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from uuid import UUID, uuid4

import psycopg
import pytest
import redis

from infra.celery_app import KEY_PREFIX, make_celery
from infra.database import CONNECT, Connection, connect
from infra.storage import Storage, StorageUnavailable, open_storage
from jobs import sweeps
from jobs.claims import Claimer, claim
from jobs.contract import Txt2ImgParameters
from jobs.events import kept
from jobs.fleet import WorkerFacts
from jobs.intake import NewJob, submit
from jobs.roster import register
from jobs.uploads import upload_key
from keeper.duties import tidy
from keeper.keeper import Keeper
from keeper.leader import leadership

QUEUE = "txt2img.cpu"


def _submit(url: str, *, deadline_s: float | None = None, needs_memory: int = 1, hardware: str = "cpu") -> UUID:
    parameters = Txt2ImgParameters(
        model="m",
        prompt="p",
        width=64,
        height=64,
        steps=2,
        guidance_scale=1.0,
        scheduler="Euler",
        seed=1,
        preview_every=0,
        deadline_s=deadline_s,
    )
    new = NewJob("ann", parameters, model_key="m@1", needs_memory=needs_memory, hardware=hardware)

    async def store() -> UUID:
        async with await psycopg.AsyncConnection.connect(url, **CONNECT) as own:
            return (await submit(own, new)).job

    return asyncio.run(store())


def _worker(name: str, hardware: str = "cpu") -> WorkerFacts:
    return WorkerFacts(
        name=name,
        run=uuid4(),
        host="test",
        pid=1,
        device="cpu0",
        device_name="CPU",
        hardware=hardware,
        serves=(hardware,),
        tags=(),
        tasks=("txt2img",),
        queues=(f"txt2img.{hardware}",),
        memory_bytes=10**9,
        engine="fake",
        version="1",
    )


@pytest.fixture
def connection(database_url: str) -> Iterator[Connection]:
    """Open a connection to look at the tables with."""
    with connect(database_url, application_name="test") as opened:
        yield opened


@pytest.fixture
def storage() -> Storage:
    """Return an empty storage."""
    return open_storage("memory:///")


@pytest.fixture
def keeper(database_url: str, redis_url: str, storage: Storage) -> Iterator[Keeper]:
    """Return a keeper that does a round every tenth of a second."""
    with redis.Redis.from_url(redis_url) as client:
        yield Keeper(
            database_url=database_url,
            application=make_celery(redis_url),
            redis=client,
            storage=storage,
            pause_seconds=0.1,
            retention_days=30,
        )


@contextmanager
def running(keeper: Keeper) -> Iterator[None]:
    """Run a keeper in a thread for as long as the block lasts."""
    stop = threading.Event()
    thread = threading.Thread(target=keeper.run, args=(stop,))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def eventually(condition: Callable[[], object], seconds: float = 15.0) -> None:
    """Wait until something is true; fail when it never is."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.02)


def _state(connection: Connection, job: UUID) -> dict[str, object]:
    row = connection.execute(
        "select state, losses, epoch, error_code, queue from jobs where id = %s", (job,)
    ).fetchone()
    assert row is not None
    return row


def _claimer() -> Claimer:
    return Claimer("dead@test", uuid4(), [QUEUE], 10**9, lease_seconds=0.2)


def test_keeper_takes_a_job_back_from_a_dead_worker(
    keeper: Keeper, connection: Connection, database_url: str, redis_url: str
) -> None:
    """The job waits again, its watchers are told, and a living worker is woken."""
    register(connection, _worker("cpu0@living"))
    job = _submit(database_url)
    claim(connection, _claimer())
    with running(keeper):
        eventually(lambda: _state(connection, job)["state"] == "queued")
        eventually(lambda: keeper.redis.llen(f"{KEY_PREFIX}{QUEUE}") == 1)

    async def told() -> list[str]:
        async with redis.asyncio.Redis.from_url(redis_url) as client:
            return [f"{event.id} {event.type}" for event in await kept(client, job, None)]

    assert _state(connection, job)["losses"] == 1
    assert asyncio.run(told()) == ["2-1 requeued"]


def test_keeper_wakes_again_after_redis_was_emptied(keeper: Keeper, connection: Connection, database_url: str) -> None:
    """Deleting everything in Redis delays waiting jobs by one round, no more; a queue never collects messages."""
    register(connection, _worker("cpu0@living"))
    for _ in range(5):
        _submit(database_url)
    with running(keeper):
        for _ in range(3):
            eventually(lambda: keeper.redis.llen(f"{KEY_PREFIX}{QUEUE}") == 1)
            keeper.redis.flushdb()
        time.sleep(0.5)
        assert keeper.redis.llen(f"{KEY_PREFIX}{QUEUE}") == 1


def test_keeper_fails_what_waited_past_its_deadline(keeper: Keeper, connection: Connection, database_url: str) -> None:
    """A job nobody took in time ends with its own code."""
    job = _submit(database_url, deadline_s=0.1)
    with running(keeper):
        eventually(lambda: _state(connection, job)["state"] == "failed")
    assert _state(connection, job)["error_code"] == "deadline_passed"


def test_keeper_moves_waiting_jobs_to_workers_that_came(
    keeper: Keeper, connection: Connection, database_url: str
) -> None:
    """A job that waited for a CPU goes to the GPU that has registered since; one that asked for a class stays."""
    free = _submit(database_url)
    register(connection, _worker("cuda0@new", "gpu-24g"))
    with running(keeper):
        eventually(lambda: _state(connection, free)["queue"] == "txt2img.gpu-24g")


def test_keeper_removes_objects_no_row_refers_to(keeper: Keeper, connection: Connection, storage: Storage) -> None:
    """Pictures of deleted jobs leave the storage; others stay."""
    storage.put("jobs/a/1", b"gone")
    storage.put("jobs/b/1", b"kept")
    connection.execute("insert into garbage (key) values ('jobs/a/1'), ('jobs/never/there')")
    with running(keeper):
        eventually(lambda: connection.execute("select from garbage").fetchone() is None)
    assert [found.key for found in storage.list()] == ["jobs/b/1"]


def test_tidy_counts_what_ended_before_it_is_retired(
    connection: Connection, storage: Storage, database_url: str
) -> None:
    """What is known of the past does not go with the jobs."""
    job = _submit(database_url)
    connection.execute(
        "update jobs set state = 'cancelled', finished_at = now() - interval '31 days' where id = %s", (job,)
    )
    tidy(connection, storage, 30)
    assert connection.execute("select from jobs").fetchone() is None
    assert connection.execute("select owner, state, jobs from job_hours").fetchone() == {
        "owner": "ann", "state": "cancelled", "jobs": 1,
    }  # fmt: skip


OLD, USED, FRESH = ("a" * 64, "b" * 64, "c" * 64)


def _upload(connection: Connection, storage: Storage, sha256: str, owner: str = "ann", *, days: float = 31) -> None:
    storage.put(upload_key(sha256), sha256.encode())
    connection.execute(
        "insert into uploads (owner, sha256, mime, width, height, bytes, brightest, used_at) "
        "values (%s, %s, 'image/png', 1, 1, 1, 1, now() - make_interval(days => 1) * %s)",
        (owner, sha256, days),
    )


def _uploads(connection: Connection) -> set[tuple[str, str]]:
    rows = connection.execute("select owner, sha256 from uploads").fetchall()
    return {(row["owner"], row["sha256"]) for row in rows}


def test_tidy_retires_uploads_no_job_names(connection: Connection, storage: Storage, database_url: str) -> None:
    """What nobody used for the retention goes with its bytes, unless a job names it, however it stands."""
    for sha256, days in ((OLD, 31), (USED, 31), (FRESH, 29)):
        _upload(connection, storage, sha256, days=days)
    job = _submit(database_url)
    connection.execute("update jobs set uploads = array[%s] where id = %s", (USED, job))
    tidy(connection, storage, 30)
    assert _uploads(connection) == {("ann", USED), ("ann", FRESH)}
    assert {found.key for found in storage.list()} == {upload_key(USED), upload_key(FRESH)}
    connection.execute("delete from jobs")
    tidy(connection, storage, 30)
    assert _uploads(connection) == {("ann", FRESH)}
    assert [found.key for found in storage.list()] == [upload_key(FRESH)]


def test_tidy_keeps_bytes_that_another_owner_has(connection: Connection, storage: Storage) -> None:
    """Bytes lie once: they go with the last row, and garbage about bytes that were sent again means nothing."""
    _upload(connection, storage, OLD)
    _upload(connection, storage, OLD, "bob", days=1)
    tidy(connection, storage, 30)
    assert _uploads(connection) == {("bob", OLD)}
    assert [found.key for found in storage.list()] == [upload_key(OLD)]
    assert connection.execute("select from garbage").fetchone() is None


def test_retiring_uploads_looks_jobs_up_by_an_index(connection: Connection) -> None:
    """Among many jobs with pictures the few that name one are found without reading the others."""
    connection.execute("set enable_seqscan = off")
    plan = connection.execute(f"explain {sweeps._RETIRE_UPLOADS}", {"days": 30}).fetchall()  # noqa: SLF001
    assert "jobs_uploads" in "".join(str(row) for row in plan)


def test_leadership_is_held_by_one_and_passes_on_when_its_session_ends(database_url: str) -> None:
    """A second keeper stands by until the first one's session is gone."""
    with (
        connect(database_url, application_name="first") as first,
        connect(database_url, application_name="second") as second,
        leadership(first) as leads,
    ):
        assert leads
        with leadership(second) as also:
            assert not also
        pid = first.info.backend_pid
        second.execute("select pg_terminate_backend(%s)", (pid,))
        eventually(lambda: second.execute("select from pg_stat_activity where pid = %s", (pid,)).fetchone() is None)
        with leadership(second) as now:
            assert now
        with pytest.raises(psycopg.OperationalError):
            first.execute("select 1")


def test_keeper_that_is_frozen_loses_its_lead(keeper: Keeper, connection: Connection, database_url: str) -> None:
    """The server ends a silent leader's session, so a standby acts, and the old leader can do nothing when it wakes."""
    job = _submit(database_url)
    with connect(database_url, application_name="frozen") as frozen, leadership(frozen) as leads:
        assert leads
        # Ten seconds in production; the mechanism is the same.
        frozen.execute("set idle_session_timeout = 300")
        claim(connection, _claimer())
        with running(replace(keeper)):
            eventually(lambda: _state(connection, job)["losses"] == 1)
        with pytest.raises(psycopg.OperationalError):
            frozen.execute("select 1")


def test_keeper_outlives_a_lost_database_session(keeper: Keeper, connection: Connection, database_url: str) -> None:
    """After its session was ended it connects, leads and works again."""
    job = _submit(database_url)
    with running(keeper):
        eventually(
            lambda: connection.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'imagefleet keeper'"
            ).fetchone()
        )
        claim(connection, _claimer())
        eventually(lambda: _state(connection, job)["losses"] == 1)


def test_keeper_goes_on_sweeping_while_redis_is_away(keeper: Keeper, connection: Connection, database_url: str) -> None:
    """Without Redis nobody is told and nobody woken, but what dead workers held is taken back all the same."""
    register(connection, _worker("cpu0@living"))
    waiting = _submit(database_url)
    away = "redis://127.0.0.1:1/0"
    unplugged = replace(keeper, application=make_celery(away), redis=redis.Redis.from_url(away))
    with running(unplugged):
        for losses in (1, 2):
            claim(connection, _claimer())
            eventually(partial(_was_lost, connection, waiting, losses))
            connection.execute("update jobs set available_at = now() - interval '1 min'")


def _was_lost(connection: Connection, job: UUID, times: int) -> bool:
    return _state(connection, job)["losses"] == times


class SlowStorage(Storage):
    """A storage whose every delete takes its time, and one of which fails."""

    def __init__(self, inner: Storage) -> None:
        self._inner = inner

    def delete(self, key: str) -> None:
        """Delete late."""
        time.sleep(0.02)
        if key == "jobs/stuck":
            raise StorageUnavailable("it will not go")
        self._inner.delete(key)


def test_keeper_removes_garbage_in_small_portions(
    keeper: Keeper, connection: Connection, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Slow storage neither holds up the sweeping of leases nor lets one object that will not go keep all others."""
    monkeypatch.setattr("keeper.duties.TIDY_SECONDS", 0.2)
    monkeypatch.setattr("keeper.keeper.TIDY_EVERY", 1)
    connection.execute("insert into garbage (key, since) values ('jobs/stuck', now() - interval '1 day')")
    connection.execute("insert into garbage (key) select 'jobs/' || n from generate_series(1, 60) n")
    with running(replace(keeper, storage=SlowStorage(storage))):
        eventually(lambda: connection.execute("select count(*) as n from garbage").fetchone() == {"n": 1})
    assert connection.execute("select key from garbage").fetchall() == [{"key": "jobs/stuck"}]


def test_keeper_counts_what_jobs_did(keeper: Keeper, connection: Connection) -> None:
    """What was noted of an entry is counted in one of the next rounds, and the note is gone."""
    connection.execute(
        "insert into models (name, kind, layout, family, variant, path, fingerprint, components, weight_bytes, native_size, "
        "latent_factor, latent_channels) values ('frame', 'lora', 'file', 'sd15', 'lora', '/x', 'f', '[]', 1, 0, 0, 0)"
    )
    used = '[{"kind": "lora", "name": "frame", "weight": 1}]'
    connection.execute(
        "insert into usage_notes (owner, what, pictures, used) values ('ann', 'succeeded', 1, %s)", (used,)
    )
    with running(keeper):
        eventually(lambda: connection.execute("select from model_usage where uses = 1").fetchone() is not None)
    assert connection.execute("select from usage_notes").fetchone() is None


def test_keeper_asks_anew_for_what_has_changed(
    keeper: Keeper, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of entries that were looked at and are others now, once, and only while a worker answers; what nobody asked for stays unasked."""
    monkeypatch.setattr("keeper.keeper.TIDY_EVERY", 1)
    connection.execute(
        "insert into models (name, kind, layout, family, variant, path, fingerprint, components, weight_bytes, native_size, "
        "latent_factor, latent_channels) select name, kind, 'file', 'sd15', 'lora', '/x', 'print of ' || name, '[]', 1, 0, 8, 4 from "
        "(values ('changed', 'lora'), ('same', 'lora'), ('new', 'lora'), ('reader', 'checkpoint')) given (name, kind)"
    )
    connection.execute(
        "insert into analyses (model, source, content, encoder, seen_change) select id, looked, 'what it was', "
        "case looked when 'text' then 'print of reader' else '' end, "
        "case name when 'same' then changed_at else changed_at - interval '1 day' end "
        "from models cross join (values ('text'), ('weights')) sources (looked) where name in ('changed', 'same')"
    )
    asked = "select request ->> 'subject' as subject, request ->> 'model' as model from jobs order by 1"
    before = "select count(*) as n from analyses join models on models.id = model where seen_change <> changed_at"
    with running(keeper):
        time.sleep(0.5)
        assert connection.execute(asked).fetchall() == []
        register(
            connection, _worker("cpu0@test").model_copy(update={"tasks": ("analyse",), "queues": ("analyse.cpu",)})
        )
        eventually(lambda: connection.execute(before).fetchone() == {"n": 0})
        time.sleep(0.5)
    assert connection.execute(asked).fetchall() == [
        {"subject": "text", "model": "reader"},
        {"subject": "weights", "model": "changed"},
    ]
