"""Bad input: the right 4xx, a stable code, the field's path, and nothing stored."""

import json
import socket
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobs.contract import Txt2ImgRequest

PROMPT: dict[str, Any] = {"prompt": "a red circle"}


def _refused(answer: httpx.Response, status: int, code: str, field: str | None) -> dict[str, Any]:
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    problem: dict[str, Any] = answer.json()
    assert (answer.status_code, problem["status"], problem["code"], problem.get("field")) == (
        status,
        status,
        code,
        field,
    )
    assert problem["type"] == f"/docs#problem-{code}"
    assert problem["title"]
    assert problem["detail"]
    assert problem["request_id"] == answer.headers["x-request-id"]
    return problem


@pytest.mark.parametrize(
    ("changes", "field", "reason"),
    [
        pytest.param({"colour": "red"}, "colour", "unknown_field", id="unknown-field"),
        pytest.param({"output": {"format": "gif"}}, "output.format", "literal_error", id="nested"),
        pytest.param({"output": {"size": 1}}, "output.size", "unknown_field", id="nested-unknown"),
        pytest.param({"output": []}, "output", "model_type", id="nested-wrong-type"),
        pytest.param({"prompt": None}, "prompt", "string_type", id="null"),
        pytest.param({"prompt": 7}, "prompt", "string_type", id="number-for-text"),
        pytest.param({"prompt": "x" * 1_000_000}, "prompt", "too_long", id="prompt-of-1-MB"),
        pytest.param({"prompt": "a\0b"}, "prompt", "string_nul", id="nul"),
        pytest.param({"negative_prompt": ["no"]}, "negative_prompt", "string_type", id="list-for-text"),
        pytest.param({"steps": -1}, "steps", "greater_than_equal", id="negative-steps"),
        pytest.param({"steps": 0}, "steps", "greater_than_equal", id="no-steps"),
        pytest.param({"steps": 201}, "steps", "less_than_equal", id="too-many-steps"),
        pytest.param({"steps": "20"}, "steps", "int_type", id="text-for-number"),
        pytest.param({"steps": 20.5}, "steps", "int_type", id="fraction-for-number"),
        pytest.param({"steps": True}, "steps", "int_type", id="boolean-for-number"),
        pytest.param({"steps": 10**400}, "steps", "less_than_equal", id="number-of-400-digits"),
        pytest.param({"width": 20_000}, "width", "less_than_equal", id="too-wide"),
        pytest.param({"guidance_scale": -0.1}, "guidance_scale", "greater_than_equal", id="negative-guidance"),
        pytest.param({"guidance_scale": "7"}, "guidance_scale", "float_type", id="text-for-fraction"),
        pytest.param({"seed": -2}, "seed", "greater_than_equal", id="seed-too-small"),
        pytest.param({"seed": 2**64}, "seed", "less_than_equal", id="seed-too-large"),
        pytest.param({"num_images": 65}, "num_images", "less_than_equal", id="too-many-images"),
        pytest.param({"priority": 10}, "priority", "less_than_equal", id="priority"),
        pytest.param({"deadline_s": 0}, "deadline_s", "greater_than", id="deadline"),
        pytest.param({"labels": {"a": 1}}, "labels.a", "string_type", id="label"),
        pytest.param({"labels": {"a" * 101: "x"}}, f"labels.{'a' * 101}.[key]", "too_long", id="label-name"),
        pytest.param({"labels": {str(n): "" for n in range(51)}}, "labels", "too_long", id="too-many-labels"),
        pytest.param({"model": ""}, "model", "too_short", id="empty-name"),
        pytest.param({"task": "img2txt"}, "task", "task_unknown", id="unknown-task"),
        pytest.param({"task": 5}, "task", "task_unknown", id="task-of-wrong-type"),
    ],
)  # fmt: skip
def test_create_job_refuses_bad_fields(
    shared_live: Any, shared_world: Any, changes: dict[str, Any], field: str, reason: str
) -> None:
    """A field out of its bounds is named with its path, and no job is stored."""
    with shared_live.client(shared_world.key()) as client:
        problem = _refused(client.post("/v1/jobs", json=PROMPT | changes), 422, "invalid_request", field)
    assert [(error["field"], error["code"]) for error in problem["errors"]] == [(field, reason)]
    assert shared_world.count("jobs") == 0


@pytest.mark.parametrize(
    ("changes", "code", "field"),
    [
        ({"model": "no-such-model"}, "model_unknown", "model"),
        ({"width": 10_000, "height": 10_000}, "size_unsupported", "width"),
        ({"width": 4096, "height": 4096 + 8}, "size_unsupported", "height"),
        ({"width": 130}, "size_unsupported", "width"),
        ({"scheduler": "Eulerr"}, "scheduler_unknown", "scheduler"),
        ({"schedule_type": "wavy"}, "schedule_type_unknown", "schedule_type"),
        ({"hardware": "gpu-9000g"}, "hardware_unknown", "hardware"),
        ({"width": 1600, "height": 1600}, "too_large_for_fleet", None),
    ],
    ids=lambda value: "" if isinstance(value, dict) else value,
)
def test_create_job_refuses_what_cannot_be_done(
    shared_live: Any, shared_world: Any, changes: dict[str, Any], code: str, field: str | None
) -> None:
    """What family or fleet cannot do is refused with its own code, and no job is stored."""
    with shared_live.client(shared_world.key()) as client:
        _refused(client.post("/v1/jobs", json=PROMPT | changes), 422, code, field)
    assert shared_world.count("jobs") == 0


def test_create_job_reports_every_bad_field(shared_live: Any, shared_world: Any) -> None:
    """One answer names all that is wrong, not one thing after the other."""
    with shared_live.client(shared_world.key()) as client:
        problem = _refused(client.post("/v1/jobs", json={"steps": 0, "colour": 1}), 422, "invalid_request", "prompt")
    assert [error["field"] for error in problem["errors"]] == ["prompt", "steps", "colour"]
    assert "2 more" in problem["detail"]


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b'{"prompt": "a', id="cut"),
        pytest.param(b"", id="empty"),
        pytest.param(b"prompt=a", id="form"),
        pytest.param(b'{"prompt": "a", "guidance_scale": NaN}', id="nan"),
        pytest.param(b'{"prompt": "a", "guidance_scale": Infinity}', id="infinity"),
        pytest.param(b'{"prompt": "a", "guidance_scale": -Infinity}', id="minus-infinity"),
        pytest.param(b'{"prompt": "\xff\xfe"}', id="invalid-utf-8"),
        pytest.param('{"prompt": "a"}'.encode("utf-16"), id="utf-16"),
        pytest.param(b'{"prompt": "\\ud800"}', id="lone-surrogate"),
        pytest.param(b"[" * 100_000 + b"]" * 100_000, id="deep-nesting"),
        pytest.param(b'{"a":' * 50_000, id="deep-nesting-cut"),
        pytest.param(b'{"prompt": "a", "steps": ' + b"9" * 10_000 + b"}", id="number-of-10000-digits"),
        pytest.param(b'{"prompt": "a"} {}', id="two-documents"),
        pytest.param(b'{"prompt": "a",}', id="trailing-comma"),
        pytest.param(b"{'prompt': 'a'}", id="single-quotes"),
        pytest.param(b"\x00", id="nul"),
    ],
)
def test_create_job_refuses_what_is_not_json(shared_live: Any, shared_world: Any, body: bytes) -> None:
    """Broken JSON is a 400 whatever is broken about it."""
    with shared_live.client(shared_world.key()) as client:
        answer = client.post("/v1/jobs", content=body, headers={"content-type": "application/json"})
    _refused(answer, 400, "invalid_json", None)
    assert shared_world.count("jobs") == 0


@pytest.mark.parametrize("body", [b"null", b"[]", b'"text"', b"7", b"true"])
def test_create_job_refuses_json_that_is_no_object(shared_live: Any, shared_world: Any, body: bytes) -> None:
    """JSON of another kind is read, and refused as a whole."""
    with shared_live.client(shared_world.key()) as client:
        answer = client.post("/v1/jobs", content=body, headers={"content-type": "application/json"})
    _refused(answer, 422, "invalid_request", None)


def test_create_job_refuses_extreme_fractions(shared_live: Any, shared_world: Any) -> None:
    """A number that overflows to infinity is no number."""
    body = b'{"prompt": "a", "guidance_scale": 1e999}'
    with shared_live.client(shared_world.key()) as client:
        answer = client.post("/v1/jobs", content=body, headers={"content-type": "application/json"})
    assert answer.status_code in {400, 422}
    assert answer.json()["code"] in {"invalid_json", "invalid_request"}
    assert shared_world.count("jobs") == 0


@pytest.mark.parametrize(
    ("headers", "status", "code", "field"),
    [
        ({"content-type": "text/plain"}, 415, "media_type_unsupported", "Content-Type"),
        ({"content-type": "application/x-www-form-urlencoded"}, 415, "media_type_unsupported", "Content-Type"),
        ({"content-type": "multipart/form-data; boundary=x"}, 415, "media_type_unsupported", "Content-Type"),
        ({"content-encoding": "gzip"}, 415, "media_type_unsupported", "Content-Encoding"),
        ({"idempotency-key": ""}, 400, "invalid_header", "Idempotency-Key"),
        ({"idempotency-key": "k" * 256}, 400, "invalid_header", "Idempotency-Key"),
        ({"idempotency-key": "caf\xe9"}, 400, "invalid_header", "Idempotency-Key"),
        ({"x-padding": "x" * 33_000}, 400, "invalid_header", None),
    ],
)  # fmt: skip
def test_create_job_refuses_bad_headers(
    shared_live: Any, shared_world: Any, headers: dict[str, str], status: int, code: str, field: str | None
) -> None:
    """Headers that cannot be followed are named."""
    sent = {name: value.encode("latin-1") for name, value in ({"content-type": "application/json"} | headers).items()}
    with shared_live.client(shared_world.key()) as client:
        answer = client.post("/v1/jobs", content=json.dumps(PROMPT), headers=sent)
    _refused(answer, status, code, field)
    assert shared_world.count("jobs") == 0


@pytest.mark.parametrize(
    ("path", "status", "code", "field"),
    [
        ("/v1/jobs?limit=0", 422, "invalid_request", "limit"),
        ("/v1/jobs?limit=201", 422, "invalid_request", "limit"),
        ("/v1/jobs?limit=ten", 422, "invalid_request", "limit"),
        ("/v1/jobs?limit=" + "9" * 5000, 422, "invalid_request", "limit"),
        ("/v1/jobs?state=lost", 422, "invalid_request", "state"),
        ("/v1/jobs?state=%00", 422, "invalid_request", "state"),
        ("/v1/jobs?cursor=nonsense", 422, "cursor_invalid", "cursor"),
        ("/v1/jobs?cursor=%00%ff", 422, "cursor_invalid", "cursor"),
        ("/v1/jobs?cursor=", 422, "cursor_invalid", "cursor"),
        ("/v1/jobs?page=2", 422, "invalid_request", "page"),
        ("/v1/jobs?%zz=%", 422, "invalid_request", "%zz"),
        ("/v1/jobs?limit=" + "1" * 9000, 400, "invalid_header", None),
        ("/v1/jobs/not-an-id", 404, "not_found", None),
        ("/v1/jobs/%00", 404, "not_found", None),
        ("/v1/jobs/%ff%fe", 404, "not_found", None),
        ("/v1/jobs/%zz", 404, "not_found", None),
        ("/v1/jobs/..%2f..%2fetc", 404, "not_found", None),
        ("/v1/jobs/{00000000-0000-0000-0000-000000000000}", 404, "not_found", None),
        ("/v1/jobs/00000000000000000000000000000000", 404, "not_found", None),
        ("/v1/jobs/x/events", 404, "not_found", None),
        ("/v1/jobs/x/images/0", 404, "not_found", None),
        ("/v1/jobs/00000000-0000-0000-0000-000000000000/images/-1", 404, "not_found", None),
        ("/v1/jobs/00000000-0000-0000-0000-000000000000/images/1.5", 404, "not_found", None),
        ("/v1/jobs/00000000-0000-0000-0000-000000000000/images/99999999999999999999", 404, "not_found", None),
        ("/v1/jobs/", 404, "not_found", None),
        ("/v1/nothing", 404, "not_found", None),
        ("//v1/jobs", 404, "not_found", None),
    ],
)
def test_get_refuses_bad_paths_and_queries(
    shared_live: Any, shared_world: Any, path: str, status: int, code: str, field: str | None
) -> None:
    """Whatever stands in a path or a query, the answer is a 4xx."""
    # Over a bare socket: a client library would mend the path.
    answer = _raw(shared_live.url, f"GET {path} HTTP/1.1\r\nAuthorization: Bearer {shared_world.key()}")
    _refused(answer, status, code, field)


@pytest.mark.parametrize(
    "head",
    [
        b"GET /v1/jobs/\xff\xfe HTTP/1.1\r\nHost: x",
        b"GET /v1/jobs HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer \xc3\x28",
        b"GET /v1/jobs HTTP/1.1\r\nHost: x\r\nHost: y",
        b"GET http://[::1/v1/jobs HTTP/1.1\r\nHost: x",
        b"GET * HTTP/1.1\r\nHost: x",
        b"POST /v1/jobs HTTP/1.1\r\nHost: x\r\nContent-Length: -1",
        b"POST /v1/jobs HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\nContent-Length: 10",
        b"POST /v1/jobs HTTP/1.1\r\nHost: x\r\nContent-Length: " + b"9" * 500,
        b"POST /v1/jobs HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked",
        b"GET /v1/jobs HTTP/9.9\r\nHost: x",
        b"GET /v1/jobs HTTP/1.1\r\n" + b"x: y\r\n" * 150 + b"Host: x",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"CONNECT example.com:443 HTTP/1.1\r\nHost: example.com",
    ],
)
def test_broken_http_is_never_a_server_error(shared_live: Any, head: bytes) -> None:
    """What is no proper HTTP is refused or dropped, and the next client is served."""
    place = urlsplit(shared_live.url)
    with socket.create_connection((place.hostname, place.port), timeout=5) as connection:
        connection.sendall(head + b"\r\nConnection: close\r\n\r\n")
        answer = b""
        try:
            while piece := connection.recv(65536):
                answer += piece
        except ConnectionResetError:
            pass
    assert answer == b"" or answer[9:10] == b"4", answer
    with shared_live.client() as client:
        assert client.get("/healthz").status_code == 200


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
FIELDS = st.dictionaries(st.sampled_from(sorted(Txt2ImgRequest.model_fields)) | st.text(max_size=12), JSON, max_size=6)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    body=FIELDS | JSON, query=st.dictionaries(st.sampled_from(["wait", "limit", "x"]), st.text(max_size=6), max_size=2)
)
def test_no_json_makes_the_server_fail(
    fuzzed: httpx.Client, shared_world: Any, body: Any, query: dict[str, str]
) -> None:
    """Whatever is sent as JSON, the answer is an acceptance or a problem document of the 400s."""
    query = {name: value for name, value in query.items() if name != "wait" or not value[:1].isdigit()}
    answer = fuzzed.post(
        "/v1/jobs", params=query, content=json.dumps(body), headers={"content-type": "application/json"}
    )
    assert answer.status_code == 202 or 400 <= answer.status_code < 500, answer.text
    if answer.status_code == 202:
        # Other tests of this module count what was stored.
        shared_world.connection.execute("delete from jobs")
        return
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["code"]


@pytest.fixture(scope="module")
def fuzzed(shared_live: Any, shared_world: Any) -> Iterator[httpx.Client]:
    """Speak to the shared server."""
    with shared_live.client(shared_world.key()) as client:
        yield client


def test_wait_is_bounded(shared_live: Any, shared_world: Any) -> None:
    """Nobody holds a connection for a day."""
    with shared_live.client(shared_world.key()) as client:
        for wait in ("601", "-1", "nan", "inf", "soon"):
            _refused(client.post("/v1/jobs", params={"wait": wait}, json=PROMPT), 422, "invalid_request", "wait")
    assert shared_world.count("jobs") == 0


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE", "TRACE", "BREW"])
def test_other_methods_are_refused_with_what_is_allowed(shared_live: Any, shared_world: Any, method: str) -> None:
    """405 names the methods of the path; OPTIONS does so without a key."""
    with shared_live.client(shared_world.key()) as client:
        answer = client.request(method, "/v1/jobs")
        asked = client.options("/v1/jobs")
    if method == "BREW":
        # No HTTP method: refused before anything of ours sees it.
        assert answer.status_code == 400
        return
    _refused(answer, 405, "method_not_allowed", None)
    assert answer.headers["allow"] == asked.headers["allow"] == "GET, HEAD, OPTIONS, POST"


@pytest.mark.parametrize(
    ("authorization", "code"),
    [
        (None, "unauthorized"),
        ("", "unauthorized"),
        ("Bearer", "unauthorized"),
        ("Basic YTpi", "unauthorized"),
        ("Bearer nonsense", "key_invalid"),
        ("Bearer \xff\xff", "key_invalid"),
        ("Bearer " + "x" * 5000, "key_invalid"),
    ],
)
def test_every_keyed_path_refuses_strangers(shared_live: Any, authorization: str | None, code: str) -> None:
    """Without a good key the answer is 401 and says how to send one, before anything else of the request is looked at."""
    headers = {} if authorization is None else {"authorization": authorization.encode("latin-1")}
    with shared_live.client() as client:
        for method, path in (
            ("GET", "/v1/jobs"),
            ("POST", "/v1/jobs"),
            ("GET", f"/v1/jobs/{uuid4()}"),
            ("GET", "/metrics"),
        ):
            answer = client.request(method, path, headers=headers)
            _refused(answer, 401, code, None)
            assert answer.headers["www-authenticate"] == "Bearer"


def test_oversized_body_is_refused_without_being_read(start_server: Any, world: Any) -> None:
    """A body that announces too much is refused at its first byte, one that does not say is cut where the limit is passed."""
    world.changes["max_body_bytes"] = 100_000
    with start_server() as live:
        head = f"POST /v1/jobs HTTP/1.1\r\nAuthorization: Bearer {world.key()}\r\nContent-Type: application/json\r\n"
        announced = _raw(live.url, head + "Content-Length: 10000000000")
        _refused(announced, 413, "body_too_large", None)
        assert announced.headers["connection"] == "close"
        chunk = "4000\r\n" + "x" * 0x4000 + "\r\n"
        streamed = _raw(live.url, head + "Transfer-Encoding: chunked", chunk * 10)
        _refused(streamed, 413, "body_too_large", None)
        fitting = json.dumps(PROMPT | {"labels": {"a": "x" * 100}})
        with live.client(world.key()) as client:
            assert (
                client.post("/v1/jobs", content=fitting, headers={"content-type": "application/json"}).status_code
                == 202
            )
    assert world.count("jobs") == 1


def test_duplicate_keys_are_tolerated(live: Any, world: Any) -> None:
    """As everywhere on the web, of two equal keys the last one counts."""
    with live.client(world.key()) as client:
        body = b'{"prompt": "first", "prompt": "last"}'
        answer = client.post(
            "/v1/jobs", content=body, headers={"content-type": "application/vnd.x+json; charset=utf-8"}
        )
    assert answer.status_code == 202
    assert answer.json()["request"]["prompt"] == "last"


def test_unknown_hosts_are_refused_where_hosts_are_listed(start_server: Any, world: Any) -> None:
    """A list of host names keeps out pages that point a name of their own at this server; the machine itself comes in."""
    world.changes |= {"hosts": "gallery.example, Images.example", "host": "Box.local"}
    names = ("images.EXAMPLE:8420", "gallery.example", "127.0.0.1", "localhost:8420", "[::1]:8420", "box.local")
    with start_server() as live, live.client() as client:
        assert client.get("/healthz").status_code == 200
        assert {client.get("/healthz", headers={"host": name}).status_code for name in names} == {200}
        _refused(client.get("/healthz", headers={"host": "evil.example"}), 421, "host_unknown", "Host")


def _raw(url: str, head: str, body: str = "") -> httpx.Response:
    """Send a request as it is written and read the whole answer."""
    place = urlsplit(url)
    with socket.create_connection((place.hostname, place.port), timeout=10) as connection:
        connection.sendall(f"{head}\r\nHost: {place.netloc}\r\nConnection: close\r\n\r\n{body}".encode("latin-1"))
        data = b""
        while piece := connection.recv(65536):
            data += piece
    status, _, rest = data.partition(b"\r\n")
    lines, _, content = rest.partition(b"\r\n\r\n")
    headers = [tuple(line.split(b": ", 1)) for line in lines.split(b"\r\n")]
    return httpx.Response(int(status.split()[1]), headers=headers, content=content)  # type: ignore[arg-type]
