"""The order in which jobs are taken, and that each is taken once."""

import asyncio
import threading
from collections.abc import Callable
from dataclasses import replace
from uuid import UUID, uuid4

import psycopg

from infra.database import CONNECT, Connection, connect
from jobs.claims import Claimer, claim
from jobs.control import cancel
from jobs.errors import EngineDied
from jobs.store import fail, hand_back
from jobs.sweeps import expire_leases

StoreJob = Callable[..., UUID]


def test_claim_takes_nothing_from_an_empty_queue(connection: Connection, claimer: Claimer) -> None:
    """An empty queue is seen to be empty, so that a woken worker goes back to sleep."""
    assert claim(connection, claimer).seen == 0


def test_claim_goes_by_priority_then_by_age(connection: Connection, claimer: Claimer, store_job: StoreJob) -> None:
    """Zero is first; equals of one owner go in the order they came."""
    late, first, second, urgent = (store_job(priority=priority) for priority in (9, 5, 5, 0))
    taken = [claim(connection, claimer).jobs[0].id for _ in range(4)]
    assert taken == [urgent, first, second, late]


def test_claim_shares_between_owners(connection: Connection, claimer: Claimer, store_job: StoreJob) -> None:
    """Someone with one job does not wait behind someone else's twenty."""
    for _ in range(20):
        store_job(owner="ann")
    modest = store_job(owner="bob")
    taken = [claim(connection, claimer).jobs[0].id for _ in range(3)]
    assert modest in taken


def test_claim_gives_an_idle_owner_no_saved_up_turns(
    connection: Connection, claimer: Claimer, store_job: StoreJob
) -> None:
    """Who was away while others were served shares from now on, instead of taking every turn."""
    for _ in range(10):
        store_job(owner="ann")
    for _ in range(6):
        claim(connection, claimer)
    for _ in range(10):
        store_job(owner="bob")
    owners = [claim(connection, claimer).jobs[0].owner for _ in range(6)]
    assert owners.count("ann") >= 2


def test_claim_shares_again_after_an_urgent_job(connection: Connection, claimer: Claimer, store_job: StoreJob) -> None:
    """One urgent job of an owner with a long backlog does not push everybody else behind that backlog."""
    for _ in range(20):
        store_job(owner="ann")
    store_job(owner="ann", priority=0)
    assert claim(connection, claimer).jobs[0].parameters.priority == 0
    for _ in range(2):
        store_job(owner="bob")
    assert [claim(connection, claimer).jobs[0].owner for _ in range(4)].count("bob") == 2


def test_claim_compares_queues_by_their_own_clocks(
    connection: Connection, claimer: Claimer, store_job: StoreJob
) -> None:
    """A job in a queue that was served for long goes before the younger ones of a queue that has just begun."""
    both = replace(claimer, queues=["txt2img.cpu", "txt2img.new"])
    for _ in range(10):
        store_job(owner="ann")
        claim(connection, both)
    waiting = store_job(owner="ann")
    for _ in range(40):
        store_job(owner="bob", route="new")
    assert waiting in [claim(connection, both).jobs[0].id for _ in range(3)]


def test_claim_does_not_charge_for_cancelled_jobs(
    database_url: str, connection: Connection, claimer: Claimer, store_job: StoreJob
) -> None:
    """Who cancelled a long backlog is not served behind it."""

    async def cancel_all(jobs: list[UUID]) -> None:
        async with await psycopg.AsyncConnection.connect(database_url, **CONNECT) as own:
            for job in jobs:
                await cancel(own, "ann", job)

    asyncio.run(cancel_all([store_job(owner="ann") for _ in range(20)]))
    for _ in range(10):
        store_job(owner="bob")
    wanted = store_job(owner="ann")
    assert wanted in [claim(connection, claimer).jobs[0].id for _ in range(2)]


def test_claim_prefers_what_is_warm_inside_one_priority(
    connection: Connection, claimer: Claimer, store_job: StoreJob
) -> None:
    """The loaded model goes before an older job of another, never before a more urgent one."""
    cold, warm, urgent = store_job(model_key="a"), store_job(model_key="b"), store_job(model_key="a", priority=1)
    taken = [claim(connection, claimer, warm_model="b").jobs[0].id for _ in range(3)]
    assert taken == [urgent, warm, cold]


def test_claim_never_overtakes_a_job_whose_patience_has_ended(
    connection: Connection, claimer: Claimer, store_job: StoreJob
) -> None:
    """A cold job that waited longer than the bound goes first, however warm the others are."""
    cold, warm = store_job(model_key="a"), store_job(model_key="b")
    connection.execute("update jobs set created_at = now() - interval '31 s' where id = %s", (cold,))
    taken = [claim(connection, claimer, warm_model="b").jobs[0].id for _ in range(2)]
    assert taken == [cold, warm]


def test_claim_leaves_what_the_worker_cannot_hold(
    connection: Connection, claimer: Claimer, store_job: StoreJob
) -> None:
    """A job larger than the worker's memory is neither taken nor seen."""
    store_job(needs_memory=claimer.memory_bytes + 1)
    assert claim(connection, claimer).seen == 0


def test_claim_leaves_queues_of_others(connection: Connection, claimer: Claimer, store_job: StoreJob) -> None:
    """Only the worker's own queues are looked at."""
    store_job(route="gpu-24g")
    assert claim(connection, claimer).seen == 0


def test_claim_takes_mates_of_the_same_batch_key(connection: Connection, claimer: Claimer, store_job: StoreJob) -> None:
    """A batch holds jobs that can be drawn together and no other."""
    same = [store_job() for _ in range(3)]
    store_job(model_key="other@1")
    taken = claim(connection, claimer, batch=8).jobs
    assert [job.id for job in taken] == same


def test_claim_leaves_a_job_to_others_where_it_was_just_lost(
    connection: Connection, claimer: Claimer, store_job: StoreJob
) -> None:
    """The worker that lost a job waits before it tries again; another takes it at once."""
    job = store_job()
    taken = claim(connection, claimer).jobs[0]
    fail(connection, job, taken.epoch, 5, EngineDied("killed"))
    assert claim(connection, claimer).seen == 0
    assert claim(connection, replace(claimer, worker="other", run=uuid4())).jobs[0].id == job
    assert claim(connection, claimer).seen == 0


def test_claim_ignores_a_job_past_its_deadline(connection: Connection, claimer: Claimer, store_job: StoreJob) -> None:
    """What is too late is left to the keeper to fail."""
    job = store_job(deadline_s=60.0)
    connection.execute("update jobs set deadline_at = now() - interval '1 s' where id = %s", (job,))
    assert claim(connection, claimer).seen == 0


def test_claim_starts_a_new_epoch_and_remembers_the_event_before(
    connection: Connection, claimer: Claimer, store_job: StoreJob
) -> None:
    """Each claim and each requeue adds one to the epoch."""
    job = store_job()
    first = claim(connection, claimer).jobs[0]
    assert (first.epoch, first.predecessor.id, first.predecessor.type) == (1, "0-1", "queued")
    change = hand_back(connection, job, first.epoch, "drained")
    assert change is not None
    assert (change.epoch, change.seq, change.type) == (2, 1, "requeued")
    second = claim(connection, claimer).jobs[0]
    assert (second.epoch, second.predecessor.id, second.predecessor.type) == (3, "2-1", "requeued")
    assert second.losses == second.attempts == 0


def test_claim_is_exclusive_among_many(database_url: str, claimer: Claimer, store_job: StoreJob) -> None:
    """Twelve workers that claim as fast as they can take every job exactly once."""
    jobs = {store_job(owner=f"owner-{number % 5}", priority=number % 3) for number in range(120)}
    taken: list[UUID] = []
    start = threading.Barrier(12)

    def work(number: int) -> None:
        mine = replace(claimer, worker=f"cpu{number}@test", run=uuid4())
        with connect(database_url, application_name="claim", generic_plans=True) as own:
            start.wait()
            while True:
                result = claim(own, mine, batch=1 + number % 3)
                taken.extend(job.id for job in result.jobs)
                if not result.jobs and result.seen == 0:
                    return

    threads = [threading.Thread(target=work, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(taken) == len(jobs)
    assert set(taken) == jobs


def test_claim_and_sweep_at_once_requeue_a_lost_job_once(
    database_url: str, claimer: Claimer, store_job: StoreJob
) -> None:
    """Many sweepers at the same moment count one loss."""
    job = store_job()
    with connect(database_url, application_name="claim") as own:
        claim(own, replace(claimer, lease_seconds=0.001))
        changes: list[object] = []
        start = threading.Barrier(6)

        def sweep() -> None:
            with connect(database_url, application_name="sweep") as mine:
                start.wait()
                changes.extend(expire_leases(mine))

        threads = [threading.Thread(target=sweep) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        row = own.execute("select losses, epoch, state from jobs where id = %s", (job,)).fetchone()
    assert len(changes) == 1
    assert row == {"losses": 1, "epoch": 2, "state": "queued"}


def test_claim_uses_the_index_of_waiting_jobs(connection: Connection, store_job: StoreJob) -> None:
    """With a long history and a long queue a claim reads the head of an index, never the table."""
    store_job()
    connection.execute("""
        insert into jobs (id, owner, task, hardware, needs_memory, model_key, batch_key, priority, fair_order, cost, steps, request)
        select gen_random_uuid(), 'ann', 'txt2img', 'cpu', 1, 'm', 'b', 5, n, 1, 1, '{}' from generate_series(1, 20000) n""")
    connection.execute("analyze jobs")
    plan = connection.execute(
        "explain (format json) select id from jobs where queue = 'txt2img.cpu' and state = 'queued' and available_at <= now()"
        " order by priority, fair_order, id limit 32"
    ).fetchone()
    assert plan is not None
    assert "jobs_ready" in str(plan)
    assert "Seq Scan" not in str(plan)
