"""End what runs in the background."""

import asyncio
from collections.abc import Collection
from typing import Any, Final

#: A task that has not ended so long after it was cancelled, seconds, is cancelled again.
PATIENCE_SECONDS: Final = 0.2


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
