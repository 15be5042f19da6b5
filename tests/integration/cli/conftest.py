"""Run the command as people do, in this process."""

import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from cli.main import run
from tests.scripted_server import Script, player


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    status: int
    out: str
    err: str


Command = Callable[..., Done]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Callable[..., Done]:
    """Return a function that runs `imagefleet …` in an empty folder with these settings."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("IMAGEFLEET_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "200")

    def execute(*arguments: str, **settings: str) -> Done:
        with monkeypatch.context() as patch:
            for name, value in settings.items():
                patch.setenv(f"IMAGEFLEET_{name.upper()}", value)
            patch.setattr(sys, "argv", ["imagefleet", *arguments])
            with pytest.raises(SystemExit) as ended:
                run()
        captured = capsys.readouterr()
        code = ended.value.code
        return Done(code if isinstance(code, int) else int(code is not None), captured.out, captured.err)

    return execute


@pytest.fixture
def play() -> Iterator[Callable[[list[bytes]], Script]]:
    """Return a function that starts a server with a script."""
    with player() as start:
        yield start


@pytest.fixture
def view() -> Callable[..., dict[str, object]]:
    """Return a function that makes a job as the API shows it."""

    def make(**changes: object) -> Mapping[str, object]:
        base: dict[str, object] = {
            "id": "01936f2e-0000-7000-8000-000000000001",
            "state": "queued",
            "task": "txt2img",
            "model": "shapes-sd15",
            "created_at": "2026-01-01T00:00:00Z",
            "started_at": None,
            "finished_at": None,
            "queue": "txt2img.cpu",
            "progress": {"step": 0, "steps": 4, "fraction": 0},
            "images": [],
            "attempts": 0,
            "losses": 0,
            "request": {
                "model": "shapes-sd15",
                "prompt": "a [red] circle",
                "width": 64,
                "height": 64,
                "steps": 4,
                "guidance_scale": 5,
                "scheduler": "DPM++ 2M",
                "schedule_type": "karras",
                "seed": 7,
                "preview_every": 1,
            },
        }
        return base | changes

    return make  # type: ignore[return-value]
