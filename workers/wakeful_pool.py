"""Celery's pool of threads, made to tell the event loop at once that a task has ended.

While a task runs, `worker_disable_prefetch` keeps the consumer from asking Redis for the next message; without this it would ask again
only when the loop's next timer fires, up to a second after the worker has become free.
"""

from typing import Any

from celery.concurrency.thread import TaskPool


class WakefulPool(TaskPool):  # type: ignore[misc] # Celery ships no types
    """Run tasks in threads; wake the event loop after each."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._hub: Any = None
        super().__init__(*args, **kwargs)

    def register_with_event_loop(self, loop: Any) -> None:
        """Remember the loop; called again after each reconnect."""
        self._hub = loop

    def on_apply(self, *args: Any, **options: Any) -> Any:
        """Run a task in a thread."""
        result = super().on_apply(*args, **options)
        result.f.add_done_callback(self._ended)
        return result

    def wake(self) -> None:
        """Make the event loop look again; from any thread."""
        if self._hub is not None:
            self._hub.call_soon(_nothing)

    def _ended(self, future: object) -> None:
        del future
        self.wake()


def _nothing() -> None:
    """Be called: that is enough."""
