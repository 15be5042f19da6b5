"""Servers go away while a job is drawn."""

import shutil

import psutil

from infra.database import connect
from jobs import sweeps
from tests.integration.workers.yard import Yard


def test_agent_survives_the_loss_of_its_connections(yard: Yard) -> None:
    """Every database session and Redis connection of the agent ends in mid-job; the job is drawn once all the same."""
    yard.start_agent(lease_seconds=4.0)
    job = yard.submit("[[step=0.05]]", steps=40)
    yard.until_step(job, 2)
    yard.line.execute(
        "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and application_name like '%worker%'"
    )
    for kind in ("normal", "pubsub"):
        yard.redis.client_kill_filter(_type=kind, skipme=True)
    yard.until_state(job, "succeeded")
    assert yard.row(job)["epoch"] == 1
    following = yard.submit()
    yard.until_state(following, "succeeded", 40)


def postmaster(yard: Yard) -> psutil.Process:
    """Return the database server's first process."""
    row = yard.line.execute("select pg_backend_pid() as pid").fetchone()
    assert row is not None
    found = psutil.Process(row["pid"]).parent()
    assert found is not None
    return found


def test_agent_stops_when_the_database_is_away_for_a_lease(yard: Yard) -> None:
    """With Postgres frozen beyond the lease the agent stops drawing by its own clock, and hands back what is still its own."""
    agent = yard.start_agent(lease_seconds=1.5)
    job = yard.submit("[[step=0.1]]", steps=60)
    yard.until_step(job, 2)
    server = postmaster(yard)
    frozen = [server, *server.children(recursive=True)]
    for process in frozen:
        process.suspend()
    try:
        yard.until(lambda: "lease_lapsed" in agent.said())
        drawn = max(event.data["step"] for event in yard.events(job) if event.type == "progress")
    finally:
        for process in frozen:
            process.resume()
    yard.until_state(job, "succeeded", 40)
    row = yard.row(job)
    assert drawn < 60
    assert (row["epoch"], row["losses"], row["attempts"], row["requeue_reason"]) == (3, 0, 0, "lapsed")


def test_agent_keeps_drawing_while_redis_does_not_answer(yard: Yard) -> None:
    """A Redis that hangs holds up the telling, not the drawing: the job ends while it hangs, and its end is told afterwards."""
    yard.start_agent()
    job = yard.submit("[[step=0.05]]", steps=20)
    yard.until_step(job, 2)
    yard.redis.client_pause(6000)
    yard.until_state(job, "succeeded", 5.5)
    yard.until(lambda: "succeeded" in yard.kinds(job))
    kinds = [kind for kind in yard.kinds(job) if kind not in {"progress", "preview"}]
    assert kinds == ["queued", "started", "image", "succeeded"]


def test_agent_waits_for_a_storage_that_is_away(yard: Yard) -> None:
    """What cannot be stored goes back uncharged and is not drawn again before the storage is back; then everything is drawn unasked."""
    agent = yard.start_agent(store_limit_seconds=0.5)
    first = yard.submit()
    yard.until_state(first, "succeeded")
    shutil.rmtree(yard.storage)
    yard.storage.write_text("no folder")
    job = yard.submit()
    yard.until_row(job, state="queued", requeue_reason="storage_away")
    following = yard.submit()
    for _ in range(3):
        yard.until_heard_of(0)
    assert (yard.row(job)["epoch"], yard.row(following)["epoch"]) == (2, 0)
    assert "storage_away" in agent.said()
    yard.storage.unlink()
    yard.storage.mkdir()
    for waiting in (job, following):
        yard.until_state(waiting, "succeeded")
    row = yard.row(job)
    assert (row["epoch"], row["attempts"], row["losses"]) == (3, 0, 0)
    assert "storage_back" in agent.said()


def test_agent_hands_back_all_pictures_of_an_outage_in_time(yard: Yard) -> None:
    """Pictures that queue behind one that could not be stored keep no job beyond its lease: nobody loses it, and it is charged nothing."""
    yard.start_agent(lease_seconds=2.0, store_limit_seconds=3.0)
    first = yard.submit()
    yard.until_state(first, "succeeded")
    shutil.rmtree(yard.storage)
    yard.storage.write_text("no folder")
    jobs = [yard.submit("[[step=0]]", num_images=4), yard.submit("[[step=0]]", num_images=4)]
    with connect(yard.database_url, application_name="sweeper") as line:
        yard.until(lambda: sweeps.expire_leases(line) or all(yard.row(job)["requeue_reason"] for job in jobs))
    assert [(yard.row(job)["losses"], yard.row(job)["requeue_reason"]) for job in jobs] == [(0, "storage_away")] * 2
