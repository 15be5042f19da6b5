"""Yards: servers, a model, and agents that end with the test, or with the module for tests that leave their agent as it was."""

import itertools
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest
import redis
from psycopg import sql

from infra.embedded.services import ServiceUrls
from tests.integration.workers.yard import Yard

_numbers = itertools.count(1)


@pytest.fixture
def yard(database_url: str, redis_url: str, tmp_path: Path) -> Iterator[Yard]:
    """Give a test a database with one model, a Redis, a storage folder, and a way to start agents."""
    opened = Yard(database_url, redis_url, tmp_path)
    opened.add_model()
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def shared(services: ServiceUrls, template_database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Yard]:
    """Give the tests of a module one yard with one agent at work; every test leaves it idle."""
    name = f"test_workers_{next(_numbers)}"
    # No test of its own is given number 0.
    redis_url = f"{services.redis_url.rsplit('/', 1)[0]}/0"
    with (
        psycopg.connect(services.database_url, autocommit=True) as connection,
        redis.Redis.from_url(redis_url) as client,
    ):
        database = sql.Identifier(name)
        connection.execute(
            sql.SQL("create database {} template {}").format(database, sql.Identifier(template_database))
        )
        client.flushdb()
        database_url = urlsplit(services.database_url)._replace(path=f"/{name}").geturl()
        opened = Yard(database_url, redis_url, tmp_path_factory.mktemp("shared"))
        opened.add_model()
        opened.start_agent()
        yield opened
        opened.close()
        client.flushdb()
        connection.execute(sql.SQL("drop database if exists {} with (force)").format(database))
