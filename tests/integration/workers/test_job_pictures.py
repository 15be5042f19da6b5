"""Jobs that start from pictures: the agent fetches them, its engine draws from them, the file says which they were."""

import io
import json
import shutil

from PIL import Image

from tests.integration.workers.yard import Yard
from tests.picture_files import png


def test_agent_draws_from_a_picture(yard: Yard) -> None:
    """The engine gets the bytes, steps are those of the strength, and the stored file names the picture by its hash."""
    yard.start_agent()
    job = yard.submit_img2img(png(64, 48))
    yard.until_state(job, "succeeded")
    row = yard.row(job)
    assert (row["steps"], row["epoch"], row["lora_key"]) == (4, 1, "")
    (key,) = [key for key in yard.objects() if key.startswith("jobs/")]
    with Image.open(io.BytesIO((yard.storage / key).read_bytes())) as picture:
        said = json.loads(picture.info["imagefleet"])
        assert "Denoising strength: 0.5" in picture.info["parameters"]
    assert said["image"] == f"upload:{row['uploads'][0]}"
    assert said["task"] == "img2img"


def test_agent_fails_a_job_whose_picture_is_gone(yard: Yard) -> None:
    """Another try would not bring it back; the next job is drawn."""
    yard.start_agent()
    lost = yard.submit_img2img(png(64, 48), kept=False)
    yard.until_state(lost, "failed")
    row = yard.row(lost)
    assert (row["error_code"], row["error_retryable"], row["attempts"]) == ("picture_unreadable", False, 0)
    following = yard.submit_img2img(png(32, 48))
    yard.until_state(following, "succeeded")


def test_agent_hands_a_job_back_while_its_picture_cannot_be_fetched(yard: Yard) -> None:
    """With the storage away the job goes back uncharged, nothing is claimed, and it is drawn once the storage is back."""
    agent = yard.start_agent()
    first = yard.submit_img2img(png(32, 32))
    yard.until_state(first, "succeeded")
    yard.keep(png(64, 48))
    elsewhere = yard.folder / "elsewhere"
    shutil.move(yard.storage, elsewhere)
    job = yard.submit_img2img(png(64, 48), kept=False)
    yard.until(lambda: "storage_away" in agent.said())
    yard.until_row(job, state="queued", requeue_reason="storage_away")
    shutil.move(elsewhere, yard.storage)
    yard.until_state(job, "succeeded")
    row = yard.row(job)
    assert (row["attempts"], row["losses"]) == (0, 0)


def test_job_waits_for_its_picture_beside_the_drawing(yard: Yard) -> None:
    """Several jobs with one picture are drawn by one engine, one after the other, from one load."""
    yard.start_agent()
    jobs = [yard.submit_img2img(png(64, 48)) for _ in range(4)]
    for job in jobs:
        yard.until_state(job, "succeeded")
    yard.until(lambda: yard.loads() == 1)
