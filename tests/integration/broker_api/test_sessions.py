"""A browser's session: what it opens, whom it belongs to, and who cannot use it."""

import contextlib
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Origin

from broker_api.auth.sessions import COOKIE
from tests.fleet_process import eventually

PATHS = ("/v1/jobs", "/v1/workers", "/v1/results", "/sdapi/v1/options")


@contextlib.contextmanager
def _sign_in(live: Any, key: str) -> Iterator[httpx.Client]:
    with live.client() as client:
        answer = client.post("/v1/session", json={"key": key})
        assert answer.status_code == 200, answer.text
        yield client


def test_session_opens_what_its_key_opens(shared_live: Any, clean_world: Any) -> None:
    """With the cookie alone every door knows the owner; without it none does."""
    with _sign_in(shared_live, clean_world.key("ann")) as client:
        for path in PATHS:
            assert client.get(path).status_code == 200, path
        created = client.post("/v1/jobs", json={"prompt": "a red circle on a blue background"})
        assert created.status_code == 202
        assert client.get("/v1/session").json()["owner"] == "ann"
        assert client.get("/v1/keys").status_code == 403
        job = created.json()["id"]
    with _sign_in(shared_live, clean_world.key("ben")) as other, shared_live.client() as nobody:
        assert other.get(f"/v1/jobs/{job}").status_code == 404
        assert all(nobody.get(path).status_code == 401 for path in PATHS)
        assert nobody.get("/v1/session").json() == {
            "signed_in": False, "owner": None, "key_id": None, "scopes": None, "expires_at": None,
        }  # fmt: skip


def test_cookie_cannot_be_read_sent_or_guessed_by_others(shared_live: Any, clean_world: Any) -> None:
    """It is http-only, same-site and, over TLS, secure; it does not hold the key, and one changed in any part is nobody's."""
    key = clean_world.key("ann")
    with shared_live.client() as client:
        plain = client.post("/v1/session", json={"key": key}).headers["set-cookie"].lower()
        host = httpx.URL(shared_live.url).netloc.decode()
        secure = (
            client.post("/v1/session", json={"key": key}, headers={"origin": f"https://{host}"})
            .headers["set-cookie"]
            .lower()
        )
        good = client.cookies[COOKIE]
    assert "httponly" in plain
    assert "samesite=strict" in plain
    assert "secure" not in plain
    assert "; secure" in secure
    assert key not in good
    key_id, expires, signature = good.split(".")
    other_id = clean_world.key("ben").split("_")[1]
    for forged in (
        f"{other_id}.{expires}.{signature}",
        f"{key_id}.{int(expires) + 1}.{signature}",
        f"{key_id}.{expires}.",
        "a",
        "…",
        "." * 300,
    ):
        with shared_live.client() as client:
            headers = {"cookie": f"{COOKIE}={forged}".encode()}
            assert client.get("/v1/jobs", headers=headers).status_code == 401, forged
            assert client.get("/v1/session", headers=headers).json()["signed_in"] is False


def test_session_ends_with_its_key(shared_live: Any, clean_world: Any) -> None:
    """Revoking the key signs every browser out within a second; signing out forgets the cookie."""
    admin = clean_world.key("root", ("admin",))
    with _sign_in(shared_live, clean_world.key("ann")) as client, shared_live.client(admin) as root:
        key_id = client.get("/v1/session").json()["key_id"]
        assert root.delete(f"/v1/keys/{key_id}").status_code == 204
        eventually(lambda: client.get("/v1/jobs").status_code == 401, 5)
    with _sign_in(shared_live, clean_world.key("ben")) as client:
        assert client.delete("/v1/session").status_code == 204
        assert client.get("/v1/jobs").status_code == 401


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ],
)
def test_other_sites_cannot_use_a_session(shared_live: Any, clean_world: Any, headers: dict[str, str]) -> None:
    """A page elsewhere that makes the browser send a request changes nothing, and cannot sign anyone in or out."""
    key = clean_world.key("ann")
    with _sign_in(shared_live, key) as client:
        for method, path, body in (
            ("POST", "/v1/jobs", {"prompt": "a"}), ("POST", "/v1/session", {"key": key}), ("DELETE", "/v1/session", None),
            ("POST", "/sdapi/v1/txt2img", {"prompt": "a"}),
        ):  # fmt: skip
            answer = client.request(method, path, json=body, headers=headers)
            assert answer.status_code == 403, path
        assert clean_world.count("jobs") == 0
        own = {"origin": shared_live.url, "sec-fetch-site": "same-origin"}
        assert client.post("/v1/jobs", json={"prompt": "a"}, headers=own).status_code == 202


def test_bearer_key_needs_no_origin(shared_live: Any, clean_world: Any) -> None:
    """Who sends a key in the header proves by it that no browser was tricked: the cookie beside it does not count."""
    with _sign_in(shared_live, clean_world.key("ann")) as client:
        headers = {"authorization": f"Bearer {clean_world.key('ben')}", "origin": "https://studio.example"}
        answer = client.post("/v1/jobs", json={"prompt": "a"}, headers=headers)
        assert answer.status_code == 202
        assert client.get(f"/v1/jobs/{answer.json()['id']}").status_code == 404


def test_session_opens_streams_and_sockets(shared_live: Any, clean_world: Any) -> None:
    """A browser that has signed in follows its jobs; a page elsewhere cannot, not even one that the operator lists for keys."""
    with _sign_in(shared_live, clean_world.key("ann")) as client:
        job = client.post("/v1/jobs", json={"prompt": "a"}).json()["id"]
        with client.stream("GET", f"/v1/jobs/{job}/events") as answer:
            assert answer.status_code == 200
        cookie = f"{COOKIE}={client.cookies[COOKIE]}"
    url = shared_live.url.replace("http", "ws") + "/v1/ws/progress"
    with connect(url, proxy=None, additional_headers={"cookie": cookie}, origin=Origin(shared_live.url)) as socket:
        socket.send(f'{{"type": "subscribe", "jobs": ["{job}"]}}')
        assert job in str(socket.recv(timeout=10))
    for headers, origin, status in (
        ({"cookie": cookie}, "https://evil.example", 403),
        ({}, shared_live.url, 401),
        ({"cookie": f"{cookie}0"}, shared_live.url, 401),
    ):
        with (
            pytest.raises(InvalidStatus) as refused,
            connect(url, proxy=None, additional_headers=headers, origin=Origin(origin)),
        ):
            pass
        assert refused.value.response.status_code == status
