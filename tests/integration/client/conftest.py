"""A server that answers what a test says, and is cut off where a test says."""

from collections.abc import Callable, Iterator

import pytest

from tests.scripted_server import Script, player


@pytest.fixture
def play() -> Iterator[Callable[[list[bytes]], Script]]:
    """Return a function that starts a server with a script."""
    with player() as start:
        yield start
