"""Keep going what runs in the background, and end it."""

import asyncio
from collections.abc import Awaitable, Callable, Collection
from typing import Any, Final, NoReturn

from infra.logging import get_logger

log = get_logger(__name__)

#: After a round that failed in a way nobody foresaw, the next begins so much later, seconds.
REST_SECONDS: Final = 1.0
#: A task that has not ended so long after it was cancelled, seconds, is cancelled again.
PATIENCE_SECONDS: Final = 0.2

ROUND_FAILED: Final = "background_round_failed"


async def repeat(work: Callable[[], Awaitable[None]], *, name: str) -> NoReturn:
    """Do one round of work after the other, for ever; what a round raises is logged under `name`, and costs that round alone."""
    while True:
        try:
            await work()
        except Exception:
            log.exception(ROUND_FAILED, work=name)
            await asyncio.sleep(REST_SECONDS)


async def end_tasks(tasks: "Collection[asyncio.Task[Any]]") -> None:
    """Cancel tasks and return when all have ended; what they raised is dropped."""
    running = {task for task in tasks if not task.done()}
    while running:
        for task in running:
            # Again and again: before Python 3.12 `asyncio.wait_for`, inside which libraries write to sockets, can swallow a cancel.
            task.cancel()
        done, running = await asyncio.wait(running, timeout=PATIENCE_SECONDS)
        for task in done:
            if not task.cancelled():
                task.exception()
