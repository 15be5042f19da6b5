"""Files of models over HTTP: in one form, or in pieces by tus."""

import base64
import hashlib
import itertools
import socket
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.lora_file import lora_bytes
from tests.model_sources import sha256

LORA = lora_bytes()
TUS = {"tus-resumable": "1.0.0"}
BYTES = {**TUS, "content-type": "application/offset+octet-stream"}
NUMBERS = itertools.count(100)


@pytest.fixture
def client(clean_world: Any, shared_live: Any) -> Iterator[httpx.Client]:
    """Return a client of the module's API, in a library without entries."""
    for table in ("models", "model_uploads"):
        clean_world.connection.execute(f"delete from {table}")
    with shared_live.client(clean_world.key("ann")) as opened:
        yield opened


def send(client: httpx.Client, data: bytes = LORA, path: str = "/v1/adapters/upload", **fields: Any) -> httpx.Response:
    """Send a file in a form."""
    return client.post(path, data={"name": "hats", **fields}, files={"file": ("anything.bin", data)})


def keys(world: Any) -> set[str]:
    """Return what is in storage."""
    return {found.key for found in world.storage.list() if not found.key.startswith("probe")}


def test_upload_becomes_an_entry(client: httpx.Client, clean_world: Any) -> None:
    """With what the form says of it; its bytes lie in storage, and nothing is left on the way."""
    answer = send(
        client,
        version="2",
        tags=["red, hat", "wool"],
        trigger_words="ada style",
        weight="0.7",
        sha256=sha256(LORA).upper(),
    )
    assert answer.status_code == 201, answer.text
    told = answer.json()
    assert (told["ref"], told["name"], told["version"], told["kind"], told["owner"]) == (
        "hats@2",
        "hats",
        "2",
        "lora",
        "ann",
    )
    assert (told["tags"], told["trigger_words"], told["sha256"]) == (
        ["red", "hat", "wool"],
        ["ada style"],
        sha256(LORA),
    )
    row = clean_world.connection.execute("select * from models where id = %s", (told["id"],)).fetchone()
    assert (row["weight"], row["stored_at"] is not None) == (0.7, True)
    assert clean_world.storage.get(f"models/{sha256(LORA)}") == LORA
    assert list((clean_world.home / "incoming").iterdir()) == []


def test_upload_of_a_name_that_is_taken_is_refused(client: httpx.Client) -> None:
    """The same name and version again; another version is another entry."""
    assert send(client).status_code == 201
    again = send(client, lora_bytes(2.0))
    assert (again.status_code, again.json()["code"]) == (409, "name_taken")
    assert send(client, lora_bytes(2.0), version="2").status_code == 201


@pytest.mark.parametrize(
    ("data", "fields", "path", "code"),
    [
        (b"\x80\x04pickle" * 50, {}, "/v1/adapters/upload", "pickle_refused"),
        (b"", {}, "/v1/adapters/upload", "not_safetensors"),
        (LORA[:-1], {}, "/v1/adapters/upload", "offsets_invalid"),
        (LORA, {"sha256": "0" * 64}, "/v1/adapters/upload", "hash_mismatch"),
        (LORA, {"kind": "vae"}, "/v1/adapters/upload", "kind_mismatch"),
        (LORA, {}, "/v1/models/upload", "kind_mismatch"),
        (LORA, {"name": "../hats"}, "/v1/adapters/upload", "invalid_request"),
        (LORA, {"name": ""}, "/v1/adapters/upload", "invalid_request"),
        (LORA, {"colour": "red"}, "/v1/adapters/upload", "invalid_request"),
        (LORA, {"weight": "nan"}, "/v1/adapters/upload", "invalid_request"),
        (LORA, {"description": ["a", "b"]}, "/v1/adapters/upload", "form_invalid"),
        (LORA, {"upload": "01990000-0000-7000-8000-000000000000"}, "/v1/adapters/upload", "form_invalid"),
    ],
)
def test_upload_refused_leaves_nothing(
    client: httpx.Client, clean_world: Any, data: bytes, fields: dict[str, Any], path: str, code: str
) -> None:
    """No row, no object, no file; and a code that says why."""
    before = keys(clean_world)
    refused = send(client, data, path, **fields)
    assert (refused.status_code, refused.json()["code"]) == (422, code), refused.text
    assert str(clean_world.home) not in refused.text
    assert clean_world.count("models") == 0
    assert keys(clean_world) - before == set() or clean_world.count("garbage") > 0
    assert list((clean_world.home / "incoming").iterdir()) == []


@pytest.mark.parametrize(
    "body",
    [
        b"", b"--x--\r\n", b"--x\r\n\r\nno name\r\n--x--\r\n",
        b'--x\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\ncut off',
        b'--x\r\nContent-Disposition: form-data; name="other"; filename="f"\r\n\r\nx\r\n--x--\r\n',
        b'--x\r\nContent-Disposition: form-data; name="name"\r\n\r\n' + b"n" * 70_000 + b"\r\n--x--\r\n",
        b"--x\r\nX-Long: " + b"h" * 20_000 + b"\r\n\r\n\r\n--x--\r\n",
    ],
)  # fmt: skip
def test_form_that_cannot_be_read_is_refused(client: httpx.Client, body: bytes) -> None:
    """Cut off, nameless, without a file, or with fields without end."""
    refused = client.post(
        "/v1/adapters/upload", content=body, headers={"content-type": "multipart/form-data; boundary=x"}
    )
    assert refused.status_code == 422, refused.text


def test_upload_needs_room_on_the_disk(world: Any, start_server: Any) -> None:
    """What would leave too little of it is refused before it is read."""
    world.changes["disk_headroom_bytes"] = 2**60
    with start_server() as live, live.client(world.key("ann")) as client:
        refused = send(client)
        assert (refused.status_code, refused.json()["code"]) == (507, "disk_full")


def test_upload_may_be_larger_than_other_bodies_and_not_larger_than_a_model(world: Any, start_server: Any) -> None:
    """It is streamed: the limit of what is held does not count, another does."""
    world.changes |= {"max_body_bytes": 600, "max_model_bytes": 5_000, "disk_headroom_bytes": 0}
    with start_server() as live, live.client(world.key("ann")) as client:
        assert len(LORA) > 600
        assert send(client).status_code == 201
        refused = send(client, b"x" * 5_300, name="large")
        assert (refused.status_code, refused.json()["code"]) == (413, "file_too_large")
        assert client.post("/v1/files", headers={**TUS, "upload-length": "5001"}).json()["code"] == "file_too_large"
        assert client.post("/v1/jobs", json={"prompt": "x" * 700}).json()["code"] == "body_too_large"


def begin(client: httpx.Client, size: int = len(LORA), metadata: str = "") -> str:
    """Begin an upload in pieces and return its path."""
    answer = client.post("/v1/files", headers={**TUS, "upload-length": str(size), "upload-metadata": metadata})
    assert answer.status_code == 201, answer.text
    return answer.headers["location"]


def append(client: httpx.Client, path: str, start: int, data: bytes, **headers: str) -> httpx.Response:
    """Send more of an upload."""
    return client.patch(path, content=data, headers={**BYTES, "upload-offset": str(start), **headers})


def offset(client: httpx.Client, path: str) -> int:
    """Return how much is there."""
    return int(client.head(path, headers=TUS).headers["upload-offset"])


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cuts=st.lists(st.integers(0, len(LORA)), max_size=5).map(sorted))
def test_pieces_of_any_size_make_the_same_file(client: httpx.Client, cuts: list[int]) -> None:
    """Wherever it is cut, the entry has the file's hash."""
    path = begin(client)
    for start, end in itertools.pairwise([0, *cuts, len(LORA)]):
        answer = append(client, path, start, LORA[start:end])
        assert (answer.status_code, answer.headers["upload-offset"]) == (204, str(end)), answer.text
    made = client.post(
        "/v1/adapters/upload", data={"name": f"hats{next(NUMBERS)}", "upload": path.rpartition("/")[2]}, files={"_": ""}
    )
    assert made.status_code == 422
    made = finish(client, path, f"hats{next(NUMBERS)}")
    assert (made.status_code, made.json()["sha256"]) == (201, sha256(LORA)), made.text


def finish(client: httpx.Client, path: str, name: str = "hats") -> httpx.Response:
    """Make an upload in pieces an entry."""
    parts = {"name": (None, name), "upload": (None, path.rpartition("/")[2])}
    return client.post("/v1/adapters/upload", files=parts)


def test_upload_in_pieces_goes_on_after_a_broken_connection(
    client: httpx.Client, shared_live: Any, clean_world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What came before the break is kept."""
    monkeypatch.setattr("broker_api.library.tus.PIECE", 100)
    path = begin(client)
    parts = urlsplit(shared_live.url)
    key = client.headers["authorization"]
    with socket.create_connection((parts.hostname, parts.port)) as raw:
        head = (
            f"PATCH {path} HTTP/1.1\r\nhost: x\r\nauthorization: {key}\r\ntus-resumable: 1.0.0\r\nupload-offset: 0\r\n"
            f"content-type: application/offset+octet-stream\r\ncontent-length: {len(LORA)}\r\n\r\n"
        )
        raw.sendall(head.encode() + LORA[:350])
        while offset(client, path) < 300:
            pass
    # The last bytes may have gone down with the connection.
    there = offset(client, path)
    while append(client, path, there, LORA[there:]).status_code != 204:
        there = offset(client, path)
    made = finish(client, path)
    assert (made.status_code, made.json()["sha256"]) == (201, sha256(LORA))
    assert clean_world.count("model_upload_pieces") == 0
    assert clean_world.count("garbage") >= 7


def test_upload_finished_twice_is_the_same_entry(client: httpx.Client) -> None:
    """The answer to the first time may have been lost."""
    path = begin(client)
    append(client, path, 0, LORA)
    first, second = finish(client, path), finish(client, path)
    assert (first.status_code, second.status_code) == (201, 200)
    assert first.json() == second.json()
    assert client.get(path).json()["model"] == first.json()["id"]


def test_unfinished_upload_becomes_no_entry(client: httpx.Client) -> None:
    """Before its last byte."""
    path = begin(client)
    append(client, path, 0, LORA[:-1])
    refused = finish(client, path)
    assert (refused.status_code, refused.json()["code"]) == (409, "upload_unfinished")


@pytest.mark.parametrize("start", [0, 200])
def test_piece_that_does_not_go_on_where_the_upload_ends_is_refused(client: httpx.Client, start: int) -> None:
    """The answer says where it ends."""
    path = begin(client)
    append(client, path, 0, LORA[:100])
    refused = append(client, path, start, LORA[start:])
    assert (refused.status_code, refused.json()["code"], refused.headers["upload-offset"]) == (
        409,
        "offset_mismatch",
        "100",
    )


def test_piece_with_a_wrong_checksum_is_not_kept(client: httpx.Client, clean_world: Any) -> None:
    """Not even its beginning; with the right one it is."""
    path = begin(client)
    before = keys(clean_world)
    right = base64.b64encode(hashlib.sha256(LORA[:100]).digest()).decode()
    refused = append(client, path, 0, LORA[:99] + b"x", **{"upload-checksum": f"sha256 {right}"})
    assert (refused.status_code, refused.json()["code"]) == (460, "checksum_mismatch")
    assert offset(client, path) == 0
    assert keys(clean_world) == before
    assert append(client, path, 0, LORA[:100], **{"upload-checksum": f"sha256 {right}"}).status_code == 204


def test_more_bytes_than_announced_are_refused(client: httpx.Client) -> None:
    """An upload ends where it said it would."""
    path = begin(client, 10)
    assert append(client, path, 0, b"x" * 11).json()["code"] == "file_too_large"


def test_tus_clients_learn_what_is_spoken(client: httpx.Client) -> None:
    """Version, extensions and metadata as the protocol wants them."""
    answer = client.options("/v1/files")
    assert (answer.status_code, answer.headers["tus-version"]) == (204, "1.0.0")
    assert set(answer.headers["tus-extension"].split(",")) == {"creation", "checksum", "expiration", "termination"}
    metadata = f"filename {base64.b64encode('hüte'.encode()).decode()},empty"
    path = begin(client, metadata=metadata)
    head = client.head(path, headers=TUS)
    assert (head.headers["upload-length"], head.headers["cache-control"]) == (str(len(LORA)), "no-store")
    assert client.get(path).json()["metadata"] == {"filename": "hüte", "empty": ""}
    refused = client.post("/v1/files", headers={"upload-length": "3"})
    assert (refused.status_code, refused.headers["tus-version"]) == (412, "1.0.0")


@pytest.mark.parametrize(
    ("headers", "field"),
    [
        ({"upload-length": "-1"}, "Upload-Length"),
        ({"upload-length": "9" * 19}, "Upload-Length"),
        ({}, "Upload-Length"),
        ({"upload-length": "3", "upload-metadata": "name !!"}, "Upload-Metadata"),
        ({"upload-length": "3", "upload-metadata": "name AA=="}, "Upload-Metadata"),
    ],
)
def test_bad_headers_begin_no_upload(client: httpx.Client, headers: dict[str, str], field: str) -> None:
    """Each is named."""
    refused = client.post("/v1/files", headers={**TUS, **headers})
    assert (refused.status_code, refused.json()["code"], refused.json()["field"]) == (400, "invalid_header", field)


def test_uploads_are_their_owners_own(client: httpx.Client, clean_world: Any) -> None:
    """Another's looks like one that is not there."""
    path = begin(client)
    append(client, path, 0, LORA)
    other = {"authorization": f"Bearer {clean_world.key('bob')}"}
    for answer in (
        client.get(path, headers=other),
        client.patch(path, content=b"x", headers={**BYTES, **other, "upload-offset": "0"}),
        client.delete(path, headers={**TUS, **other}),
        client.post(
            "/v1/adapters/upload", files={"name": (None, "x"), "upload": (None, path.rpartition("/")[2])}, headers=other
        ),
    ):
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    assert client.delete(path, headers=TUS).status_code == 204
    assert client.get(path).status_code == 404
    assert clean_world.count("garbage") == 1
