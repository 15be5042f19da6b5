"""Servers go away while a job is drawn."""

import shutil

import psutil

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
    yard.redis.client_pause(4000)
    yard.until_state(job, "succeeded", 3.5)
    yard.until(lambda: "succeeded" in yard.kinds(job))
    kinds = [kind for kind in yard.kinds(job) if kind not in {"progress", "preview"}]
    assert kinds == ["queued", "started", "image", "succeeded"]


def test_agent_tries_again_when_storage_is_away(yard: Yard) -> None:
    """A storage that cannot be written costs the job an attempt, with its reason; once it is back the job succeeds."""
    yard.start_agent(store_limit_seconds=0.5)
    first = yard.submit()
    yard.until_state(first, "succeeded")
    shutil.rmtree(yard.storage)
    yard.storage.write_text("no folder")
    job = yard.submit()
    yard.until_row(job, attempts=1, state="queued", requeue_reason="storage_failed")
    yard.storage.unlink()
    yard.storage.mkdir()
    yard.line.execute("update jobs set available_at = now() where state = 'queued'")
    yard.wake()
    yard.until_state(job, "succeeded")
