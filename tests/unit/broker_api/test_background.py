"""What runs in the background goes on whatever happens, and ends when told."""

import asyncio

import pytest
from structlog.testing import capture_logs

from broker_api.http import background
from broker_api.http.background import ROUND_FAILED, end_tasks, repeat


def test_repeat_goes_on_after_a_round_that_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    """A failed round is logged with its traceback and followed by the next; a cancel ends it all."""
    monkeypatch.setattr(background, "REST_SECONDS", 0.01)
    rounds: list[int] = []

    async def story() -> bool:
        enough = asyncio.Event()

        async def work() -> None:
            rounds.append(len(rounds))
            if len(rounds) == 1:
                raise LookupError("once")
            enough.set()
            await asyncio.sleep(0.01)

        task = asyncio.create_task(repeat(work, name="test"))
        async with asyncio.timeout(5):
            await enough.wait()
        await end_tasks([task])
        return task.cancelled()

    with capture_logs() as lines:
        assert asyncio.run(story())
    assert len(rounds) >= 2
    assert [(line["event"], line["work"], line["exc_info"]) for line in lines] == [(ROUND_FAILED, "test", True)]
