"""Commands that work on the database directly."""

import json
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest

from infra.embedded.services import ServiceUrls


@pytest.fixture
def empty_database(services: ServiceUrls) -> str:
    """Make a database without tables."""
    with psycopg.connect(services.database_url, autocommit=True) as connection:
        connection.execute("drop database if exists cli_empty")
        connection.execute("create database cli_empty")
    return urlsplit(services.database_url)._replace(path="/cli_empty").geturl()


@pytest.mark.parametrize("arguments", [["keys", "list"], ["models", "scan", "."], ["migrate"]])
def test_database_that_is_not_there_is_one_sentence(command: Any, arguments: list[str]) -> None:
    """No fleet in the home folder, or a server that does not answer: status 1 and what to do."""
    done = command(*arguments)
    assert (done.status, done.out, done.err.count("\n")) == (1, "", 1)
    assert "imagefleet up" in done.err
    done = command(*arguments, database_url="postgresql://a:secret@127.0.0.1:9/x")
    assert (done.status, done.out) == (1, "")
    assert "does not answer" in done.err
    assert "secret" not in done.err
    done = command(*arguments, database_url="mysql://a:secret@127.0.0.1/x")
    assert (done.status, done.err.count("\n")) == (1, 1)
    assert "secret" not in done.err


def test_migrate_makes_the_tables(command: Any, empty_database: str) -> None:
    """Before it a command says that tables are missing, after it the command works; again it changes nothing."""
    before = command("models", "scan", ".", database_url=empty_database)
    assert before.status == 1
    assert "imagefleet migrate" in before.err
    for _ in range(2):
        assert command("migrate", database_url=empty_database).status == 0
    assert command("models", "scan", ".", database_url=empty_database).status == 0


def test_models_scan_tells_what_it_saw(command: Any, database_url: str, tmp_path: Path) -> None:
    """Refused files are named with code and reason; a folder that is away fails the command."""
    (tmp_path / "models").mkdir()
    (tmp_path / "models/old.ckpt").touch()
    done = command("models", "scan", "models", database_url=database_url)
    assert done.status == 0
    assert "No models found." in done.out
    assert f"not offered (pickle_refused): {tmp_path / 'models/old.ckpt'} is a pickle" in done.out
    report = json.loads(command("models", "scan", "models", "--json", database_url=database_url).out)
    assert (report["found"], report["refused"][0]["code"]) == ([], "pickle_refused")
    away = command("models", "scan", "models", "away", database_url=database_url)
    assert away.status == 1
    assert "away: no such folder" in away.err
    configured = command("models", "scan", database_url=database_url, models=str(tmp_path / "models"))
    assert "old.ckpt" in configured.out


def test_keys_are_created_listed_and_revoked(command: Any, database_url: str) -> None:
    """The text of a key is printed once, alone, and never listed."""
    created = command("keys", "create", "gallery", "--owner", "ada", database_url=database_url)
    assert (created.status, created.out.count("\n")) == (0, 1)
    text = created.out.strip()
    (listed,) = json.loads(command("keys", "list", "--json", database_url=database_url).out)
    assert (listed["owner"], listed["name"], listed["scopes"], listed["revoked_at"]) == (
        "ada",
        "gallery",
        ["user"],
        None,
    )
    assert text not in command("keys", "list", database_url=database_url).out
    assert command("keys", "revoke", listed["id"], database_url=database_url).status == 0
    assert "revoked" in command("keys", "list", database_url=database_url).out
    assert command("keys", "revoke", "nothing", database_url=database_url).status == 1
    admin = json.loads(command("keys", "create", "mine", "--admin", "--json", database_url=database_url).out)
    assert set(admin["scopes"]) == {"user", "admin"}


def test_doctor_tells_what_is_missing_and_the_cure(command: Any, tmp_path: Path) -> None:
    """A machine that has everything passes; one with a dead database fails and says how to mend it."""
    fine = command("doctor", port="0")
    assert fine.status == 0, fine.err
    assert "python" in fine.out
    bad = command("doctor", port="0", database_url="postgresql://127.0.0.1:9/x")
    assert bad.status == 1
    assert "IMAGEFLEET_DATABASE_URL" in bad.out
    assert "postgres" in bad.err
    checks = json.loads(command("doctor", "--json", port="0", home=str(tmp_path)).out)
    assert {"name", "ok", "why", "cure"} == set(checks[0])
