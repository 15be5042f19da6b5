"""The Python client speaks to a real server about batches and pictures."""

import io
from typing import Any

import httpx
import pytest
from PIL import Image

from client.client import Client
from client.errors import Invalid


@pytest.fixture
def world(clean_world: Any) -> Any:
    """Share one world, emptied before each test."""
    return clean_world


def test_client_submits_follows_and_shares_many(shared_live: Any, world: Any) -> None:
    """A batch by matrix and by list, its jobs, its end, its pictures, their thumbnails and URLs, and a replay."""
    file = io.BytesIO()
    Image.new("RGB", (96, 64), "red").save(file, "PNG")
    with Client(shared_live.url, world.key()) as fleet:
        made = fleet.submit_batch(request={"prompt": "a star", "steps": 4}, matrix={"seed": [1, 2]})
        assert [job.request.seed for job in fleet.batch_jobs(made.id)] == [1, 2]
        worker = world.worker()
        worker.claim()
        worker.finish(file.getvalue())
        assert fleet.cancel_batch(made.id).state == "ended"
        assert fleet.batch(made.id).counts["succeeded"] == fleet.batch(made.id).counts["cancelled"] == 1
        found = fleet.results(q="star").items[0]
        assert (found.job, found.seed) == (made.jobs[0], 1)
        assert Image.open(io.BytesIO(fleet.thumbnail(found.job, 0, 64))).size == (64, 43)
        answer = httpx.get(fleet.signed_url(found.job, 0), trust_env=False)
        assert (answer.status_code, answer.content) == (200, file.getvalue())
        again = fleet.replay(found.job, {"seed": 5})
        assert (again.request.seed, again.progress.steps) == (5, 4)
        with pytest.raises(Invalid) as refused:
            fleet.submit_batch([{"prompt": "x"}, {"prompt": "x", "model": "nobody"}])
        assert refused.value.field == "jobs.1.model"
