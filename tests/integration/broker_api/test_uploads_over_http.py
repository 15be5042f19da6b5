"""Pictures that come in: uploaded, inline, of earlier jobs; kept once, shown to their owner alone, refused whole."""

import hashlib
import shutil
from typing import Any
from uuid import uuid4

import httpx
import pytest

from jobs.uploads import upload_key
from tests.picture_files import base64_of, bomb, encoded, gradient, plain, png

SOURCE = png(128, 96)
SHA = hashlib.sha256(SOURCE).hexdigest()
IMG2IMG: dict[str, Any] = {"task": "img2img", "prompt": "a red circle"}


def upload(client: httpx.Client, data: bytes = SOURCE, mime: str = "image/png") -> httpx.Response:
    """Send a picture as the body."""
    return client.post("/v1/uploads", content=data, headers={"content-type": mime})


def refused(answer: httpx.Response, status: int, code: str, field: str | None) -> None:
    """Check what a refusal says."""
    problem = answer.json()
    assert (answer.status_code, problem["code"], problem.get("field")) == (status, code, field), answer.text


def stored(world: Any) -> tuple[int, int, int, int]:
    """Count rows of uploads, jobs and garbage, and objects."""
    return world.count("uploads"), world.count("jobs"), world.count("garbage"), len(list(world.storage.list()))


def test_upload_is_taken_once_and_given_back(live: Any, world: Any) -> None:
    """The same picture is the same upload, whichever way it comes; its bytes come back as they were sent."""
    with live.client(world.key()) as client:
        first = upload(client)
        assert (first.status_code, first.headers["location"]) == (201, f"/v1/uploads/{SHA}")
        assert first.json() == {
            "id": SHA, "sha256": SHA, "mime": "image/png", "width": 128, "height": 96, "bytes": len(SOURCE),
        }  # fmt: skip
        again = client.post("/v1/uploads", files={"file": ("cat.png", SOURCE, "image/png")})
        assert (again.status_code, again.json()) == (200, first.json())
        read = client.get(f"/v1/uploads/{SHA}")
        assert (read.content, read.headers["content-type"], read.headers["etag"]) == (SOURCE, "image/png", f'"{SHA}"')
        head = client.head(f"/v1/uploads/{SHA}")
        assert (head.status_code, head.headers["content-length"], head.content) == (200, str(len(SOURCE)), b"")
        known = client.get(f"/v1/uploads/{SHA}", headers={"if-none-match": read.headers["etag"]})
        assert (known.status_code, known.content) == (304, b"")
        # What a file is, its bytes say.
        assert upload(client, encoded(gradient(8, 8), "WEBP"), "image/png").json()["mime"] == "image/webp"
    assert stored(world) == (2, 0, 0, 2)


def test_upload_is_its_owners_alone(live: Any, world: Any) -> None:
    """A foreign and an unknown upload look alike; the bytes lie once all the same."""
    with live.client(world.key("ann")) as ann, live.client(world.key("bob")) as bob:
        upload(ann)
        foreign, unknown = bob.get(f"/v1/uploads/{SHA}"), bob.get(f"/v1/uploads/{'0' * 64}")
        malformed = bob.get("/v1/uploads/..%2Fjobs")
        answers = [answer.json() | {"request_id": ""} for answer in (foreign, unknown)]
        assert answers[0] == answers[1]
        assert (foreign.status_code, malformed.status_code) == (404, 404)
        for ref in (f"upload:{SHA}", f"upload:{'0' * 64}", "upload:nothing"):
            refused(bob.post("/v1/jobs", json=IMG2IMG | {"image": ref}), 422, "upload_unknown", "image")
        assert upload(bob).status_code == 201
        assert bob.post("/v1/jobs", json=IMG2IMG | {"image": f"upload:{SHA}"}).status_code == 202
    assert stored(world) == (2, 1, 0, 1)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        pytest.param(b"hello", "picture_refused", id="wrong-type"),
        pytest.param(SOURCE[:60], "picture_refused", id="truncated"),
        pytest.param(bomb(20_000, 20_000), "picture_too_large", id="bomb"),
        pytest.param(bomb(2**31 - 1, 1), "picture_too_large", id="huge-header"),
        pytest.param(
            encoded(gradient(8, 8), "PNG", save_all=True, append_images=[gradient(8, 8).rotate(90)]),
            "picture_refused",
            id="animated",
        ),
    ],
)
def test_bad_picture_is_refused_at_every_door(live: Any, world: Any, data: bytes, code: str) -> None:
    """As upload, in a form, in a job, in one of its controls: code and field, and nothing is stored."""
    good = base64_of(SOURCE)
    with live.client(world.key()) as client:
        refused(upload(client, data), 422, code, "file")
        refused(client.post("/v1/uploads", files={"file": ("x.png", data)}), 422, code, "file")
        refused(client.post("/v1/jobs", json=IMG2IMG | {"image": base64_of(data)}), 422, code, "image")
        inpaint = {"task": "inpaint", "prompt": "x", "image": good, "mask": f"data:image/png;base64,{base64_of(data)}"}
        refused(client.post("/v1/jobs", json=inpaint), 422, code, "mask")
        controls = [{"model": "edges", "image": good}, {"model": "edges", "image": base64_of(data)}]
        refused(client.post("/v1/jobs", json={"prompt": "x", "controls": controls}), 422, code, "controls.1.image")
    assert stored(world) == (0, 0, 0, 0)


def test_upload_door_refuses_what_is_no_upload(live: Any, world: Any) -> None:
    """Another content type, a form without the file, a form that is none."""
    with live.client(world.key()) as client:
        refused(upload(client, SOURCE, "application/json"), 415, "media_type_unsupported", "Content-Type")
        refused(client.post("/v1/uploads", files={"picture": ("x.png", SOURCE)}), 422, "picture_refused", "file")
        refused(client.post("/v1/uploads", data={"file": "text"}), 415, "media_type_unsupported", "Content-Type")
        broken = {"content-type": "multipart/form-data"}
        refused(client.post("/v1/uploads", content=b"x", headers=broken), 422, "picture_refused", "file")
        refused(upload(client, b""), 422, "picture_refused", "file")
    with live.client() as client:
        assert upload(client).status_code == 401
    assert stored(world) == (0, 0, 0, 0)


def test_inline_picture_becomes_an_upload_before_the_row(live: Any, world: Any) -> None:
    """Rows and views hold its hash and never the picture; a repeat under the same key is the same request."""
    sent = IMG2IMG | {"image": base64_of(SOURCE), "seed": 5}
    key = {"idempotency-key": "k"}
    with live.client(world.key()) as client:
        job = client.post("/v1/jobs", json=sent, headers=key).json()
        assert job["request"]["image"] == f"upload:{SHA}"
        assert (job["request"]["width"], job["request"]["height"]) == (128, 96)
        named = client.post("/v1/jobs", json=sent | {"image": f"upload:{SHA}"}, headers=key)
        assert (named.json()["id"], named.headers["idempotent-replayed"]) == (job["id"], "true")
        other = client.post("/v1/jobs", json=sent | {"image": base64_of(png(8, 8))}, headers=key)
        refused(other, 409, "idempotency_mismatch", "Idempotency-Key")
    row = world.connection.execute("select uploads, request::text as request from jobs").fetchone()
    assert row["uploads"] == [SHA]
    assert len(row["request"]) < 2000
    assert world.storage.get(upload_key(SHA)) == SOURCE


def test_refused_job_keeps_none_of_its_pictures(live: Any, world: Any) -> None:
    """What admission refuses leaves no upload behind."""
    picture = base64_of(SOURCE)
    with live.client(world.key()) as client:
        refused(
            client.post("/v1/jobs", json=IMG2IMG | {"image": picture, "width": 130}), 422, "size_unsupported", "width"
        )
        black = {"task": "inpaint", "prompt": "x", "image": picture, "mask": base64_of(plain(128, 96, 0))}
        refused(client.post("/v1/jobs", json=black), 422, "picture_refused", "mask")
        controlled = {"prompt": "x", "controls": [{"model": "edges", "image": picture}]}
        refused(client.post("/v1/jobs", json=controlled), 422, "adapter_unknown", "controls.0.model")
    assert stored(world) == (0, 0, 0, 0)


def test_black_mask_is_refused_as_an_upload_too(live: Any, world: Any) -> None:
    """What was noticed when it came in is remembered."""
    with live.client(world.key()) as client:
        mask = upload(client, plain(128, 96, 0)).json()["id"]
        asked = {
            "task": "inpaint",
            "prompt": "x",
            "image": f"upload:{upload(client).json()['id']}",
            "mask": f"upload:{mask}",
        }
        refused(client.post("/v1/jobs", json=asked), 422, "picture_refused", "mask")
        assert client.post("/v1/jobs", json=asked | {"mask_invert": True}).status_code == 202


def test_picture_of_a_job_becomes_an_upload(live: Any, world: Any) -> None:
    """Only of an own job that succeeded, and only while its bytes are those that were recorded."""
    worker = world.worker()
    with live.client(world.key("ann")) as ann, live.client(world.key("bob")) as bob:
        drawn = ann.post("/v1/jobs", json={"prompt": "x"}).json()["id"]
        ref = {"task": "upscale", "image": f"job:{drawn}/0"}
        refused(ann.post("/v1/jobs", json=ref), 422, "upload_unknown", "image")
        worker.claim()
        worker.finish(SOURCE)
        made = ann.post("/v1/jobs", json=ref)
        assert made.status_code == 202
        assert made.json()["request"]["image"] == f"upload:{SHA}"
        assert (made.json()["request"]["width"], made.json()["request"]["upscaler"]) == (256, "lanczos")
        refused(bob.post("/v1/jobs", json=ref), 422, "upload_unknown", "image")
        for unknown in (f"job:{drawn}/1", f"job:{drawn}/99999", f"job:{uuid4()}/0", "job:x/0"):
            refused(ann.post("/v1/jobs", json=ref | {"image": unknown}), 422, "upload_unknown", "image")
        # Deleting the job leaves the upload.
        assert ann.delete(f"/v1/jobs/{drawn}").status_code == 204
        assert ann.get(f"/v1/uploads/{SHA}").content == SOURCE


def test_damaged_picture_of_a_job_is_not_taken(live: Any, world: Any) -> None:
    """Bytes that are not the recorded ones never become an upload."""
    worker = world.worker()
    with live.client(world.key()) as client:
        drawn = client.post("/v1/jobs", json={"prompt": "x"}).json()["id"]
        worker.claim()
        worker.finish(SOURCE)
        key = world.connection.execute("select key from images").fetchone()["key"]
        world.storage.delete(key)
        asked = {"task": "preprocess", "preprocessor": "canny", "image": f"job:{drawn}/0"}
        refused(client.post("/v1/jobs", json=asked), 422, "picture_refused", "image")
        world.storage.put(key, png(9, 9))
        refused(client.post("/v1/jobs", json=asked), 422, "picture_refused", "image")
    assert world.count("uploads") == 0


def test_nothing_is_stored_while_the_storage_is_away(live: Any, world: Any) -> None:
    """Uploads and jobs with pictures answer 503 and leave no row; without pictures jobs go on."""
    folder = world.home / "storage"
    shutil.rmtree(folder)
    with live.client(world.key()) as client:
        for answer in (upload(client), client.post("/v1/jobs", json=IMG2IMG | {"image": base64_of(SOURCE)})):
            refused(answer, 503, "storage_unavailable", None)
            assert answer.headers["retry-after"]
        assert (world.count("uploads"), world.count("jobs")) == (0, 0)
        assert client.post("/v1/jobs", json={"prompt": "x"}).status_code == 202
        folder.mkdir()
        assert upload(client).status_code == 201


def test_first_of_two_pictures_goes_when_the_second_cannot_be_stored(
    live: Any, world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An outage between two pictures leaves the first one's bytes to the keeper."""
    storage = live.services.storage
    put, calls = storage.put_async, []

    async def second_fails(key: str, data: bytes) -> bool:
        calls.append(key)
        if len(calls) == 2:
            shutil.rmtree(world.home / "storage")
        stored: bool = await put(key, data)
        return stored

    monkeypatch.setattr(storage, "put_async", second_fails)
    asked = {"task": "inpaint", "prompt": "x", "image": base64_of(SOURCE), "mask": base64_of(plain(128, 96, 255))}
    with live.client(world.key()) as client:
        refused(client.post("/v1/jobs", json=asked), 503, "storage_unavailable", None)
    assert (world.count("uploads"), world.count("jobs")) == (0, 0)
    keys = {row["key"] for row in world.connection.execute("select key from garbage").fetchall()}
    assert keys == set(calls)


def test_upload_sent_while_the_keeper_removes_it_is_stored_again(
    live: Any, world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bytes that vanish between the storing and the row are put back once the row protects them."""
    storage = live.services.storage
    put = storage.put_async

    async def removed_at_once(key: str, data: bytes) -> bool:
        stored: bool = await put(key, data)
        if not removed:
            removed.append(key)
            world.storage.delete(key)
        return stored

    removed: list[str] = []
    monkeypatch.setattr(storage, "put_async", removed_at_once)
    with live.client(world.key()) as client:
        assert upload(client).status_code == 201
        assert client.get(f"/v1/uploads/{SHA}").content == SOURCE
    assert removed


def test_every_task_is_accepted_with_its_pictures(live: Any, world: Any) -> None:
    """Each lands in the queue of its task, and its view holds every default."""
    image = f"data:image/png;base64,{base64_of(SOURCE)}"
    asked: list[dict[str, Any]] = [
        {"task": "img2img", "prompt": "x", "image": image, "strength": 0.5},
        {"task": "inpaint", "prompt": "x", "image": image, "mask": base64_of(plain(64, 64, 255))},
        {"task": "inpaint", "prompt": "x", "image": image, "outpaint": {"left": 32}},
        {"task": "upscale", "image": image, "scale": 2, "refine": {"prompt": "x"}},
        {"task": "preprocess", "image": image, "preprocessor": "canny"},
        {"task": "txt2img", "prompt": "x", "hires": {"scale": 1.5}},
    ]
    with live.client(world.key()) as client:
        for request in asked:
            answer = client.post("/v1/jobs", json=request)
            assert answer.status_code == 202, answer.text
            view = answer.json()
            assert view["queue"] == f"{request['task']}.cpu"
            assert client.get(f"/v1/jobs/{view['id']}").json()["request"] == view["request"]
            assert view["request"]["seed"] >= 0
    assert world.count("uploads") == 2


def test_adapters_of_the_catalogue_are_admitted_over_http(live: Any, world: Any) -> None:
    """Tags, lists and controls find what is registered, also what came a moment ago; what does not fit is refused."""
    for name, kind in (("frame", "lora"), ("edges", "controlnet"), ("dusk", "embedding"), ("wide", "lora")):
        width = {"text_width": 64 if name != "wide" else 768}
        facts = {"native_size": 0, "latent_factor": 0, "latent_channels": 0}
        world.add_model(name, kind=kind, layout="file", **facts, **width)
    asked = {
        "prompt": "a circle <lora:FRAME:0.5> at dusk", "model": "narrow",
        "controls": [{"model": "edges", "image": base64_of(SOURCE), "preprocessor": "canny"}],
    }  # fmt: skip
    world.add_model("narrow", text_width=64)
    with live.client(world.key()) as client:
        view = client.post("/v1/jobs", json=asked).json()
        assert view["request"]["prompt"] == "a circle at dusk"
        assert view["request"]["loras"] == [{"name": "frame", "weight": 0.5, "text_encoder_weight": None}]
        assert view["request"]["embeddings"] == ["dusk"]
        assert view["request"]["controls"][0]["image"] == f"upload:{SHA}"
        refused(client.post("/v1/jobs", json=asked | {"prompt": "<lora:wide>"}), 422, "family_mismatch", "prompt")
        refused(client.post("/v1/jobs", json=asked | {"vae": "grey"}), 422, "adapter_unknown", "vae")
    row = world.connection.execute("select lora_key, uploads from jobs").fetchone()
    assert row["lora_key"]
    assert row["uploads"] == [SHA]
