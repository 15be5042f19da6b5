"""The client gets each thing once, whatever the network does."""

import hashlib
import json
import socket
import uuid
from collections.abc import Callable
from typing import Any

import pytest

from client.client import Client
from client.errors import (
    AnswerUnusable,
    ClientError,
    Conflict,
    FleetUnreachable,
    Forbidden,
    Invalid,
    NotFound,
    PictureDamaged,
    Problem,
    RequestUnusable,
    TooMany,
    Unauthorized,
    Unavailable,
)
from jobs.contract import Image, Txt2ImgRequest
from tests.scripted_server import answer

JOB = uuid.UUID("01936f2e-0000-7000-8000-000000000001")
KEY = "if_key"
NOW = "2026-01-01T00:00:00Z"
VIEW: dict[str, Any] = {
    "id": str(JOB),
    "state": "queued",
    "task": "txt2img",
    "model": "m",
    "created_at": NOW,
    "started_at": None,
    "finished_at": None,
    "queue": "txt2img.cpu",
    "progress": {"step": 0, "steps": 4, "fraction": 0},
    "images": [],
    "attempts": 0,
    "losses": 0,
    "request": {
        "model": "m",
        "prompt": "a",
        "width": 64,
        "height": 64,
        "steps": 4,
        "guidance_scale": 5,
        "scheduler": "Euler",
        "seed": 7,
        "preview_every": 1,
    },
    "something_newer": True,
}


def event(epoch: int, seq: int, kind: str) -> str:
    """Write one event as the server does."""
    data = {"job": str(JOB), "epoch": epoch, "seq": seq, "type": kind, "at": NOW, "data": {"text": "\u2028"}}
    return f"id: {epoch}-{seq}\nevent: {kind}\ndata: {json.dumps(data, ensure_ascii=False)}\n\n"


def problem(code: str, field: str | None = None) -> str:
    """Write a problem document."""
    return json.dumps(
        {"type": "/docs", "title": "No", "status": 400, "detail": "Because.", "code": code, "field": field}
    )


@pytest.fixture
def client() -> Callable[..., Client]:
    """Return a function that opens a client with a short patience."""

    def open_client(url: str, key: str | None = KEY, patience: float = 5.0) -> Client:
        return Client(url, key, timeout=5, patience=patience)

    return open_client


def test_submit_sends_what_was_asked_for(play: Any, client: Any) -> None:
    """Fields left out are left out, so that the server fills in the model's own defaults; the key and an idempotency key go along."""
    script = play([answer(json.dumps(VIEW), 202), answer(json.dumps(VIEW), 202)])
    with client(script.url) as fleet:
        view = fleet.submit(Txt2ImgRequest(prompt="a", seed=7), wait=2)
        fleet.submit({"prompt": "b"}, idempotency_key="mine")
    assert (view.id, view.state, view.request.seed) == (JOB, "queued", 7)
    first, second = script.asked
    assert (first.method, first.path, json.loads(first.body)) == ("POST", "/v1/jobs?wait=2", {"prompt": "a", "seed": 7})
    assert first.headers["authorization"] == f"Bearer {KEY}"
    assert len(first.headers["idempotency-key"]) == 32
    assert second.headers["idempotency-key"] == "mine"


def test_submit_that_was_cut_is_repeated_with_the_same_key(play: Any, client: Any) -> None:
    """When the answer is lost the same request is sent again under the same idempotency key."""
    script = play(
        [
            answer(json.dumps(VIEW)),
            b"",
            answer(problem("database_unavailable"), 503, retry_after="0"),
            answer("bad gateway", 502, "text/html"),
            answer(json.dumps(VIEW), 202),
        ]
    )
    with client(script.url) as fleet:
        fleet.read(JOB)
        assert fleet.submit({"prompt": "a"}).id == JOB
    assert len({asked.headers["idempotency-key"] for asked in script.asked[1:]}) == 1
    assert len(script.asked) == 5


def test_fleet_that_never_answered_is_called_unreachable_at_once(client: Any) -> None:
    """Nobody is waited for who was never there."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with client(f"http://127.0.0.1:{port}", patience=600) as fleet:
        for ask in (lambda: fleet.submit({"prompt": "a"}), lambda: list(fleet.events(JOB)), fleet.models):
            with pytest.raises(FleetUnreachable, match=f"127.0.0.1:{port}"):
                ask()


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, Invalid),
        (401, Unauthorized),
        (403, Forbidden),
        (404, NotFound),
        (409, Conflict),
        (410, Problem),
        (413, Invalid),
        (422, Invalid),
        (429, TooMany),
        (500, Unavailable),
    ],
)
def test_problem_is_raised_by_its_status(play: Any, client: Any, status: int, kind: type[Problem]) -> None:
    """A program can tell refusals apart by class and by code, and knows the field."""
    script = play([answer(problem("some_code", "output.format"), status, "application/problem+json", retry_after="3")])
    with client(script.url) as fleet, pytest.raises(Problem) as caught:
        fleet.submit({})
    found = caught.value
    assert (type(found), found.status, found.code, found.field, found.detail) == (
        kind,
        status,
        "some_code",
        "output.format",
        "Because.",
    )
    assert found.retry_after == 3
    assert len(script.asked) == 1


@pytest.mark.parametrize(
    ("body", "status"), [("<html>", 200), ("[]", 200), ("{}", 200), ("<html>", 404), ("{}", 302), ("", 500)]
)
def test_answers_of_something_else_are_called_so(play: Any, client: Any, body: str, status: int) -> None:
    """A web site, a redirect or an older fleet at the address is told from a fleet that refuses."""
    script = play([answer(body, status, location="http://127.0.0.1:9/")])
    with client(script.url) as fleet, pytest.raises(AnswerUnusable):
        fleet.read(JOB)
    assert len(script.asked) == 1


def test_events_are_resumed_where_they_were_cut(play: Any, client: Any) -> None:
    """A stream cut inside a frame goes on behind the last whole one; each event comes once; silence is told."""
    silences = []
    first = (
        "retry: 1000\n\n"
        + event(0, 1, "queued")
        + ": keep-alive\n\n"
        + event(1, 1, "started")
        + event(1, 2, "progress")[:30]
    )
    again = event(1, 1, "started") + event(1, 2, "progress") + event(1, 3, "succeeded") + event(1, 4, "progress")
    script = play(
        [
            answer(first, kind="text/event-stream", length=10_000),
            answer(problem("starting"), 503),
            answer("retry: 1000\n\n", kind="text/event-stream"),
            answer(again, kind="text/event-stream"),
        ]
    )
    with client(script.url) as fleet:
        events = list(fleet.events(JOB, on_silence=lambda: silences.append(1)))
    assert [(found.id, found.type) for found in events] == [
        ("0-1", "queued"),
        ("1-1", "started"),
        ("1-2", "progress"),
        ("1-3", "succeeded"),
    ]
    assert events[0].data == {"text": "\u2028"}
    assert [asked.headers.get("last-event-id") for asked in script.asked] == [None, "1-1", "1-1", "1-1"]
    assert silences == [1]


def test_events_of_a_job_whose_end_was_seen_are_none(play: Any, client: Any) -> None:
    """The server answers nothing to one who has seen the end, and the client stays away."""
    script = play([answer(status=204)])
    with client(script.url) as fleet:
        assert list(fleet.events(JOB, after="1-9")) == []
    assert script.asked[0].headers["last-event-id"] == "1-9"


def test_events_of_an_unknown_job_are_refused(play: Any, client: Any) -> None:
    """A refusal ends the stream as an error and is not tried again."""
    script = play([answer(problem("not_found"), 404)])
    with client(script.url) as fleet, pytest.raises(NotFound):
        list(fleet.events(JOB))


def test_events_give_up_when_patience_ends(play: Any, client: Any) -> None:
    """A fleet that stays away is told to the program in the end."""
    url = play([answer(event(0, 1, "queued"), kind="text/event-stream")]).url
    with client(url, patience=0.5) as fleet:
        events = fleet.events(JOB)
        assert next(events).type == "queued"
        with pytest.raises(FleetUnreachable):
            next(events)


def test_upload_sends_a_picture_as_it_is(play: Any, client: Any) -> None:
    """The bytes are the body; the answer says what jobs name it by."""
    view = {"id": "a" * 64, "sha256": "a" * 64, "mime": "image/png", "width": 8, "height": 8, "bytes": 3}
    script = play([answer(json.dumps(view), 201)])
    with client(script.url) as fleet:
        assert fleet.upload(b"png").id == "a" * 64
    assert (script.asked[0].method, script.asked[0].path, script.asked[0].body) == ("POST", "/v1/uploads", b"png")


def test_picture_is_checked_against_its_record(play: Any, client: Any) -> None:
    """Bytes that are not those recorded are no picture."""
    script = play([answer(b"good", kind="image/png"), answer(b"evil", kind="image/png")])
    image = Image(
        index=2,
        seed=1,
        width=8,
        height=8,
        mime="image/png",
        bytes=4,
        sha256=hashlib.sha256(b"good").hexdigest(),
        url="/x",
    )
    with client(script.url) as fleet:
        assert fleet.picture(JOB, image) == b"good"
        with pytest.raises(PictureDamaged):
            fleet.picture(JOB, image)
    assert script.asked[0].path == f"/v1/jobs/{JOB}/images/2"


def test_lists_and_their_parameters(play: Any, client: Any) -> None:
    """Pages carry their items and the cursor of the next."""
    script = play([answer(json.dumps({"items": [VIEW], "next_cursor": "c"})), answer(json.dumps({"items": []}))])
    with client(script.url) as fleet:
        page = fleet.list(state="queued", limit=1)
        assert ([item.id for item in page.items], page.next_cursor) == ([JOB], "c")
        assert fleet.list(cursor="c").next_cursor is None
    assert [asked.path for asked in script.asked] == ["/v1/jobs?state=queued&limit=1", "/v1/jobs?cursor=c"]


def test_delete_and_keys_are_sent_once(play: Any, client: Any) -> None:
    """What must not happen twice is not repeated by the client itself."""
    script = play([answer(json.dumps({"items": []})), b"", b""])
    with client(script.url) as fleet:
        fleet.list()
        with pytest.raises(FleetUnreachable):
            fleet.delete(JOB)
        with pytest.raises(FleetUnreachable):
            fleet.create_key(owner="a", name="b")
    assert [asked.method for asked in script.asked] == ["GET", "DELETE", "POST"]


@pytest.mark.parametrize("job", ["", "a/b", "../keys", "a?b", "é"])
def test_ids_cannot_lead_elsewhere(client: Callable[..., Client], job: str) -> None:
    """What is no id is not put into a path."""
    with client("http://127.0.0.1:9") as fleet, pytest.raises(RequestUnusable):
        fleet.read(job)


@pytest.mark.parametrize(
    ("url", "key"),
    [
        ("ftp://a", None),
        ("8420", None),
        ("http://", None),
        ("http://a", "a b"),
        ("http://a", "a\nb"),
        ("http://a", "é"),
    ],
)
def test_unusable_addresses_and_keys_are_refused(url: str, key: str | None) -> None:
    """A mistyped address or key is told before anything is sent."""
    with pytest.raises(ClientError):
        Client(url, key)
