"""Downloads over HTTP, fetched by a keeper's threads."""

import json
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from keeper.pulling import pulling
from tests.lora_file import lora_bytes
from tests.model_sources import Sources, serve_sources, sha256

LORA = lora_bytes()
UNKNOWN = "01990000-0000-7000-8000-000000000000"


@pytest.fixture
def sources() -> Iterator[Sources]:
    """Serve sites with one LoRA on them."""
    with serve_sources() as served:
        served.repos["ada/hats"] = {"hats.safetensors": LORA}
        yield served


@pytest.fixture
def client(sources: Sources, world: Any, start_server: Any) -> Iterator[httpx.Client]:
    """Return a client of an API that may fetch from the sites."""
    world.changes.update(
        fetch_allow="127.0.0.1,localhost", hub_endpoint=sources.url, civitai_endpoint=sources.url, disk_headroom_bytes=0
    )
    with start_server() as live, live.client(world.key("ann")) as opened:
        yield opened


@pytest.fixture
def keeper(world: Any, client: httpx.Client) -> Iterator[None]:
    """Fetch in the background."""
    assert client
    stop = threading.Event()
    with pulling(world.settings, world.database_url, world.storage, stop):
        yield
        stop.set()


def events(client: httpx.Client, path: str) -> list[tuple[str, dict[str, Any]]]:
    """Read all events of a stream."""
    found = []
    with client.stream("GET", path) as answer:
        assert answer.status_code == 200
        name = ""
        for line in answer.iter_lines():
            if line.startswith("event: "):
                name = line.removeprefix("event: ")
            elif line.startswith("data: "):
                found.append((name, json.loads(line.removeprefix("data: "))))
    return found


@pytest.mark.usefixtures("keeper")
def test_download_is_fetched_and_followed(client: httpx.Client, world: Any) -> None:
    """From the order to the entry, by events alone."""
    made = client.post("/v1/downloads", json={"source": "ada/hats", "name": "red-hats", "tags": ["hat"]})
    assert made.status_code == 202, made.text
    assert (made.json()["state"], made.json()["name"]) == ("queued", "red-hats")
    told = events(client, f"{made.headers['location']}/events")
    name, last = told[-1]
    assert (name, last["ref"], last["bytes_done"], last["bytes_total"]) == (
        "succeeded",
        "red-hats",
        len(LORA),
        len(LORA),
    )
    row = world.connection.execute("select * from models where id = %s", (last["model"],)).fetchone()
    assert (row["owner"], row["tags"], row["sha256"]) == ("ann", ["hat"], sha256(LORA))
    assert client.get(made.headers["location"]).json() == last


@pytest.mark.usefixtures("keeper")
def test_failed_download_says_why_and_can_be_gone_on_with(client: httpx.Client, sources: Sources) -> None:
    """When what was wrong is mended."""
    place = client.post("/v1/downloads", json={"source": "ada/caps"}).headers["location"]
    name, last = events(client, f"{place}/events")[-1]
    assert (name, last["error_code"]) == ("failed", "source_forbidden")
    sources.repos["ada/caps"] = {"caps.safetensors": LORA}
    assert client.post(f"{place}/resume").status_code == 200
    assert events(client, f"{place}/events")[-1][0] == "succeeded"


def test_download_is_steered(client: httpx.Client) -> None:
    """Paused, gone on with, cancelled; what does not fit its state is refused."""
    place = client.post("/v1/downloads", json={"source": "ada/hats"}).headers["location"]
    assert client.post(f"{place}/pause").json()["state"] == "paused"
    assert client.post(f"{place}/pause").json()["state"] == "paused"
    assert client.post(f"{place}/resume").json()["state"] == "queued"
    assert client.post(f"{place}/cancel").json()["state"] == "cancelled"
    refused = client.post(f"{place}/resume")
    assert (refused.status_code, refused.json()["code"]) == (409, "download_ended")


def test_downloads_are_their_owners_own(client: httpx.Client, world: Any) -> None:
    """Another's looks like one that is not there, in every door."""
    place = client.post("/v1/downloads", json={"source": "ada/hats"}).headers["location"]
    other = {"authorization": f"Bearer {world.key('bob')}"}
    doors = [("GET", ""), ("GET", "/events"), ("POST", "/pause"), ("POST", "/resume"), ("POST", "/cancel")]
    for method, verb in doors:
        foreign = client.request(method, f"{place}{verb}", headers=other)
        unknown = client.request(method, f"/v1/downloads/{UNKNOWN}{verb}")
        assert (
            (foreign.status_code, foreign.json()["code"])
            == (unknown.status_code, unknown.json()["code"])
            == (404, "not_found")
        )
    assert client.get("/v1/downloads", headers=other).json() == {"items": [], "next_cursor": None}
    admin = {"authorization": f"Bearer {world.key('root', ('user', 'admin'))}"}
    assert len(client.get("/v1/downloads", headers=admin).json()["items"]) == 1
    assert client.get(place).json()["state"] == "queued"


def test_downloads_are_listed_in_pages(client: httpx.Client) -> None:
    """The newest first, each once, by state where asked."""
    places = [client.post("/v1/downloads", json={"source": f"ada/hat{n}"}).json()["id"] for n in range(5)]
    client.post(f"/v1/downloads/{places[1]}/cancel")
    found: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        page = client.get("/v1/downloads", params={"limit": 2, **cursor}).json()
        found += [each["id"] for each in page["items"]]
        if page["next_cursor"] is None:
            break
        cursor = {"cursor": page["next_cursor"]}
    assert found == places[::-1]
    cancelled = client.get("/v1/downloads", params={"state": "cancelled"}).json()["items"]
    assert [each["id"] for each in cancelled] == [places[1]]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"source": "what is this"}, "source_invalid"),
        ({"source": "https://user:pass@models.example/x.safetensors"}, "source_invalid"),
        ({"source": "ftp://models.example/x.safetensors"}, "source_invalid"),
        ({"source": "ada/hats:../x.safetensors"}, "source_invalid"),
        ({"source": "http://models.example/x.safetensors"}, "address_refused"),
        ({"source": "https://10.0.0.1/x.safetensors"}, "address_refused"),
        ({"source": "https://[::1]/x.safetensors"}, "address_refused"),
        ({"source": "ada/hats", "name": "a/b"}, "invalid_request"),
        ({"source": "ada/hats", "sha256": "abc"}, "invalid_request"),
        ({"source": "ada/hats", "kind": "hat"}, "invalid_request"),
        ({}, "invalid_request"),
    ],
)
def test_download_that_could_never_be_is_refused_at_once(
    client: httpx.Client, world: Any, body: dict[str, Any], code: str
) -> None:
    """With the field at fault, and nothing written down."""
    refused = client.post("/v1/downloads", json=body)
    assert (refused.status_code, refused.json()["code"]) == (422, code)
    assert world.count("downloads") == 0


def test_open_downloads_of_an_owner_are_bounded(
    client: httpx.Client, world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One owner cannot fill the queue; another's are not counted."""
    monkeypatch.setattr("models_registry.pulls.orders._ADD", _with_most(2))
    answers = [client.post("/v1/downloads", json={"source": "ada/hats"}).status_code for _ in range(3)]
    assert answers == [202, 202, 429]
    other = {"authorization": f"Bearer {world.key('bob')}"}
    assert client.post("/v1/downloads", json={"source": "ada/hats"}, headers=other).status_code == 202


def _with_most(number: int) -> str:
    from models_registry.pulls import orders  # noqa: PLC0415 - read before it is replaced

    return orders._ADD.replace(f"< {orders.MOST_OPEN}", f"< {number}")  # noqa: SLF001


@pytest.mark.usefixtures("keeper")
def test_lookup_is_made_and_followed(client: httpx.Client, world: Any) -> None:
    """Of one's own entries; another sees neither the look-up nor what it looked at."""
    made = client.post("/v1/downloads", json={"source": "ada/hats"})
    assert events(client, f"{made.headers['location']}/events")[-1][0] == "succeeded"
    place = client.post("/v1/library/lookups", json={}).headers["location"]
    name, last = events(client, f"{place}/events")[-1]
    assert (name, last["total"], last["done"], last["found"]) == ("succeeded", 1, 1, 0)
    other = {"authorization": f"Bearer {world.key('bob')}"}
    assert client.get(place, headers=other).status_code == 404
    mine = client.get(made.headers["location"]).json()["model"]
    assert client.post("/v1/library/lookups", json={"entries": [mine]}, headers=other).json()["total"] == 0
