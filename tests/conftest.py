"""Real servers for every test: one Postgres and one Redis per session, on free ports, in a temporary folder."""

import itertools
from collections.abc import Iterator
from urllib.parse import urlsplit

import psycopg
import pytest
import redis
from hypothesis import settings
from psycopg import sql

from infra.database import migrate
from infra.embedded.redis import DATABASES
from infra.embedded.services import ServiceUrls, start_services

# A busy machine makes no test fail.
settings.register_profile("unhurried", settings(), deadline=None)
settings.load_profile("unhurried")


@pytest.fixture(scope="session")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceUrls]:
    """Run one embedded Postgres and one embedded Redis for the whole session."""
    with start_services(tmp_path_factory.mktemp("services"), durable=False) as running:
        yield running.urls


@pytest.fixture(scope="session")
def template_database(services: ServiceUrls) -> str:
    """Migrate one database that every test's database is copied from; yields its name."""
    name = "template_migrated"
    with psycopg.connect(services.database_url, autocommit=True) as connection:
        connection.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
    migrate(_other_database(services.database_url, name))
    return name


@pytest.fixture(scope="session")
def numbers() -> Iterator[int]:
    """Count what tests are given."""
    return itertools.count(1)


@pytest.fixture
def database_url(services: ServiceUrls, template_database: str, numbers: Iterator[int]) -> Iterator[str]:
    """Make a fresh, migrated database for one test."""
    name = f"test_{next(numbers)}"
    with psycopg.connect(services.database_url, autocommit=True) as connection:
        connection.execute(
            sql.SQL("create database {} template {}").format(sql.Identifier(name), sql.Identifier(template_database))
        )
        yield _other_database(services.database_url, name)
        # Processes a test killed may still hold sessions.
        connection.execute(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name)))


@pytest.fixture
def redis_url(services: ServiceUrls, numbers: Iterator[int]) -> Iterator[str]:
    """Give one test an empty Redis database of its own; its stragglers do not meet the next test's keys."""
    url = f"{services.redis_url.rsplit('/', 1)[0]}/{1 + next(numbers) % (DATABASES - 1)}"
    with redis.Redis.from_url(url) as client:
        client.flushdb()
        yield url
        client.flushdb()


def _other_database(url: str, name: str) -> str:
    return urlsplit(url)._replace(path=f"/{name}").geturl()
