"""Pictures over HTTP: the recorded bytes or none."""

from pathlib import Path
from typing import Any

import pytest

DATA = b"\x89PNG a picture of a red circle" * 20_000


@pytest.fixture
def world(clean_world: Any) -> Any:
    """Share one world, emptied before each test."""
    return clean_world


@pytest.fixture
def live(shared_live: Any) -> Any:
    """Share one server."""
    return shared_live


def _drawn(client: Any, world: Any) -> str:
    job: str = client.post("/v1/jobs", json={"prompt": "x"}).json()["id"]
    worker = world.worker()
    worker.claim()
    worker.finish(DATA)
    return job


def test_picture_is_served_with_its_hash(live: Any, world: Any) -> None:
    """Bytes, ETag and the headers that keep a browser from doing anything else with them; and a copy is recognised."""
    with live.client(world.key()) as client:
        job = _drawn(client, world)
        view = client.get(f"/v1/jobs/{job}").json()["images"][0]
        answer = client.get(view["url"])
        assert answer.content == DATA
        assert answer.headers["etag"] == f'"{view["sha256"]}"'
        assert answer.headers["content-type"] == "image/png"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["content-disposition"].startswith("inline; filename=")
        assert answer.headers["content-disposition"].endswith('-0.png"')
        assert answer.headers["cache-control"].startswith("private")
        assert "immutable" in answer.headers["cache-control"]
        head = client.head(view["url"])
        assert (head.content, head.headers["content-length"]) == (b"", str(len(DATA)))
        for known in (answer.headers["etag"], f'W/{answer.headers["etag"]}, "x"', "*"):
            again = client.get(view["url"], headers={"if-none-match": known})
            assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", answer.headers["etag"])
        assert client.get(view["url"], headers={"if-none-match": '"other"'}).status_code == 200
        assert client.get(f"/v1/jobs/{job}/images/1").status_code == 404
        assert client.get(f"/v1/jobs/{job}/images/00").status_code == 404


@pytest.mark.parametrize(
    ("harm", "status", "code"),
    [
        ("flip", 502, "picture_damaged"),
        ("cut", 502, "picture_damaged"),
        ("delete", 410, "picture_missing"),
        ("unmount", 503, "storage_unavailable"),
    ],
)
def test_damaged_picture_is_never_served(live: Any, world: Any, harm: str, status: int, code: str) -> None:
    """One flipped bit, a cut file, a lost file: the answer says so instead of showing something."""
    with live.client(world.key()) as client:
        job = _drawn(client, world)
        storage = Path(world.home) / "storage"
        file = next(path for path in storage.rglob("*.png") if job in str(path))
        if harm == "flip":
            file.write_bytes(DATA[:-1] + bytes([DATA[-1] ^ 1]))
        elif harm == "cut":
            file.write_bytes(DATA[:-1])
        elif harm == "delete":
            file.unlink()
        else:
            storage.rename(storage.with_name("elsewhere"))
        answer = client.get(f"/v1/jobs/{job}/images/0")
        if harm == "unmount":
            storage.with_name("elsewhere").rename(storage)
    assert (answer.status_code, answer.json()["code"]) == (status, code)


def test_picture_of_a_job_that_has_not_ended_is_not_there(live: Any, world: Any) -> None:
    """Nothing half-done is ever served."""
    with live.client(world.key()) as client:
        job = client.post("/v1/jobs", json={"prompt": "x"}).json()["id"]
        assert client.get(f"/v1/jobs/{job}/images/0").status_code == 404
