"""What those who run the fleet look at: health, metrics, pages, logs, Flower; and that every route's example runs."""

import asyncio
import re
import socket
import subprocess
import sys
import time
from typing import Any, Final
from urllib.parse import urlsplit

import httpx
import pytest
from openapi_spec_validator import validate
from prometheus_client.parser import text_string_to_metric_families

from broker_api.routes import ENDPOINTS
from infra.flower import flower_child, flower_url
from infra.ports import free_port
from models_registry.entries import Kind
from tests.integration.broker_api.library_examples import TAGS, LibraryExamples
from tests.picture_files import png

PICTURE: bytes = png(16, 16)
ADMIN: tuple[Any, ...] = ("admin", "user")


def test_health_and_readiness_need_no_key(live: Any) -> None:
    """Probes carry no secrets."""
    with live.client() as client:
        assert client.get("/healthz").json() == {"status": "ok"}
        assert client.get("/readyz").json() == {"status": "ready", "database": "ok", "redis": "ok"}
        assert client.head("/healthz").status_code == 200


def test_server_starts_without_its_servers(start_server: Any, world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """While database and Redis are away the process lives, says what is missing, and refuses with a 503."""
    monkeypatch.setattr("broker_api.services.WAIT_SECONDS", 0.2)
    nowhere = world.database_url.rpartition("@")[0] + "@127.0.0.1:1/none"
    with (
        start_server(database_url=nowhere, redis_url="redis://127.0.0.1:1/0") as live,
        live.client(world.key()) as client,
    ):
        assert client.get("/healthz").status_code == 200
        ready = client.get("/readyz")
        assert (ready.status_code, ready.json()) == (503, {"status": "unready", "database": "away", "redis": "away"})
        refused = client.post("/v1/jobs", json={"prompt": "x"})
        assert (refused.status_code, refused.json()["code"]) == (503, "database_unavailable")
        assert refused.headers["retry-after"]


def test_openapi_as_served_is_valid_and_describes_the_served_paths(live: Any) -> None:
    """The document a client fetches passes an independent validator."""
    with live.client() as client:
        document = client.get("/openapi.json").json()
    validate(document)
    assert set(document["paths"]) == {endpoint.path for endpoint in ENDPOINTS if endpoint.listed}


#: A plain request of the first is refused, and no checkpoint of true size is small enough to be sent here: both have tests of their own.
ELSEWHERE: Final = {"progressSocket", "uploadModel"}


#: What routes that cannot do without a question are asked.
QUERIES: Final[dict[str, dict[str, str]]] = {
    "recommendSimilar": {"adapter": "shapes-frame"},
    "recommendTogether": {"adapter": "shapes-frame"},
    "recommendForPrompt": {"prompt": "a red circle in a black frame"},
}


@pytest.fixture(scope="module")
def library(shared_world: Any) -> LibraryExamples:
    """Register the adapter that examples name, and return what the library's own are about."""
    shared_world.add_model("shapes-frame", kind=Kind.LORA, native_size=0, latent_factor=0, latent_channels=0)
    return LibraryExamples(shared_world)


@pytest.mark.parametrize(
    "endpoint", [each for each in ENDPOINTS if each.listed and each.name not in ELSEWHERE], ids=lambda each: each.name
)
def test_every_route_runs_as_its_example_says(
    shared_live: Any, shared_world: Any, library: LibraryExamples, endpoint: Any
) -> None:
    """Each route, called as the document shows, answers with a status and a media type the document names."""
    if endpoint.tag in TAGS:
        with shared_live.client(shared_world.key("root", ADMIN)) as client:
            _check_described(endpoint, library.send(client, endpoint))
        return
    worker = shared_world.worker()
    with shared_live.client(shared_world.key("root", ADMIN)) as client:
        job = client.post("/v1/jobs", json={"prompt": "x"}).json()["id"]
        if endpoint.name not in {"cancelJob", "changeJob"}:
            while str(worker.claim().id) != job:
                """Jobs of other routes' examples come first."""
            worker.finish()
        key = client.post("/v1/keys", json={"name": "spare"}).json()["id"]
        batch = client.post("/v1/batches", json={"jobs": [{"prompt": "x"}]}).json()["id"]
        if endpoint.name == "readBatchEvents":
            client.post(f"/v1/batches/{batch}/cancel")
        things = {"keys": key, "batches": batch, "fleet": "shapes-sd15", "recommendations": "shapes-frame"}
        path = endpoint.path.replace("{id}", things.get(endpoint.tag, job)).replace("{n}", "0")
        if endpoint.name == "readSignedImage":
            path = client.post(f"/v1/jobs/{job}/images/0/url", json={}).json()["url"]
        path = path.replace("{name}", "cpu0@test").replace(
            "{sha256}", client.post("/v1/uploads", content=PICTURE).json()["id"] if "{sha256}" in path else ""
        )
        if endpoint.file:
            answer = client.request(endpoint.method, path, content=PICTURE, headers={"content-type": "image/png"})
        else:
            body = dict(endpoint.body.example) if endpoint.body else None
            if endpoint.name == "signIn":
                # No document shows a key that opens something.
                body = {"key": shared_world.key("ann")}
            answer = client.request(endpoint.method, path, json=body, params=QUERIES.get(endpoint.name))
    _check_described(endpoint, answer)


def _check_described(endpoint: Any, answer: httpx.Response) -> None:
    by_status = {each.status: each for each in endpoint.answers}
    assert answer.status_code in by_status, answer.text
    described = by_status[answer.status_code]
    if described.model is not None:
        assert described.model.model_validate_json(answer.content)
    if answer.content:
        given = answer.headers["content-type"].partition(";")[0]
        assert re.fullmatch(described.media_type.replace("*", ".*"), given)


def test_metrics_count_requests_by_route(live: Any, world: Any) -> None:
    """Prometheus gets requests by template, never by id, and the queues."""
    with live.client(world.key("root", ADMIN)) as client:
        job = client.post("/v1/jobs", json={"prompt": "x"}).json()["id"]
        client.get(f"/v1/jobs/{job}")
        client.get("/v1/no/such/path")
        client.request("PROPFIND", "/v1/jobs")
        asyncio.run_coroutine_threadsafe(live.services.snapshots.count(), live.loop).result(5)
        text = client.get("/metrics").text
    assert job not in text
    samples = {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    read = (("method", "GET"), ("route", "/v1/jobs/{id}"), ("status", "200"))
    assert samples["imagefleet_http_requests_total", read] == 1
    assert samples["imagefleet_http_requests_total", (("method", "GET"), ("route", "other"), ("status", "404"))] == 1
    assert samples["imagefleet_jobs_accepted_total", (("task", "txt2img"),)] == 1
    assert samples["imagefleet_jobs", (("queue", "txt2img.cpu"), ("state", "queued"))] == 1
    assert samples["imagefleet_workers_online", (("queue", "txt2img.cpu"),)] == 1


def test_models_speak_to_our_clients_and_openai(live: Any, world: Any) -> None:
    """One answer has both forms; paths of files are in neither; errors have OpenAI's member too."""
    with live.client(world.key()) as client:
        answer = client.get("/v1/models")
        page = answer.json()
    assert [(item["name"], item["is_default"]) for item in page["items"]] == [("shapes-sd15", True)]
    assert page["object"] == "list"
    assert page["data"][0] | {"id": "shapes-sd15", "object": "model"} == page["data"][0]
    assert str(world.home) not in answer.text
    with live.client() as stranger:
        refused = stranger.get("/v1/models").json()
    assert refused["error"] == {
        "message": refused["detail"], "type": "invalid_request_error", "param": None, "code": "unauthorized",
    }  # fmt: skip


def test_status_counts_the_fleet(live: Any, world: Any) -> None:
    """A dashboard's first call."""
    with live.client(world.key()) as client:
        status = client.get("/v1/system/status").json()
    assert (status["database"], status["redis"], status["models"], status["workers_online"]) == ("ok", "ok", 1, 1)


def test_pages_are_served_with_tight_headers(live: Any) -> None:
    """Landing page and docs run no script and load nothing."""
    with live.client() as client:
        for path, text in (("/", "Imagefleet"), ("/docs", "createJob")):
            page = client.get(path)
            assert page.headers["content-type"].startswith("text/html")
            assert "default-src 'none'" in page.headers["content-security-policy"]
            assert text in page.text
        assert (client.get("/flower").status_code, client.get("/flower").headers["location"]) == (307, "/flower/")


def test_requests_are_named_and_logged(live: Any, world: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """The caller's request id is used where it is harmless; the log has it, and never the key."""
    key = world.key()
    with live.client(key) as client:
        assert client.get("/v1/jobs", headers={"x-request-id": "trace-1"}).headers["x-request-id"] == "trace-1"
        odd = client.get("/v1/jobs", headers={"x-request-id": "a b\tc"}).headers["x-request-id"]
        assert re.fullmatch(r"[0-9a-f]{32}", odd)
    logged = capsys.readouterr()
    assert "trace-1" in logged.out
    assert key[16:] not in logged.out + logged.err


def test_slow_body_is_given_up(start_server: Any, world: Any) -> None:
    """A client that stops in the middle of its body does not hold a request for ever."""
    world.changes["body_pause_seconds"] = 0.2
    with start_server() as live:
        place = urlsplit(live.url)
        with socket.create_connection((place.hostname, place.port), timeout=10) as connection:
            head = f"POST /v1/jobs HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {world.key()}\r\nContent-Type: application/json\r\n"
            connection.sendall(f'{head}Content-Length: 100\r\n\r\n{{"prompt"'.encode())
            assert b"body_timeout" in _all_of(connection)
    assert world.count("jobs") == 0


def test_stalled_reader_is_cut(live: Any, world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that takes nothing is cut off after its time; others read on."""
    monkeypatch.setattr("broker_api.streaming.events.STALL_SECONDS", 0.5)
    key = world.key()
    worker = world.worker()
    with live.client(key) as client:
        job = client.post("/v1/jobs", json={"prompt": "x"}).json()["id"]
        place = urlsplit(live.url)
        with socket.socket() as stalled:
            stalled.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            stalled.connect((place.hostname, place.port))
            stalled.sendall(
                f"GET /v1/jobs/{job}/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n\r\n".encode()
            )
            worker.claim()
            _until(lambda: live.services.hub.readers == 1)
            for number in range(30):
                worker.publish("preview", step=number, base64="A" * 200_000)
                time.sleep(0.02)
            _until(lambda: live.services.hub.readers == 0, 5)
            worker.finish()
        assert "succeeded" in client.get(f"/v1/jobs/{job}/events").text


def test_flower_is_shown_to_admins_alone(start_server: Any, world: Any) -> None:
    """The real Flower's pages come through the proxy by Bearer or by password; its absence is a problem document."""
    port = free_port()
    world.changes |= {"flower_url": flower_url(port), "flower_password": "a password of Flower's own"}
    child = flower_child(world.redis_url, port, world.changes["flower_password"])
    admin = world.key("root", ADMIN)
    with start_server() as live, live.client() as client:
        away = client.get("/flower/", headers={"authorization": f"Bearer {admin}"})
        assert (away.status_code, away.json()["code"]) == (503, "flower_unavailable")
        process = subprocess.Popen(child.argv, env=dict(child.env or {}))
        try:
            _flower_pages(client, admin, world.key("ann"))
        finally:
            process.terminate()
            process.wait(10)
    assert sys.executable == child.argv[0]


def _flower_pages(client: httpx.Client, admin: str, user: str) -> None:
    _until(lambda: client.get("/flower/", auth=("anyone", admin)).status_code == 200, 20)
    page = client.get("/flower/workers", headers={"authorization": f"Bearer {admin}"})
    assert page.status_code == 200
    assert "/flower/static/" in page.text
    assert client.get("/flower/static/css/flower.css", auth=("x", admin)).headers["content-type"] == "text/css"
    asked = client.get("/flower/")
    assert (asked.status_code, asked.headers["www-authenticate"][:5]) == (401, "Basic")
    assert client.get("/flower/", auth=("x", "wrong")).headers["www-authenticate"].startswith("Basic")
    assert client.get("/flower/", auth=("x", user)).status_code == 403
    data = {"draw": "1", "start": "0", "length": "10", "search[value]": "", "order[0][column]": "0", "order[0][dir]": "asc",
            "columns[0][data]": "name"}  # fmt: skip
    sent = client.post("/flower/tasks/datatable", data=data, auth=("x", admin))
    assert sent.json()["recordsTotal"] == 0
    foreign = client.post(
        "/flower/tasks/datatable", data=data, auth=("x", admin), headers={"origin": "https://evil.example"}
    )
    assert (foreign.status_code, foreign.json()["code"]) == (403, "origin_foreign")
    foreign = client.post(
        "/flower/tasks/datatable", data=data, auth=("x", admin), headers={"sec-fetch-site": "cross-site"}
    )
    assert foreign.status_code == 403


def _until(condition: Any, seconds: float = 5.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def _all_of(connection: socket.socket) -> bytes:
    data = b""
    while piece := connection.recv(65536):
        data += piece
    return data
