"""A whole fleet as a user starts it, in a folder and on a port of its own."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import psutil

from infra.ports import free_port

START_SECONDS = 120.0


def eventually(condition: Callable[[], Any], seconds: float = 60.0, pause: float = 0.1) -> Any:
    """Wait until something is true and return it; fail when it never is."""
    end = time.monotonic() + seconds
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < end, f"it never came true within {seconds} s"
        time.sleep(pause)


class FleetProcess:
    """Run `imagefleet up` and speak to it as people do: by its commands and over HTTP."""

    def __init__(self, home: Path, *, workers: int = 2, options: Sequence[str] = (), **settings: object) -> None:
        self.home = home
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = home.with_suffix(".log")
        self._settings = {name.upper(): str(value) for name, value in settings.items()}
        self._options = [*options, "--workers", str(workers)]
        self._workers = workers
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def env(self) -> Mapping[str, str]:
        """Return the environment of every command of this fleet."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("IMAGEFLEET_")}
        own = {"HOME": str(self.home), "PORT": str(self.port), **self._settings}
        return kept | {f"IMAGEFLEET_{name}": value for name, value in own.items()}

    @property
    def key(self) -> str:
        """Return the first admin key."""
        return (self.home / "api-key").read_text().strip()

    def start(self) -> None:
        """Start everything and wait until jobs can be drawn."""
        while not self._came_up():
            # A server of another test has taken the port since it was found free.
            self.port = free_port()
            self.url = f"http://127.0.0.1:{self.port}"

    def _came_up(self) -> bool:
        """Start and wait; return false when another program listens on the port."""
        with self.log.open("ab") as log:
            said_before = log.tell()
            self._process = subprocess.Popen(
                [sys.executable, "-m", "cli.main", "up", *self._options],
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        process = self._process
        eventually(lambda: process.poll() is not None or self._ready(), START_SECONDS)
        if process.poll() is None:
            return True
        said = self.log.read_bytes()[said_before:].decode()
        assert "Something listens on port" in said, said
        return False

    def _ready(self) -> bool:
        with contextlib.suppress(httpx.HTTPError, FileNotFoundError), self.client() as client:
            if client.get("/readyz").status_code == 200:
                online = [worker for worker in client.get("/v1/workers").json()["items"] if worker["online"]]
                return len(online) >= self._workers
        return False

    def stop(self) -> int:
        """Stop as Ctrl-C does and return the exit status."""
        assert self._process is not None
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
        try:
            return self._process.wait(60)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def kill(self) -> None:
        """Kill the supervisor as a crash would."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    @property
    def pid(self) -> int:
        """Return the process id of `imagefleet up`."""
        assert self._process is not None
        return self._process.pid

    def client(self, key: str | None = None, timeout: float = 60.0) -> httpx.Client:
        """Return an HTTP client that sends the fleet's key."""
        return httpx.Client(base_url=self.url, headers={"Authorization": f"Bearer {key or self.key}"}, timeout=timeout)

    def command(self, *arguments: str, timeout: float = 120.0) -> subprocess.CompletedProcess[str]:
        """Run one `imagefleet` command in the home's parent folder."""
        return subprocess.run(
            [sys.executable, "-m", "cli.main", *arguments],
            env={**self.env, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            cwd=self.home.parent,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def processes(self, title: str) -> list[psutil.Process]:
        """Return the fleet's processes whose title begins with `imagefleet: <title>`."""
        found = []
        for process in psutil.Process(self.pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if " ".join(process.cmdline()).startswith(f"imagefleet: {title}"):
                    found.append(process)
        return found

    def services(self) -> dict[str, Any]:
        """Return where the embedded servers are."""
        found: dict[str, Any] = json.loads((self.home / "services.json").read_text())
        return found

    def submit(self, client: httpx.Client, prompt: str = "a red circle on a blue background", **fields: object) -> str:
        """Submit a job and return its id."""
        answer = client.post("/v1/jobs", json={"prompt": prompt, **fields})
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    def wait(self, client: httpx.Client, job: str, seconds: float = 120.0) -> dict[str, Any]:
        """Wait until a job has ended and return its view."""

        def ended() -> dict[str, Any] | None:
            with contextlib.suppress(httpx.TransportError):
                answer = client.get(f"/v1/jobs/{job}")
                if answer.status_code < 500:
                    view: dict[str, Any] = answer.json()
                    return view if view["state"] in {"succeeded", "failed", "cancelled"} else None
            return None

        found: dict[str, Any] = eventually(ended, seconds)
        return found

    def events(self, client: httpx.Client, job: str, last_event_id: str | None = None) -> Iterator[dict[str, Any]]:
        """Yield the frames of a job's event stream: `id`, `event`, and `data` as JSON."""
        headers = {"Last-Event-ID": last_event_id} if last_event_id else {}
        with client.stream("GET", f"/v1/jobs/{job}/events", headers=headers) as answer:
            assert answer.status_code == 200
            frame: dict[str, Any] = {}
            for line in answer.iter_lines():
                if not line and "data" in frame:
                    frame["data"] = json.loads(frame["data"])
                    yield frame
                    frame = {}
                elif line and not line.startswith(":"):
                    name, _, value = line.partition(":")
                    frame[name] = value.removeprefix(" ")
