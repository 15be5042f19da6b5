"""Root and ordinary users alike run the embedded servers, wherever the home folder and the programs lie."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import pytest
import redis

from infra.embedded import binaries, postgres
from infra.embedded import redis as embedded_redis
from infra.embedded.binaries import Program, find_postgres, find_redis
from infra.embedded.services import Services, start_services
from infra.processes import RunAs

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="what root must do is tried by root")

#: An instance of a user who is not root, which says who its servers run as and what is in its database.
ORDINARY = """
import os, pathlib, sys, psutil, psycopg
from infra.embedded.services import start_services
with start_services(pathlib.Path(sys.argv[1]), durable=False) as services:
    owners = {psutil.Process(state.pid).uids().effective for state in services.states()}
    with psycopg.connect(services.urls.database_url) as connection:
        print(os.geteuid(), owners == {os.geteuid()}, connection.execute("select 41 + 1").fetchone()[0])
"""


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """Give a folder that everyone may enter, unlike pytest's own."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture
def closed_folder(open_folder: Path) -> Path:
    """Give a folder that nobody but its owner can enter, as /root is."""
    folder = open_folder / "closed"
    folder.mkdir(mode=0o700)
    return folder


def _users(services: Services) -> set[str]:
    return {psutil.Process(state.pid).username() for state in services.states()}


def _works(services: Services) -> bool:
    urls = services.urls
    with psycopg.connect(urls.database_url, autocommit=True) as connection:
        connection.execute("create table proof (id int)")
        connection.execute("checkpoint")
    with redis.Redis.from_url(urls.redis_url) as client:
        return bool(client.set("proof", 1)) and bool(client.bgrewriteaof())


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _copied(program: Program, root: Path) -> Program:
    for tree in program.trees:
        (root / tree).parent.mkdir(parents=True, exist_ok=True)
        if (program.root / tree).is_dir():
            # Links: only the folder matters, and copies cost seconds on a busy disk.
            shutil.copytree(program.root / tree, root / tree, copy_function=_link)
        else:
            _link(str(program.root / tree), str(root / tree))
    return Program(root, program.executable, program.trees)


@needs_root
def test_root_runs_servers_as_nobody_in_a_closed_home(closed_folder: Path) -> None:
    """In a home that only root can enter both servers run, not as root, and the folders above stay as they were."""
    before = closed_folder.stat()
    with start_services(closed_folder / "home", durable=False) as services:
        assert _users(services) == {"nobody"}
        assert _works(services)
    after = closed_folder.stat()
    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)


@needs_root
def test_root_keeps_the_user_that_owns_the_data(closed_folder: Path) -> None:
    """Root carries on with an ordinary user's data as that user, so that he can have it back."""
    data = closed_folder / "home" / "redis"
    data.mkdir(parents=True)
    os.chown(data, 12345, 12345)
    with start_services(closed_folder / "home", database_url="postgresql://elsewhere/fleet") as services:
        (state,) = services.states()
        assert psutil.Process(state.pid).uids().effective == 12345
    assert {path.stat().st_uid for path in data.iterdir()} == {12345}


@needs_root
def test_root_runs_servers_from_closed_programs(
    closed_folder: Path, open_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Programs in a folder that only root can enter, such as a virtual environment below /root, are copied out once."""
    database, cache = (_copied(program, closed_folder / "venv") for program in (find_postgres(), find_redis()))
    monkeypatch.setattr(postgres, "find_postgres", lambda: database)
    monkeypatch.setattr(embedded_redis, "find_redis", lambda: cache)
    public = open_folder / "public"
    monkeypatch.setattr(binaries, "PUBLISH_FOLDERS", (closed_folder / "useless", public))
    with start_services(closed_folder / "home", durable=False) as services:
        assert _users(services) == {"nobody"}
        assert _works(services)
        programs = [Path(psutil.Process(state.pid).exe()) for state in services.states()]
        assert all(public in program.parents for program in programs)
    made = sorted(public.iterdir())
    with start_services(closed_folder / "home", durable=False):
        assert sorted(public.iterdir()) == made


@needs_root
def test_copies_are_made_only_where_root_alone_writes(
    closed_folder: Path, open_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder that others may write to, prepared with a program of theirs, is passed over."""
    cache = _copied(find_redis(), closed_folder / "venv")
    trap, public = open_folder / "trap", open_folder / "public"
    trap.mkdir()
    trap.chmod(0o777)
    monkeypatch.setattr(binaries, "PUBLISH_FOLDERS", (trap, public))
    found = binaries.reachable(cache, RunAs(65534, 65534))
    assert public in found.path.parents
    assert not list(trap.iterdir())


def test_ordinary_user_runs_servers_as_himself(tmp_path: Path) -> None:
    """Without root the servers are the user's own processes."""
    command = [sys.executable, "-c", ORDINARY, str(tmp_path / "home")]
    if os.geteuid() == 0:
        unshare = shutil.which("unshare")
        become = [unshare or "", "--user", "--map-user=1000", "--map-group=1000"]
        if unshare is None or subprocess.run([*become, "true"], check=False, capture_output=True).returncode:
            pytest.skip("root cannot become an ordinary user here")
        command = [*become, *command]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    user, own, answer = done.stdout.split()
    assert user != "0"
    assert (own, answer) == ("True", "42")
