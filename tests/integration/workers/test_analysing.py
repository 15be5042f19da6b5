"""The fleet looks at its own models: fenced by epoch as every job, and lost with no worker."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import psycopg
import pytest

from infra.database import CONNECT
from jobs import sweeps
from jobs.analysing.analyses import Grounds, ask_for_entries, complete_analysis
from jobs.analysing.findings import SKETCH_LENGTH, Findings, Signature
from jobs.changes import Change
from jobs.fleet import Fleet
from models_registry.catalogue import read_catalogue
from tests.integration.workers.yard import Yard


@pytest.fixture
def yard(database_url: str, redis_url: str, tmp_path: Path) -> Iterator[Yard]:
    """Make a yard with a checkpoint and a LoRA that takes a second to look at."""
    made = Yard(database_url, redis_url, tmp_path)
    made.add_model()
    made.add_model("slow [[step=1]]", kind="lora")
    try:
        yield made
    finally:
        made.close()


def ask(yard: Yard) -> list[Change]:
    """Ask for the LoRA's weights."""

    async def work() -> list[Change]:
        async with await psycopg.AsyncConnection.connect(yard.database_url, **CONNECT) as line:
            return await ask_for_entries(line, Grounds(read_catalogue(yard.line).entries, Fleet(), None), "weights")

    return asyncio.run(work())


def signatures(yard: Yard) -> int:
    """Return how many LoRAs are known."""
    row = yard.line.execute("select count(*) as n from likeness_signatures").fetchone()
    assert row is not None
    return int(row["n"])


def test_analysis_is_asked_for_once(yard: Yard) -> None:
    """While the job waits, and once it is answered, nobody asks again."""
    (change,) = ask(yard)
    assert change.queue == "analyse.cpu"
    assert ask(yard) == []
    row = yard.row(change.job)
    assert (row["priority"], row["owner"], row["request"]["subject"]) == (9, "", "weights")


def test_worker_killed_in_the_middle_of_an_analysis_loses_nothing(yard: Yard) -> None:
    """The job goes back and another worker finds everything; nothing is recorded of the first one's work."""
    first = yard.start_agent(0)
    (change,) = ask(yard)
    yard.wake("analyse.cpu")
    yard.until_state(change.job, "running")
    first.end()
    assert signatures(yard) == 0
    yard.until(lambda: [lost.type for lost in sweeps.expire_leases(yard.line)] == ["requeued"])
    yard.line.execute("update jobs set available_at = now() - interval '1 minute'")
    yard.start_agent(1)
    yard.wake("analyse.cpu")
    yard.until_state(change.job, "succeeded")
    assert signatures(yard) == 1
    assert yard.row(change.job)["losses"] == 1
    assert yard.images(change.job) == []
    assert ask(yard) == []


def test_findings_of_a_stale_epoch_are_refused(yard: Yard) -> None:
    """Who lost the job records nothing, neither its end nor what was found; repeated, the writer hears the same."""
    (change,) = ask(yard)
    yard.line.execute(
        "update jobs set state = 'running', epoch = 2, worker = 'x', lease_until = now() + interval '1 minute'"
    )
    found = Findings(signatures=(Signature("f" * 64, 1.0, 1, (0.1,) * SKETCH_LENGTH),))

    def write(job: UUID, epoch: int) -> Change | None:
        return complete_analysis(yard.line, job, epoch, 2, found, 1.0)

    assert write(change.job, 1) is None
    assert signatures(yard) == 0
    done = write(change.job, 2)
    assert done is not None
    assert done.type == "succeeded"
    assert signatures(yard) == 1
    assert write(change.job, 2) == done


def test_changed_file_is_looked_at_again(yard: Yard) -> None:
    """Another fingerprint is another question; an entry that only changed its words is not."""
    (change,) = ask(yard)
    yard.start_agent(0)
    yard.wake("analyse.cpu")
    yard.until_state(change.job, "succeeded")
    yard.line.execute("update models set description = 'x', changed_at = now() where kind = 'lora'")
    assert ask(yard) == []
    yard.line.execute("update models set fingerprint = %s, changed_at = now() where kind = 'lora'", ("e" * 64,))
    assert len(ask(yard)) == 1
