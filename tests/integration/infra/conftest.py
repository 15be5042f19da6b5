"""Servers of their own for tests that kill them, and patience."""

import time
from collections.abc import Callable, Iterator

import psutil
import pytest

from infra.embedded.services import Services, start_services


@pytest.fixture(scope="session")
def mortal_services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    """Run servers that tests may kill; they come back by themselves."""
    with start_services(tmp_path_factory.mktemp("mortal") / "home", durable=False) as running:
        yield running


@pytest.fixture
def eventually() -> Callable[[Callable[[], bool], float], bool]:
    """Give a function that tells whether a condition comes true within so many seconds."""

    def wait(condition: Callable[[], bool], seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
        return True

    return wait


@pytest.fixture
def alive() -> Callable[[int], bool]:
    """Give a function that tells whether a process runs; a zombie does not."""

    def is_alive(pid: int) -> bool:
        try:
            return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False

    return is_alive
