"""`imagefleet compose`, `recipes` and `archives` against a running fleet."""

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from cli.main import run


@pytest.fixture
def command(
    live: Any, world: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Any:
    """Return a way to run a command as an admin; what fails fails the test."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("IMAGEFLEET_URL", live.url)
    monkeypatch.setenv("IMAGEFLEET_API_KEY", world.key("ann", ("user", "admin")))

    def execute(*arguments: str, status: int = 0) -> str:
        monkeypatch.setattr(sys, "argv", ["imagefleet", *arguments])
        with pytest.raises(SystemExit) as ended:
            run()
        captured = capsys.readouterr()
        assert (ended.value.code or 0) == status, captured.err
        # The server logs into the same process.
        lines = (captured.out + captured.err).splitlines(keepends=True)
        return "".join(line for line in lines if not re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \[", line))

    return execute


def test_commands_compose_and_keep(command: Any, world: Any) -> None:
    """A list of LoRAs becomes a prompt and a job; a recipe is kept, listed, drawn and deleted."""
    told = command("compose", "a circle", "--lora", "frame:0.5", "--submit")
    assert "a circle, framed, thin border <lora:frame:0.5>" in told
    assert "job " in told
    kept = json.loads(command("recipes", "create", "Framed", "--prompt", "x", "--lora", "frame:0.5"))
    assert "Framed" in command("recipes", "list")
    assert json.loads(command("recipes", "show", kept["id"])) == kept
    assert command("recipes", "draw", kept["id"], "--seed", "3").startswith("job ")
    command("recipes", "delete", kept["id"])
    assert command("recipes", "list") == "No recipes.\n"
    assert world.count("jobs") == 2
    assert "nothing_active" in command("compose", status=1)


def test_commands_export_and_back_up(command: Any, world: Any, tmp_path: Path) -> None:
    """An archive goes to a file and comes back; a backup is made, verified, fetched, restored and deleted."""
    command("recipes", "create", "Kept", "--prompt", "x")
    assert "1 recipes" in command("archives", "export", "out.zip", "--own")
    assert sorted(each.name for each in tmp_path.iterdir() if each.suffix in {".zip", ".part"}) == ["out.zip"]
    world.connection.execute("delete from recipes")
    assert "created" in command("archives", "import", "out.zip", "--dry-run")
    assert world.count("recipes") == 0
    report = json.loads(command("archives", "import", "out.zip", "--json"))
    assert [each["action"] for each in report["recipes"]] == ["created"]
    made = command("archives", "backup").partition(":")[0]
    assert made in command("archives", "list")
    assert command("archives", "verify", made) == "sound\n"
    command("archives", "fetch", made, "backup.zip")
    world.connection.execute("delete from recipes")
    assert "1 recipes" in command("archives", "restore", made, "--yes")
    assert json.loads(command("archives", "schedule", "--hours", "12"))["every_hours"] == 12
    assert json.loads(command("archives", "schedule", "--hours", "0"))["every_hours"] is None
    command("archives", "delete", made)
    assert made not in command("archives", "list")
