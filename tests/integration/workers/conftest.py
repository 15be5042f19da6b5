"""A yard per test: servers, a model, and agents that end with the test."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.workers.yard import Yard


@pytest.fixture
def yard(database_url: str, redis_url: str, tmp_path: Path) -> Iterator[Yard]:
    """Give a test a database with one model, a Redis, a storage folder, and a way to start agents."""
    opened = Yard(database_url, redis_url, tmp_path)
    opened.add_model()
    yield opened
    opened.close()
