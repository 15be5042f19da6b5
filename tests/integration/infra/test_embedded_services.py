"""The embedded servers come up, are found, come back from every death, and leave nothing behind."""

import json
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
import redis

from infra.embedded.errors import HomeInUse, HomeUnusable
from infra.embedded.lock import HomeLock
from infra.embedded.services import Services, ServiceUrls, discover, start_services

Eventually = Callable[[Callable[[], bool], float], bool]
Alive = Callable[[int], bool]

#: An instance as a process of its own, so that it can be killed.
INSTANCE = """
import json, pathlib, signal, sys
from infra.embedded.services import start_services
services = start_services(pathlib.Path(sys.argv[1]), durable=False)
print(json.dumps([state.pid for state in services.states()]), flush=True)
signal.pause()
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the tests of this file one folder, for making its databases takes a second."""
    return tmp_path_factory.mktemp("instance") / "home"


@pytest.fixture
def instance(home: Path) -> Iterator[tuple[int, list[int]]]:
    """Run an instance in a process of its own; yields its process id and its servers'."""
    with subprocess.Popen([sys.executable, "-c", INSTANCE, str(home)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process.pid, json.loads(process.stdout.readline())
        process.kill()


def _answers(urls: ServiceUrls) -> bool:
    try:
        with psycopg.connect(urls.database_url, connect_timeout=2), redis.Redis.from_url(urls.redis_url) as client:
            return bool(client.ping())
    except (psycopg.OperationalError, redis.RedisError):
        return False


def _pid(services: Services, name: str) -> int:
    pid = services.supervisor.state(name).pid
    assert pid is not None
    return pid


def test_services_keep_rows_and_ports_over_a_restart(home: Path) -> None:
    """Stopped in order and started again, the same data is behind the same URLs."""
    with start_services(home, durable=False) as services:
        urls = services.urls
        with psycopg.connect(urls.database_url) as connection, redis.Redis.from_url(urls.redis_url) as client:
            connection.execute("create table kept as select 7 as number")
            client.set("kept", 7)
    assert not _answers(urls)
    assert discover(home) is None
    with start_services(home, durable=False) as services:
        assert services.urls == urls
        with psycopg.connect(urls.database_url) as connection, redis.Redis.from_url(urls.redis_url) as client:
            assert connection.execute("select number from kept").fetchone() == (7,)
            assert client.get("kept") == b"7"
            connection.execute("drop table kept")


def test_services_move_when_their_port_was_taken(home: Path) -> None:
    """Another program on a kept port moves the server, and only it."""
    with start_services(home, durable=False) as services:
        before = services.urls
    port = int(before.redis_url.rpartition(":")[2].partition("/")[0])
    with socket.create_server(("127.0.0.1", port)), start_services(home, durable=False) as services:
        assert services.urls.database_url == before.database_url
        assert services.urls.redis_url != before.redis_url
        assert _answers(services.urls)


def test_servers_can_be_reached_from_this_machine_alone(mortal_services: Services) -> None:
    """Both listen on the loopback address and want a password."""
    urls = mortal_services.urls
    for url in (urls.database_url, urls.redis_url):
        assert "@127.0.0.1:" in url
    with redis.Redis.from_url("redis://" + urls.redis_url.rpartition("@")[2]) as client:
        with pytest.raises(redis.AuthenticationError):
            client.ping()
        with pytest.raises(redis.AuthenticationError):
            client.execute_command("AUTH", "wrong")
    password = urls.database_url.split(":")[2].partition("@")[0]
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(urls.database_url.replace(password, "wrong"))


def test_secrets_are_private(mortal_services: Services) -> None:
    """Nobody else reads a password in the home folder or on a command line."""
    passwords = [url.rpartition("@")[0].rpartition(":")[2] for url in vars(mortal_services.urls).values()]
    found = [
        path
        for path in mortal_services.home.rglob("*")
        if path.is_file() and any(word.encode() in path.read_bytes() for word in passwords)
    ]
    assert {path.name for path in found} >= {"services.json", "postgres.json", "redis.json", "redis.conf"}
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in found), found
    assert stat.S_IMODE(mortal_services.home.stat().st_mode) == 0o700
    for state in mortal_services.states():
        line = Path(f"/proc/{state.pid}/cmdline").read_text(encoding="ascii")
        assert not any(word in line for word in passwords)


def test_servers_keep_what_they_promise(mortal_services: Services) -> None:
    """The settings that jobs rely on are in force."""
    with psycopg.connect(mortal_services.urls.database_url) as connection:
        rows = connection.execute("select name, setting from pg_settings").fetchall()
        collation = connection.execute(
            "select pg_encoding_to_char(encoding), datlocprovider, datlocale from pg_database where datname = current_database()"
        ).fetchone()
    settings = {str(name): value for name, value in rows}
    assert settings["idle_in_transaction_session_timeout"] == "60000"
    assert settings["jit"] == "off"
    assert settings["password_encryption"] == "scram-sha-256"
    assert settings["unix_socket_directories"] == ""
    assert settings["data_checksums"] == "on"
    assert collation == ("UTF8", "b", "C.UTF-8")
    with redis.Redis.from_url(mortal_services.urls.redis_url) as client:
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
        assert client.config_get("append*")["appendonly"] == "yes"


def test_second_instance_is_refused(home: Path, instance: tuple[int, list[int]]) -> None:
    """The refusal names the holder, and the holder is left alone."""
    pid, _ = instance
    with pytest.raises(HomeInUse, match=f"in use by process {pid}: stop that instance first") as refused:
        start_services(home)
    assert refused.value.pid == pid
    urls = discover(home)
    assert urls is not None
    assert _answers(urls)


def test_killed_instance_leaves_no_orphan(
    home: Path, instance: tuple[int, list[int]], eventually: Eventually, alive: Alive
) -> None:
    """After kill -9 the servers die too, nobody finds them, and the next start has every row, on the same ports."""
    pid, servers = instance
    urls = discover(home)
    assert urls is not None
    with psycopg.connect(urls.database_url) as connection:
        connection.execute("create table survivor as select 1 as number")
    os.kill(pid, signal.SIGKILL)
    assert eventually(lambda: not any(map(alive, servers)), 3.0)
    assert discover(home) is None
    with start_services(home, durable=False) as services:
        assert services.urls == urls
        with psycopg.connect(urls.database_url) as connection:
            assert connection.execute("select number from survivor").fetchone() == (1,)
            connection.execute("drop table survivor")


def test_process_id_used_again_is_no_instance(tmp_path: Path) -> None:
    """What a killed instance left behind is not believed because some program has its process id now."""
    with start_services(tmp_path, database_url="postgresql://x", redis_url="redis://x"):
        text = (tmp_path / "services.json").read_text()
    left = json.loads(text)
    (tmp_path / "services.json").write_text(text)
    assert discover(tmp_path) is not None
    (tmp_path / "services.json").write_text(json.dumps(left | {"started": left["started"] - 100}))
    assert discover(tmp_path) is None


@pytest.mark.parametrize("name", ["postgres", "redis"])
def test_killed_server_comes_back(name: str, mortal_services: Services, eventually: Eventually) -> None:
    """A server killed with kill -9 answers again on its port within two seconds or so."""
    before = _pid(mortal_services, name)
    os.kill(before, signal.SIGKILL)
    assert eventually(lambda: mortal_services.supervisor.state(name).pid not in {before, None}, 2.0)
    assert eventually(lambda: _answers(mortal_services.urls), 3.0)
    assert mortal_services.supervisor.state(name).restarts >= 1


def test_busy_backend_does_not_stop_the_next_start(mortal_services: Services, eventually: Eventually) -> None:
    """A backend that is deep in a statement when its server dies is ended, for it holds the shared memory."""
    with psycopg.connect(mortal_services.urls.database_url, autocommit=True) as connection:
        backend = connection.info.backend_pid
        os.kill(backend, signal.SIGSTOP)
        os.kill(_pid(mortal_services, "postgres"), signal.SIGKILL)
        assert eventually(lambda: _answers(mortal_services.urls), 5.0)


@pytest.mark.parametrize("kind", ["zombie", "foreign"])
def test_pid_file_of_no_server_is_ignored(home: Path, kind: str) -> None:
    """A pid file that names a zombie, or some other program, does not keep PostgreSQL from starting."""
    with start_services(home, durable=False):
        pass
    owner = (home / "postgres").stat()
    program = ["true"] if kind == "zombie" else ["sleep", "60"]
    # PostgreSQL only minds processes of its own user.
    with subprocess.Popen(program, user=owner.st_uid if os.geteuid() == 0 else None) as other:
        if kind == "zombie":
            os.waitid(os.P_PID, other.pid, os.WEXITED | os.WNOWAIT)
        lines = [str(other.pid), "/proc/self/cwd", "1", "5432", "", "127.0.0.1", "  1  1", "ready"]
        file = home / "postgres" / "postmaster.pid"
        file.write_text("\n".join(lines))
        os.chown(file, owner.st_uid, owner.st_gid)
        with start_services(home, durable=False) as services:
            assert _answers(services.urls)
        other.kill()


def test_damaged_redis_log_is_set_aside(home: Path) -> None:
    """Redis holds nothing that cannot be made again: damage there never keeps the fleet from starting."""
    with start_services(home, durable=False):
        pass
    (home / "redis" / "appendonly.aof").write_bytes(b"*1\r\n$nonsense\r\n" * 100)
    with start_services(home, durable=False) as services:
        assert _answers(services.urls)
    assert list((home / "redis").glob("appendonly.aof.damaged-*"))


def test_given_urls_replace_the_embedded_servers(tmp_path: Path) -> None:
    """With both URLs given nothing is started, and other processes find what was given."""
    given = ServiceUrls("postgresql://u@db.example/fleet", "redis://:x@cache.example/0")
    with start_services(tmp_path, database_url=given.database_url, redis_url=given.redis_url) as services:
        assert services.states() == ()
        assert services.urls == given
        assert discover(tmp_path) == given


def test_one_given_url_replaces_one_server(tmp_path: Path, services: ServiceUrls) -> None:
    """With a database given only Redis is started."""
    with start_services(tmp_path, database_url=services.database_url) as mixed:
        assert [state.name for state in mixed.states()] == ["redis"]
        assert mixed.urls.database_url == services.database_url
        assert _answers(mixed.urls)
        assert not (tmp_path / "postgres").exists()


def test_newer_data_folder_is_refused(tmp_path: Path) -> None:
    """Data of another PostgreSQL release is not touched, and the sentence says so."""
    data = tmp_path / "postgres"
    data.mkdir()
    (data / "PG_VERSION").write_text("99\n")
    with pytest.raises(HomeUnusable, match="written by PostgreSQL 99"):
        start_services(tmp_path)
    HomeLock(tmp_path).release()
