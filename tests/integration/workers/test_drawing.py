"""One agent draws jobs from end to end."""

import hashlib
import io

from PIL import Image

from jobs.events import FINAL_EVENTS
from jobs.prompts.infotext import parse_infotext
from tests.integration.workers.yard import Yard


def test_agent_draws_a_job_end_to_end(yard: Yard) -> None:
    """A woken agent draws, stores what it records, and tells the whole story in order."""
    yard.start_agent()
    job = yard.submit(num_images=2)
    yard.until_state(job, "succeeded")
    pictures = yard.images(job)
    assert [(picture["index"], int(picture["seed"])) for picture in pictures] == [(0, 7), (1, 8)]
    for picture in pictures:
        data = (yard.storage / picture["key"]).read_bytes()
        assert hashlib.sha256(data).hexdigest() == picture["sha256"]
        assert len(data) == picture["bytes"]
        with Image.open(io.BytesIO(data)) as image:
            assert image.size == (64, 64)
            assert parse_infotext(image.info["parameters"]).fields["Seed"] == str(picture["seed"])
    yard.until(lambda: FINAL_EVENTS & set(yard.kinds(job)))
    events = yard.events(job)
    assert [event.order for event in events] == [(0, 1), *((1, seq) for seq in range(1, len(events)))]
    kinds = [event.type for event in events]
    assert kinds[:2] == ["queued", "started"]
    assert kinds[-3:] == ["image", "image", "succeeded"]
    assert [event.data["step"] for event in events if event.type == "progress"] == list(range(1, 17))
    assert kinds.count("preview") >= 3


def test_agent_loads_a_model_once_for_thirty_jobs(yard: Yard) -> None:
    """Thirty jobs one after another cost one load, and each has one result."""
    yard.start_agent()
    jobs = [yard.submit(seed=seed) for seed in range(30)]
    yard.until(lambda: all(yard.state(job) == "succeeded" for job in jobs))
    assert [len(yard.images(job)) for job in jobs] == [1] * 30
    assert {yard.row(job)["epoch"] for job in jobs} == {1}
    yard.until(lambda: yard.loads() == 1)
    assert len(yard.objects()) == 30


def test_agent_draws_the_same_bytes_for_the_same_seed(yard: Yard) -> None:
    """A picture of a job of several is the picture of a job of one with its seed."""
    yard.start_agent()
    several, alone = yard.submit(num_images=3), yard.submit(seed=9)
    for job in (several, alone):
        yard.until_state(job, "succeeded")
    assert yard.images(several)[2]["sha256"] == yard.images(alone)[0]["sha256"]
    assert len({picture["sha256"] for picture in yard.images(several)}) == 3


def test_agent_reports_out_of_memory_and_goes_on(yard: Yard) -> None:
    """Out of memory ends that job alone: the next one is drawn by the same engine without another load."""
    agent = yard.start_agent()
    first = yard.submit()
    yard.until_state(first, "succeeded")
    engine = yard.until_engine(agent)
    failing, following = yard.submit("[[oom]]"), yard.submit()
    yard.until_state(following, "succeeded")
    row = yard.row(failing)
    assert (row["state"], row["error_code"], row["error_retryable"]) == ("failed", "out_of_memory", False)
    assert yard.events(failing)[-1].data["code"] == "out_of_memory"
    assert yard.until_engine(agent) == engine
    assert yard.loads() == 1


def test_agent_retries_what_may_succeed_next_time(yard: Yard) -> None:
    """A retryable error of the job's own costs an attempt and puts it back; the third ends it."""
    yard.start_agent()
    job = yard.submit("[[invalid]]")
    for attempts in (1, 2, 3):
        yard.until_row(job, attempts=attempts)
        yard.line.execute("update jobs set available_at = now() where id = %s and state = 'queued'", (job,))
        yard.wake()
    row = yard.row(job)
    assert (row["state"], row["error_code"], row["losses"]) == ("failed", "picture_invalid", 0)


def test_agent_fails_a_job_whose_model_is_gone(yard: Yard) -> None:
    """A model that vanished after the job was accepted is an error of its own, and may come back."""
    yard.start_agent()
    job = yard.submit(model="vanished")
    yard.until_row(job, attempts=1)
    assert yard.row(job)["requeue_reason"] == "model_missing"


def test_agent_leaves_a_job_that_does_not_fit(yard: Yard) -> None:
    """A job that needs more memory than the worker offers waits; a smaller one behind it is drawn."""
    yard.start_agent(memory_bytes=2_000_000)
    large = yard.submit(needs_memory=1_000_001)
    small = yard.submit(needs_memory=1_000_000)
    yard.until_state(small, "succeeded")
    assert yard.state(large) == "queued"
