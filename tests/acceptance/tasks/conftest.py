"""One fleet with the real engine and every reference model for the tests of all tasks, and how they draw with it."""

import base64
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from tests.acceptance.tasks.other_programs import write_all
from tests.fleet_process import FleetProcess

Pixels = npt.NDArray[np.uint8]
SECONDS = 120


class Studio:
    """Draw over HTTP and return pixels."""

    def __init__(self, fleet: FleetProcess, http: httpx.Client) -> None:
        self.fleet = fleet
        self.http = http

    def submit(self, **request: Any) -> httpx.Response:
        """Send one job and return the answer, whatever it is."""
        return self.http.post("/v1/jobs", json={name: _sendable(value) for name, value in request.items()})

    def view(self, **request: Any) -> dict[str, Any]:
        """Run one job to its success and return its view."""
        answer = self.submit(**request)
        assert answer.status_code == 202, answer.text
        view = self.fleet.wait(self.http, answer.json()["id"], SECONDS)
        assert view["state"] == "succeeded", view
        return view

    def draw(self, **request: Any) -> Pixels:
        """Draw one picture."""
        return self.all(**request)[0]

    def all(self, **request: Any) -> list[Pixels]:
        """Draw every picture of a job."""
        view = self.view(**request)
        return [self.picture(view, index) for index in range(len(view["images"]))]

    def picture(self, view: dict[str, Any], index: int = 0) -> Pixels:
        """Return a picture of a finished job."""
        return pixels(self.http.get(view["images"][index]["url"]).content)

    def refused(self, status: int, **request: Any) -> tuple[str, str | None, str]:
        """Send a job that must be refused, and return code, field and sentence of the answer."""
        answer = self.submit(**request)
        assert answer.status_code == status, answer.text
        problem = answer.json()
        return problem["code"], problem.get("field"), problem["detail"]


def pixels(data: bytes) -> Pixels:
    """Decode a picture file."""
    with Image.open(io.BytesIO(data)) as picture:
        return np.asarray(picture.convert("RGB"))


def encoded(picture: Pixels) -> str:
    """Return a picture (height x width, or x 3) as base64 of a PNG."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def _sendable(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return encoded(value)
    if isinstance(value, dict):
        return {name: _sendable(each) for name, each in value.items()}
    return [_sendable(each) for each in value] if isinstance(value, list) else value


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of models that other programs would have written, made from the reference models."""
    folder = tmp_path_factory.mktemp("models")
    write_all(folder)
    return folder


@pytest.fixture(scope="session")
def fleet(tmp_path_factory: pytest.TempPathFactory, models: Path) -> Iterator[FleetProcess]:
    """Start a fleet of two CPU workers and stop it at the end."""
    running = FleetProcess(tmp_path_factory.mktemp("tasks") / "home", workers=2, threads=1, models=models)
    running.start()
    try:
        yield running
    finally:
        running.stop()


@pytest.fixture(scope="session")
def studio(fleet: FleetProcess) -> Iterator[Studio]:
    """Return something to draw with."""
    with fleet.client() as http:
        yield Studio(fleet, http)
