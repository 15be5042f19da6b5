"""The client and the command line fetch models and send files, over a real API and a real keeper."""

import json
import re
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cli.main import run
from client.client import Client
from client.errors import FleetUnreachable
from keeper.pulling import pulling
from tests.lora_file import lora_bytes
from tests.model_sources import Sources, serve_sources, sha256

LORA = lora_bytes()
#: Status, what was printed, what was said on standard error.
Done = tuple[int, str, str]


@pytest.fixture
def sources() -> Iterator[Sources]:
    """Serve sites with one LoRA on them."""
    with serve_sources() as served:
        served.repos["ada/hats"] = {"hats.safetensors": LORA}
        yield served


@pytest.fixture
def command(
    sources: Sources,
    world: Any,
    start_server: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> Iterator[Callable[..., Done]]:
    """Return a function that runs `imagefleet …` against a fleet that may fetch from the sites."""
    world.changes.update(
        fetch_allow="127.0.0.1,localhost", hub_endpoint=sources.url, civitai_endpoint=sources.url, disk_headroom_bytes=0
    )
    stop = threading.Event()
    with start_server() as live, pulling(world.settings, world.database_url, world.storage, stop):
        settings = {"HOME": str(tmp_path / "own"), "URL": live.url, "API_KEY": world.key("ann")}
        for name, value in settings.items():
            monkeypatch.setenv(f"IMAGEFLEET_{name}", value)
        monkeypatch.setenv("COLUMNS", "200")

        def execute(*arguments: str) -> Done:
            with monkeypatch.context() as patch:
                patch.setattr(sys, "argv", ["imagefleet", *arguments])
                with pytest.raises(SystemExit) as ended:
                    run()
            captured = capsys.readouterr()
            code = ended.value.code
            # The server and the keeper, which are in this process too, write their log there.
            out = re.sub(r"^\d{4}-\d\d-\d\d \d\d:.*\n", "", captured.out, flags=re.MULTILINE)
            return (code if isinstance(code, int) else int(code is not None), out, captured.err)

        yield execute
        stop.set()


def test_model_is_pulled_and_listed(command: Callable[..., Done]) -> None:
    """The command waits until it is there; a failed one says why and ends so."""
    assert command("models", "pull", "ada/hats", "--name", "red", "--tag", "hat")[:2] == (0, "red: fetched\n")
    listed = json.loads(command("downloads", "list", "--json")[1])
    assert [(each["state"], each["ref"], each["source"]) for each in listed] == [("succeeded", "red", "ada/hats")]
    assert "succeeded" in command("downloads", "list")[1]
    status, _, said = command("adapters", "pull", "ada/none")
    assert (status, "source_forbidden" in said) == (1, True)
    assert command("downloads", "resume", listed[0]["id"])[0] == 1


def test_detached_pull_is_watched(command: Callable[..., Done]) -> None:
    """By its id, from anywhere."""
    made = json.loads(command("models", "pull", "ada/hats", "--detach", "--json")[1])
    watched = command("downloads", "watch", made["id"])
    assert watched[:2] == (0, "hats: fetched\n")
    assert json.loads(command("downloads", "show", made["id"])[1])["state"] == "succeeded"


def test_file_is_sent_in_pieces_and_goes_on_after_a_break(
    command: Callable[..., Done], world: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the fleet has is not sent again by the next call."""
    file = tmp_path / "hats.safetensors"
    file.write_bytes(LORA)
    monkeypatch.setattr("client.model_files.PIECE", 100)
    asked = Client.__init__.__globals__["Connection"].ask
    sent: list[int] = []

    def breaking(self: Any, method: str, path: str, **options: Any) -> Any:
        if method == "PATCH":
            sent.append(int(options["headers"]["upload-offset"]))
            if len(sent) == 4:
                raise FleetUnreachable(self.url, "cut")
        return asked(self, method, path, **options)

    monkeypatch.setattr("client.connection.Connection.ask", breaking)
    assert command("adapters", "upload", str(file), "--tag", "red hat")[0] == 1
    status, out, _ = command("adapters", "upload", str(file), "--tag", "red hat", "--json")
    assert status == 0
    assert json.loads(out)["sha256"] == sha256(LORA)
    assert json.loads(out)["tags"] == ["red hat"]
    assert sent == [0, 100, 200, 300, 300, 400, 500, 600]
    assert world.count("model_uploads") == 1
    assert list((tmp_path / "own" / "sending").iterdir()) == []


def test_file_that_is_refused_is_forgotten(command: Callable[..., Done], tmp_path: Path) -> None:
    """The next call begins anew."""
    file = tmp_path / "bad.safetensors"
    file.write_bytes(b"no model at all")
    status, _, said = command("adapters", "upload", str(file))
    assert status == 1, said
    assert list((tmp_path / "own" / "sending").iterdir()) == []


def test_entries_are_looked_up(command: Callable[..., Done], sources: Sources) -> None:
    """What CivitAI knows is written down."""
    sources.add_version(456, 123, "hats.safetensors", LORA)
    assert command("models", "pull", "ada/hats")[0] == 0
    status, out, _ = command("adapters", "lookup")
    assert (status, out) == (0, "1 entries looked at, 1 known to CivitAI, 1 changed.\n")
