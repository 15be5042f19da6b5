"""OpenAI's own client against the door, with a painter for the pictures."""

import asyncio
import base64
import contextlib
import io
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import openai
import pytest
from PIL import Image

from broker_api import submission
from jobs.errors import OutOfMemory
from jobs.intake import submit
from jobs.store import fail

ASKED: dict[str, Any] = {"prompt": "a red circle", "size": "64x64"}


def _client(url: str, key: str, sent: list[Any] | None = None, **options: Any) -> openai.OpenAI:
    """Return the client as it is, which tries once; `sent` gets its requests."""
    hooks: dict[str, list[Callable[..., Any]]] = {"request": [] if sent is None else [sent.append]}
    http = openai.DefaultHttpxClient(event_hooks=hooks, trust_env=False)
    return openai.OpenAI(base_url=f"{url}/v1", api_key=key, http_client=http, **({"max_retries": 0} | options))


@pytest.fixture
def client(live: Any, world: Any) -> Iterator[openai.OpenAI]:
    """Return a client with a key of its own."""
    with _client(live.url, world.key()) as found:
        yield found


def _eventually(condition: Callable[[], Any], seconds: float = 15.0) -> Any:
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end
        time.sleep(0.02)
    return found


def _png(mode: str = "RGB", size: tuple[int, int] = (64, 64)) -> bytes:
    file = io.BytesIO()
    Image.new(mode, size).save(file, "PNG")
    return file.getvalue()


def test_pictures_come_as_the_client_knows_them(live: Any, client: openai.OpenAI, painter: Any) -> None:
    """Bytes are those of the job; size, quality, format and usage are said; the job is named in a header."""
    raw = client.images.with_raw_response.generate(**ASKED, n=2, quality="low", user="u", style="vivid")
    done = raw.parse()
    assert done.data is not None
    with live.client(client.api_key) as http:
        job = http.get(f"/v1/jobs/{raw.headers['imagefleet-job']}").json()
        files = [http.get(image["url"]).content for image in job["images"]]
    assert [base64.b64decode(each.b64_json or "") for each in done.data] == files
    assert job["request"]["steps"] == 12
    assert (done.size, done.quality, done.output_format, done.background) == ("64x64", "low", "png", "opaque")
    assert abs(done.created - time.time()) < 60
    assert done.usage is not None
    assert done.usage.to_dict() == {
        "input_tokens": 3, "input_tokens_details": {"text_tokens": 3, "image_tokens": 0}, "output_tokens": 8,
        "output_tokens_details": {"text_tokens": 0, "image_tokens": 8}, "total_tokens": 11,
    }  # fmt: skip
    assert painter.shown


def test_urls_are_read_without_a_key_and_with_one(client: openai.OpenAI, painter: Any) -> None:
    """Until they expire; a changed one is refused."""
    done = client.images.generate(**ASKED, response_format="url")
    assert done.data is not None
    url = str(done.data[0].url)
    assert url.startswith(str(client.base_url).removesuffix("/v1/"))
    with httpx.Client(trust_env=False) as http:
        plain = http.get(url)
        with_key = http.get(url, headers={"authorization": f"Bearer {client.api_key}"})
        assert (plain.status_code, with_key.status_code) == (200, 200)
        assert plain.headers["content-type"] == "image/png"
        assert plain.content == with_key.content
        assert http.get(url.replace("expires=", "expires=9")).status_code == 403
    assert painter.shown


def test_timed_out_client_that_tries_three_times_makes_one_job(live: Any, world: Any, painter: Any) -> None:
    """Each try joins the job of the one before, and whoever asks the same a little later has its picture."""
    painter.gate.clear()
    sent: list[Any] = []
    with _client(live.url, world.key(), sent, max_retries=2, timeout=0.7) as client:
        with pytest.raises(openai.APITimeoutError):
            client.images.generate(**ASKED)
        assert [request.headers["x-stainless-retry-count"] for request in sent] == ["0", "1", "2"]
        assert _eventually(lambda: world.count("jobs")) == 1
        painter.gate.set()
        assert client.with_options(timeout=20).images.generate(**ASKED).data
    assert world.count("jobs") == 1


def test_second_try_joins_although_the_first_is_still_waited_for(
    live: Any, world: Any, painter: Any, in_thread: Any
) -> None:
    """A proxy may hold the first connection open; without the client's count it is another wish."""
    painter.gate.clear()
    path, key = "/v1/images/generations", world.key()
    with live.client(key) as first, live.client(key) as second, live.client(key) as third:
        calls = [in_thread(lambda: first.post(path, json=ASKED))]
        _eventually(lambda: world.count("watches") == 1)
        calls.append(in_thread(lambda: second.post(path, json=ASKED, headers={"x-stainless-retry-count": "1"})))
        _eventually(lambda: live.services.hub.readers == 2)
        calls.append(in_thread(lambda: third.post(path, json=ASKED)))
        _eventually(lambda: world.count("jobs") == 2)
        painter.gate.set()
        jobs = [call().headers["imagefleet-job"] for call in calls]
    assert jobs[0] == jobs[1] != jobs[2]
    assert world.count("jobs") == 2


@pytest.mark.parametrize("servers", [1, 2])
def test_second_try_waits_for_what_the_first_stores(
    application: Any, world: Any, painter: Any, monkeypatch: pytest.MonkeyPatch, servers: int
) -> None:
    """A client may lose its patience before its job is even stored, and its next try may reach another server."""
    begun = asyncio.Event()

    async def slowly(*arguments: Any) -> Any:
        begun.set()
        await asyncio.sleep(0.5)
        return await submit(*arguments)

    monkeypatch.setattr(submission, "submit", slowly)

    async def story() -> None:
        key = world.key()
        async with contextlib.AsyncExitStack() as stack:
            doors = [(await stack.enter_async_context(application(key)))[0] for _ in range(servers)]
            path, again = "/v1/images/generations", {"x-stainless-retry-count": "1"}
            first = asyncio.create_task(doors[0].post(path, json=ASKED))
            await begun.wait()
            second = await doors[-1].post(path, json=ASKED, headers=again)
            assert second.json()["data"] == (await first).json()["data"]

    asyncio.run(story())
    assert world.count("jobs") == len(painter.shown) == 1


def test_hundred_parallel_requests_with_one_key_make_one_job(application: Any, world: Any, painter: Any) -> None:
    """All of them have its picture; the key with another request is refused in a way that is not tried again."""

    async def story() -> None:
        async with application(world.key()) as (http, _):
            named = {"idempotency-key": "one"}
            answers = await asyncio.gather(
                *(http.post("/v1/images/generations", json=ASKED, headers=named) for _ in range(100))
            )
            assert {answer.status_code for answer in answers} == {200}
            assert len({answer.json()["data"][0]["b64_json"] for answer in answers}) == 1
            other = await http.post("/v1/images/generations", json=ASKED | {"n": 2}, headers=named)
            assert (other.status_code, other.json()["error"]["code"]) == (400, "idempotency_mismatch")

    asyncio.run(story())
    assert world.count("jobs") == len(painter.shown) == 1


def test_stream_shows_a_partial_picture_and_then_the_pictures(live: Any, client: openai.OpenAI, painter: Any) -> None:
    """In the format asked for; each event says what the answer says."""
    events: list[Any] = list(
        client.images.generate(
            **ASKED, n=2, stream=True, partial_images=1, output_format="webp", extra_body={"steps": 3}
        )
    )
    kinds = [event.type for event in events]
    assert kinds == ["image_generation.partial_image"] + ["image_generation.completed"] * 2
    with Image.open(io.BytesIO(base64.b64decode(events[0].b64_json))) as partial:
        assert (partial.format, partial.size) == ("WEBP", (8, 8))
    assert (events[0].partial_image_index, events[0].size, events[0].output_format) == (0, "64x64", "webp")
    assert events[1].usage.total_tokens == 11
    with live.client(client.api_key) as http:
        job = http.get("/v1/jobs").json()["items"][0]
        files = [http.get(image["url"]).content for image in job["images"]]
    assert [base64.b64decode(event.b64_json) for event in events[1:]] == files
    assert painter.shown


def test_stream_without_partial_pictures_has_none(client: openai.OpenAI, painter: Any) -> None:
    """Nothing was asked for but the picture."""
    events = list(client.images.generate(**ASKED, stream=True))
    assert [event.type for event in events] == ["image_generation.completed"]
    assert painter.shown


def test_stream_that_breaks_is_joined_by_the_next(live: Any, world: Any, painter: Any) -> None:
    """Whether the next one streams or not; it is watched like any other call."""
    painter.gate.clear()
    with _client(live.url, world.key(), timeout=0.7) as client:
        for _ in range(2):
            with pytest.raises(openai.APITimeoutError):
                list(client.images.generate(**ASKED, stream=True))
            _eventually(lambda: world.connection.execute("select job from watches where not waiting").fetchone())
        painter.gate.set()
        assert list(client.with_options(timeout=20).images.generate(**ASKED, stream=True))
    assert world.count("jobs") == 1
    _eventually(lambda: world.count("watches") == 0)


def test_abandoned_stream_is_cancelled(world: Any, start_server: Callable[..., Any], painter: Any) -> None:
    """Some time after its reader left; the header keeps another one."""
    painter.gate.clear()
    world.changes["hang_up_seconds"] = 0.5
    with start_server() as live, _client(live.url, world.key(), timeout=0.5) as client:
        for headers in ({}, {"Imagefleet-Hang-Up": "keep"}):
            with pytest.raises(openai.APITimeoutError):
                list(client.images.generate(**ASKED, stream=True, extra_headers=headers))
            _eventually(lambda: world.count("watches") == 0)
        states = "select state, cancel_requested_at is not null as asked from jobs order by id"
        _eventually(lambda: world.connection.execute(states).fetchall()[0]["state"] == "cancelled")
        assert not world.connection.execute(states).fetchall()[1]["asked"]


@pytest.mark.parametrize("stream", [False, True])
def test_job_that_fails_is_told_once(live: Any, world: Any, in_thread: Any, *, stream: bool) -> None:
    """Its reason is said, and the client does not draw it again in vain; within a stream it is the last event."""
    sent: list[Any] = []
    trying = _client(live.url, world.key(), sent, max_retries=2)

    def ask() -> Any:
        try:
            return list(trying.images.generate(**ASKED, stream=True)) if stream else trying.images.generate(**ASKED)
        except openai.APIError as error:
            return error

    answer = in_thread(ask)
    _eventually(lambda: live.services.hub.watched)
    job = world.worker().claim()
    fail(world.connection, job.id, job.epoch, 2, OutOfMemory("Too little memory."))
    error = answer()
    assert isinstance(error, openai.APIError if stream else openai.InternalServerError)
    assert "Too little memory. (out_of_memory)" in error.message
    assert (error.code, error.type) == ("job_failed", "server_error")
    assert len(sent) == world.count("jobs") == 1
    trying.close()


@pytest.mark.parametrize("stream", [False, True])
def test_cancelled_job_is_told(live: Any, world: Any, client: openai.OpenAI, in_thread: Any, *, stream: bool) -> None:
    """Whoever cancels it: that is no reason to try again."""

    def ask() -> Any:
        try:
            return list(client.images.generate(**ASKED, stream=True)) if stream else client.images.generate(**ASKED)
        except openai.APIError as error:
            return error

    answer = in_thread(ask)
    _eventually(lambda: live.services.hub.watched)
    with live.client(client.api_key) as http:
        http.post(f"/v1/jobs/{http.get('/v1/jobs').json()['items'][0]['id']}/cancel")
    error = answer()
    assert error.code == "job_gone"
    assert stream or error.status_code == 410
    assert world.count("jobs") == 1


def test_server_that_stops_tells_streams_and_calls(
    world: Any, start_server: Callable[..., Any], in_thread: Any
) -> None:
    """Calls are told to come back soon, and go on with their job at the next server."""
    key = world.key()
    with start_server() as live:
        http = httpx.Client(base_url=live.url, headers={"authorization": f"Bearer {key}"}, trust_env=False, timeout=20)
        call = in_thread(lambda: http.post("/v1/images/generations", json=ASKED))
        stream = in_thread(lambda: http.post("/v1/images/generations", json=ASKED | {"stream": True, "n": 2}))
        _eventually(lambda: len(live.services.hub.watched) == 2)
    assert (call().status_code, call().headers["retry-after"], call().json()["error"]["code"]) == (503, "2", "stopping")
    assert '"code": "stopping"' in stream().text
    http.close()


REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"size": "64"}, "size", "invalid_request"),
    ({"size": "65x64"}, "size", "invalid_request"),
    ({"n": 11}, "n", "invalid_request"),
    ({"model": "no-such"}, "model", "model_unknown"),
    ({"quality": "best"}, "quality", "invalid_request"),
    ({"background": "transparent"}, "background", "invalid_request"),
    ({"output_format": "gif"}, "output_format", "invalid_request"),
    ({"extra_body": {"scheduler": "none such"}}, "scheduler", "scheduler_unknown"),
    ({"extra_body": {"loras": [{"name": "no-such"}]}}, "loras.0.name", "adapter_unknown"),
    ({"extra_body": {"width": 4096, "height": 4096 * 4}}, "width", "invalid_request"),
    ({"extra_headers": {"Idempotency-Key": "x" * 300}}, "Idempotency-Key", "invalid_header"),
]


@pytest.mark.parametrize(("fields", "param", "code"), REFUSED, ids=[str(each[0]) for each in REFUSED])
def test_refusal_is_a_bad_request_of_the_client(
    shared_live: Any, shared_world: Any, fields: dict[str, Any], param: str, code: str
) -> None:
    """With the field at fault and a code; it is sent once, and nothing is stored."""
    sent: list[Any] = []
    with _client(shared_live.url, shared_world.key(), sent, max_retries=2) as client:
        with pytest.raises(openai.BadRequestError) as refused:
            client.images.generate(**(ASKED | fields))
        assert (refused.value.param, refused.value.code, refused.value.type) == (param, code, "invalid_request_error")
        assert len(sent) == 1
    assert shared_world.count("jobs") == 0


def test_edits_refuse_what_cannot_be_edited(shared_live: Any, shared_world: Any) -> None:
    """No picture, two, none at all, a mask that masks nothing or has another size; nothing is stored."""
    cases: list[tuple[Any, Any, str]] = [
        (b"no picture", None, "image"),
        ([_png(), _png()], None, "image"),
        (_png(), _png(), "mask"),
        (_png(), _png("RGBA", (32, 32)), "mask"),
        (_png(), b"no picture", "mask"),
    ]
    with _client(shared_live.url, shared_world.key()) as client:
        for image, mask, param in cases:
            with pytest.raises(openai.BadRequestError) as refused:
                client.images.edit(image=image, prompt="x", **({} if mask is None else {"mask": mask}))
            assert refused.value.param == param
        with pytest.raises(openai.BadRequestError) as refused, pytest.warns(DeprecationWarning, match="deprecated"):
            client.images.create_variation(image=_png(), n=0)
        assert refused.value.param == "n"
    assert shared_world.count("jobs") == shared_world.count("uploads") == 0


def test_every_error_has_openais_form(world: Any, start_server: Callable[..., Any]) -> None:
    """Beside the problem document, whatever turned the request away, before or behind the routes."""
    long = {f"x-{number}": "1" for number in range(101)}
    cases: list[tuple[int, str, str, dict[str, Any]]] = [
        (401, "POST", "/v1/images/generations", {"headers": {"authorization": "Bearer wrong"}, "json": ASKED}),
        (401, "GET", "/v1/models", {"headers": {"authorization": ""}}),
        (404, "GET", "/v1/models/no-such", {}),
        (404, "POST", "/v1/images/none", {}),
        (405, "GET", "/v1/images/edits", {}),
        (400, "POST", "/v1/images/generations", {"content": b"{", "headers": {"content-type": "application/json"}}),
        (400, "POST", "/v1/images/generations", {"json": {}}),
        (400, "GET", "/v1/models", {"headers": long}),
        (415, "POST", "/v1/images/edits", {"json": ASKED}),
        (400, "POST", "/v1/images/edits", {"files": {"x": b"1"}}),
        (400, "POST", "/v1/images/edits", {"files": {"x": b"1"}, "data": {"prompt": "x"}}),
        (413, "POST", "/v1/images/edits", {"content": b"x" * 5000}),
    ]
    world.changes["max_body_bytes"] = 4000
    with start_server() as live, live.client(world.key()) as http:
        for status, method, path, options in cases:
            answer = http.request(method, path, **options)
            assert (answer.status_code, path) == (status, path), answer.text
            body = answer.json()
            assert answer.headers["content-type"] == "application/problem+json"
            assert set(body["error"]) == {"message", "type", "param", "code"}
            assert (body["error"]["message"], body["error"]["code"]) == (body["detail"], body["code"])
            assert body["status"] == status
        assert "error" not in http.get("/v1/jobs/none").json()


def test_models_are_read_one_by_one(shared_live: Any, shared_world: Any) -> None:
    """As OpenAI's client lists and retrieves them; ours are members of the same answer."""
    with _client(shared_live.url, shared_world.key()) as client:
        assert [model.id for model in client.models.list()] == ["shapes-sd15"]
        found = client.models.retrieve("shapes-sd15")
        assert (found.id, found.object, found.owned_by) == ("shapes-sd15", "model", "imagefleet")
        assert found.to_dict()["family"] == "sd15"
        with pytest.raises(openai.NotFoundError) as refused:
            client.models.retrieve("none")
        assert refused.value.code == "not_found"


@pytest.mark.parametrize("masked", [False, True])
def test_edit_becomes_a_job_with_uploads(shared_live: Any, shared_world: Any, *, masked: bool) -> None:
    """Img2img or inpainting; text fields of the form are numbers and lists again."""
    fields = [
        ("prompt", "a cat"), ("n", "2"), ("seed", "7"), ("output_format", "jpeg"), ("strength", "0.5"), ("stream", "false"),
        ("size", "auto"), ("quality", "high"),
    ]  # fmt: skip
    files = [("image[]", _png()), *([("mask", _png("RGBA"))] if masked else [])]
    before = shared_world.count("jobs")
    form = httpx.Request("POST", "http://x", data=dict(fields), files=files)
    with shared_live.client(shared_world.key()) as http, pytest.raises(httpx.ReadTimeout):
        http.post(
            "/v1/images/edits", content=form.read(), timeout=1.0, headers={"content-type": form.headers["content-type"]}
        )
    assert _eventually(lambda: shared_world.count("jobs") - before) == 1
    row = shared_world.connection.execute("select request, uploads from jobs order by id desc limit 1").fetchone()
    request = row["request"]
    assert request["task"] == ("inpaint" if masked else "img2img")
    names = ("num_images", "seed", "strength", "width", "height", "steps")
    assert {name: request[name] for name in names} == dict(zip(names, (2, 7, 0.5, 64, 64, 38), strict=True))
    assert request["output"] == {"format": "jpeg", "quality": 100, "metadata": True}
    assert len(row["uploads"]) == 1 + masked
