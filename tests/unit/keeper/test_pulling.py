"""The threads that fetch and tidy outlive whatever fails in them."""

import threading

import psycopg
import pytest

from infra.storage import StorageUnavailable
from keeper.pulling import _repeat


@pytest.mark.parametrize("problem", [psycopg.OperationalError("away"), StorageUnavailable("away"), LookupError("odd")])
def test_work_goes_on_after_a_failure(problem: Exception) -> None:
    """A failed turn rests and is followed by others; while there is something to do nothing rests."""
    stop = threading.Event()
    turns: list[int] = []

    def work() -> bool:
        turns.append(len(turns))
        if len(turns) == 1:
            raise problem
        if len(turns) == 3:
            stop.set()
        return True

    _repeat(work, 0.001, stop)
    assert turns == [0, 1, 2]
