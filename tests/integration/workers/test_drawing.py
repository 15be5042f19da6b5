"""One agent draws jobs from end to end."""

import hashlib
import io

from PIL import Image

from jobs.events import FINAL_EVENTS
from jobs.parts import Lora
from jobs.prompts.infotext import parse_infotext
from tests.integration.workers.yard import Yard


def test_agent_draws_a_job_end_to_end(shared: Yard) -> None:
    """A woken agent draws, stores what it records, and tells the whole story in order."""
    job = shared.submit(num_images=2)
    shared.until_state(job, "succeeded")
    pictures = shared.images(job)
    assert [(picture["index"], int(picture["seed"])) for picture in pictures] == [(0, 7), (1, 8)]
    for picture in pictures:
        data = (shared.storage / picture["key"]).read_bytes()
        assert hashlib.sha256(data).hexdigest() == picture["sha256"]
        assert len(data) == picture["bytes"]
        with Image.open(io.BytesIO(data)) as image:
            assert image.size == (64, 64)
            assert parse_infotext(image.info["parameters"]).fields["Seed"] == str(picture["seed"])
    shared.until(lambda: FINAL_EVENTS & set(shared.kinds(job)))
    events = shared.events(job)
    assert [event.order for event in events] == [(0, 1), *((1, seq) for seq in range(1, len(events)))]
    kinds = [event.type for event in events]
    assert kinds[:2] == ["queued", "started"]
    assert kinds[-3:] == ["image", "image", "succeeded"]
    assert [event.data["step"] for event in events if event.type == "progress"] == list(range(1, 17))
    assert kinds.count("preview") >= 3


def test_agent_loads_a_model_once_for_thirty_jobs(shared: Yard) -> None:
    """Thirty jobs one after another cost one load, and each has one result."""
    before = len(shared.objects())
    jobs = [shared.submit(seed=seed) for seed in range(30)]
    shared.until(lambda: all(shared.state(job) == "succeeded" for job in jobs))
    assert [len(shared.images(job)) for job in jobs] == [1] * 30
    assert {shared.row(job)["epoch"] for job in jobs} == {1}
    shared.until(lambda: shared.loads() == 1)
    assert len(shared.objects()) == before + 30


def test_agent_draws_the_same_bytes_for_the_same_seed(shared: Yard) -> None:
    """A picture of a job of several is the picture of a job of one with its seed."""
    several, alone = shared.submit(num_images=3), shared.submit(seed=9)
    for job in (several, alone):
        shared.until_state(job, "succeeded")
    assert shared.images(several)[2]["sha256"] == shared.images(alone)[0]["sha256"]
    assert len({picture["sha256"] for picture in shared.images(several)}) == 3


def test_agent_reports_out_of_memory_and_goes_on(shared: Yard) -> None:
    """Out of memory ends that job alone: the next one is drawn by the same engine without another load."""
    [agent] = shared.agents
    first = shared.submit()
    shared.until_state(first, "succeeded")
    engine = shared.until_engine(agent)
    failing, following = shared.submit("[[oom]]"), shared.submit()
    shared.until_state(following, "succeeded")
    row = shared.row(failing)
    assert (row["state"], row["error_code"], row["error_retryable"]) == ("failed", "out_of_memory", False)
    assert shared.events(failing)[-1].data["code"] == "out_of_memory"
    assert shared.until_engine(agent) == engine
    assert shared.loads() == 1


def test_agent_retries_what_may_succeed_next_time(shared: Yard) -> None:
    """A retryable error of the job's own costs an attempt and puts it back; the third ends it."""
    job = shared.submit("[[invalid]]")
    for attempts in (1, 2, 3):
        shared.until_row(job, attempts=attempts)
        # The only worker there is takes back at once what it otherwise leaves to the others for some seconds.
        shared.line.execute(
            "update jobs set available_at = now() - interval '1 minute' where id = %s and state = 'queued'", (job,)
        )
        shared.wake()
    row = shared.row(job)
    assert (row["state"], row["error_code"], row["losses"]) == ("failed", "picture_invalid", 0)


def test_agent_fails_a_job_whose_model_is_gone(shared: Yard) -> None:
    """A model that vanished after the job was accepted is an error of its own, and may come back."""
    job = shared.submit(model="vanished")
    shared.until_row(job, attempts=1)
    assert shared.row(job)["requeue_reason"] == "model_missing"


def test_agent_looks_for_adapters_by_kind_and_name(shared: Yard) -> None:
    """A job whose LoRA is there is drawn; the name of a checkpoint is no LoRA's name."""
    shared.add_model("frame", kind="lora")
    frame, shapes = Lora(name="frame"), Lora(name="shapes")
    drawn, missing = shared.submit(loras=[frame]), shared.submit(loras=[frame, shapes])
    shared.until_state(drawn, "succeeded")
    shared.until_row(missing, attempts=1)
    assert shared.row(missing)["requeue_reason"] == "model_missing"
