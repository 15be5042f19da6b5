"""One fleet with the real engine and the reference model for the tests of each file."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.fleet_process import FleetProcess


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FleetProcess]:
    """Start a fleet of two CPU workers and stop it after the tests of one file."""
    home: Path = tmp_path_factory.mktemp("fleet") / "home"
    running = FleetProcess(home, workers=2, threads=1)
    running.start()
    try:
        yield running
    finally:
        running.stop()


@pytest.fixture
def http(fleet: FleetProcess) -> Iterator[httpx.Client]:
    """Return a client with the fleet's first key."""
    with fleet.client() as client:
        yield client
