"""The table of verbs leads somewhere, and settings lead to the fleet."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from cli.main import VERBS
from cli.output import plain, size
from cli.running.folders import model_folders
from cli.speaking.fleet import fleet_key, fleet_url
from infra.settings import Settings


@pytest.mark.parametrize("name", VERBS)
def test_verbs_lead_to_their_files(name: str) -> None:
    """Each verb has a file and a sentence."""
    assert importlib.util.find_spec(VERBS[name].module) is not None
    assert VERBS[name].summary.endswith(".")


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ({}, "http://127.0.0.1:8420"),
        ({"port": 9000}, "http://127.0.0.1:9000"),
        ({"host": "0.0.0.0"}, "http://127.0.0.1:8420"),  # noqa: S104 - not listened on
        ({"host": "::"}, "http://[::1]:8420"),
        ({"host": "10.0.0.7"}, "http://10.0.0.7:8420"),
        ({"url": "https://fleet.example/x", "port": 9000}, "https://fleet.example/x"),
    ],
)
def test_fleet_url_is_where_clients_can_go(given: dict[str, Any], url: str) -> None:
    """The URL given wins; an address that only servers understand becomes this machine's own."""
    assert fleet_url(Settings(**given)) == url


def test_fleet_key_comes_from_the_settings_or_the_home(tmp_path: Path) -> None:
    """The key given wins over the file; without either there is none."""
    assert fleet_key(Settings(home=tmp_path)) is None
    (tmp_path / "api-key").write_text("from-file\n")
    assert fleet_key(Settings(home=tmp_path)) == "from-file"
    assert fleet_key(Settings(home=tmp_path, api_key="given")) == "given"


def test_model_folders_are_the_owners_and_the_fleets(tmp_path: Path) -> None:
    """Folders given are looked through even if they are away, so that this is told; the fleet's own only where they are."""
    settings = Settings(home=tmp_path, models=f"/a:{tmp_path}")
    assert model_folders(settings)[:2] == [Path("/a"), tmp_path]
    assert tmp_path / "models" not in model_folders(settings)
    (tmp_path / "models").mkdir()
    assert tmp_path / "models" in model_folders(settings)


def test_plain_text_cannot_steer_the_terminal() -> None:
    """Escape sequences and line breaks of a prompt are shown as spaces; long text is cut."""
    assert plain("a\x1b[2Jb\nc") == "a [2Jb c"
    assert plain("abcdef", 4) == "abc…"


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (1023, "1023 B"), (5_242_880, "5.0 MiB"), (2**50, "1024.0 TiB")]
)
def test_size_is_readable(count: int, text: str) -> None:
    """Bytes are shown in the largest unit that fits."""
    assert size(count) == text
