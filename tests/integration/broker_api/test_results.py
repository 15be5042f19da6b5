"""One's pictures: searched, made small, shared by signed URLs, deleted."""

import hashlib
import io
import time
from typing import Any
from uuid import uuid4

import pytest
from PIL import Image

from broker_api.pictures.thumbnails import make_thumbnail


@pytest.fixture
def world(clean_world: Any) -> Any:
    """Share one world, emptied before each test."""
    return clean_world


@pytest.fixture
def live(shared_live: Any) -> Any:
    """Share one server."""
    return shared_live


def png(colour: str = "red", size: tuple[int, int] = (128, 96)) -> bytes:
    """Return a real picture."""
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, "PNG")
    return file.getvalue()


def draw(world: Any, client: Any, data: bytes | None = None, **request: Any) -> str:
    """Draw one picture and return its job's id."""
    job: str = client.post("/v1/jobs", json={"prompt": "a red circle", **request}).json()["id"]
    worker = world.worker()
    worker.claim()
    worker.finish(png() if data is None else data)
    return job


def found(client: Any, **query: Any) -> list[str]:
    """Return the jobs of the pictures found."""
    answer = client.get("/v1/results", params=query)
    assert answer.status_code == 200, answer.text
    return [item["job"] for item in answer.json()["items"]]


def test_results_are_searched(live: Any, world: Any) -> None:
    """By words of the prompt, model, task, labels, seed and time, alone and together; newest first."""
    world.connection.execute("delete from models where name = 'other'")
    world.add_model("other")
    with live.client(world.key()) as client:
        first = draw(world, client, prompt="a red circle on a blue background", seed=7, labels={"set": "a", "x": "1"})
        between = time.time()
        second = draw(world, client, prompt="a green square, blue", seed=8, labels={"set": "b"}, model="other")
        assert found(client) == [second, first]
        assert found(client, q="blue") == [second, first]
        assert found(client, q="Red CIRCLE") == [first]
        assert found(client, q='"blue background"') == [first]
        assert found(client, q="blue -circle") == [second]
        assert found(client, q="yellow") == []
        assert found(client, model="other") == [second]
        assert found(client, task="txt2img", seed=7) == [first]
        assert found(client, labels="set:a,x:1") == [first]
        assert found(client, labels="set:a,x:2") == []
        at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(between)) + f"{between % 1:.3f}Z"[1:]
        assert found(client, since=at) == [second]
        assert found(client, until=at) == [first]
        assert found(client, batch=str(uuid4())) == []
        item = client.get("/v1/results", params={"seed": 7}).json()["items"][0]
    assert (item["prompt"], item["labels"]) == ("a red circle on a blue background", {"set": "a", "x": "1"})
    assert item["url"] == f"/v1/jobs/{first}/images/0"


def test_results_come_in_pages(live: Any, world: Any) -> None:
    """Cursors lead through every picture once, and a strange one is refused."""
    with live.client(world.key()) as client:
        jobs = [draw(world, client) for _ in range(5)]
        seen, cursor = [], None
        while True:
            page = client.get("/v1/results", params={"limit": 2} | ({"cursor": cursor} if cursor else {})).json()
            seen += [item["job"] for item in page["items"]]
            cursor = page["next_cursor"]
            if cursor is None:
                break
        assert seen == jobs[::-1]
        for strange in ("x", "é", "AAAA", "A" * 22):
            assert client.get("/v1/results", params={"cursor": strange}).json()["code"] == "cursor_invalid"


def test_strange_searches_are_refused_or_find_nothing(live: Any, world: Any) -> None:
    """No query makes the server fail."""
    with live.client(world.key()) as client:
        draw(world, client)
        for query in (
            {"labels": "x"},
            {"labels": ":"},
            {"since": "yesterday"},
            {"q": "\x00"},
            {"seed": "-1"},
            {"q": ""},
        ):
            assert client.get("/v1/results", params=query).status_code == 422, query
        for words in ("& | !", "'", "((", '"', "-", "\\"):
            assert client.get("/v1/results", params={"q": words}).status_code == 200, words


def test_search_of_prompts_uses_its_index(world: Any) -> None:
    """The words of a search are looked up, not compared with every row."""
    with world.connection.transaction():
        world.connection.execute("set local enable_seqscan = off")
        plan = world.connection.execute(
            "explain select id from jobs where jobs.state = 'succeeded' and "
            "to_tsvector('simple', jobs.request ->> 'prompt') @@ websearch_to_tsquery('simple', 'blue')"
        ).fetchall()
        labels = world.connection.execute(
            "explain select id from jobs where jobs.request -> 'labels' <> '{}' and "
            """jobs.request -> 'labels' @> '{"a": "b"}'"""
        ).fetchall()
    assert "jobs_prompt" in str(plan)
    assert "jobs_labels" in str(labels)


def test_result_has_the_parameters_of_its_picture(live: Any, world: Any) -> None:
    """The detail holds what draws this one picture again; others see nothing of it."""
    with live.client(world.key("ann")) as client, live.client(world.key("bob")) as other:
        job = draw(world, client, seed=7)
        detail = client.get(f"/v1/results/{job}/0").json()
        assert (detail["request"]["seed"], detail["request"]["num_images"], detail["request"]["steps"]) == (7, 1, 25)
        assert detail["worker"] == "cpu0@test"
        for path in (f"/v1/results/{job}/1", f"/v1/results/{job}/x", f"/v1/results/{uuid4()}/0"):
            assert client.get(path).json()["code"] == "not_found"
        assert other.get(f"/v1/results/{job}/0").json()["code"] == "not_found"
        assert found(other) == []


def test_thumbnail_is_made_once_and_kept(live: Any, world: Any) -> None:
    """It fits its size, is recorded with its hash, is not made again, and is gone with its job."""
    with live.client(world.key()) as client:
        job = draw(world, client, png(size=(400, 200)))
        first = client.get(f"/v1/jobs/{job}/images/0", params={"thumbnail": 128})
        assert (first.status_code, first.headers["content-type"]) == (200, "image/webp")
        assert Image.open(io.BytesIO(first.content)).size == (128, 64)
        row = world.connection.execute("select * from thumbnails").fetchone()
        assert row["sha256"] == hashlib.sha256(first.content).hexdigest() == first.headers["etag"].strip('"')
        original = world.connection.execute("select key from images").fetchone()["key"]
        world.storage.delete(original)
        again = client.get(f"/v1/jobs/{job}/images/0", params={"thumbnail": 128})
        assert again.content == first.content, "made from a picture that is not there any more?"
        known = client.get(
            f"/v1/jobs/{job}/images/0", params={"thumbnail": 128}, headers={"if-none-match": first.headers["etag"]}
        )
        assert known.status_code == 304
        assert client.get(f"/v1/jobs/{job}/images/0", params={"thumbnail": 256}).status_code == 410
        assert client.delete(f"/v1/jobs/{job}").status_code == 204
    assert world.count("thumbnails") == 0
    garbage = {row["key"] for row in world.connection.execute("select key from garbage").fetchall()}
    assert garbage == {original, row["key"]}


def test_thumbnail_sizes_are_few_and_damage_is_said(live: Any, world: Any) -> None:
    """Other sizes are refused, and what is no picture is no server error."""
    with live.client(world.key()) as client:
        job = draw(world, client, b"\x89PNG no picture")
        for size in ("100", "0", "x", "-64"):
            answer = client.get(f"/v1/jobs/{job}/images/0", params={"thumbnail": size})
            assert (answer.status_code, answer.json()["field"]) == (422, "thumbnail")
        answer = client.get(f"/v1/jobs/{job}/images/0", params={"thumbnail": 64})
        assert (answer.status_code, answer.json()["code"]) == (502, "picture_damaged")
    assert world.count("thumbnails") == 0


def test_thumbnail_never_enlarges() -> None:
    """A picture smaller than the size stays as it is."""
    assert Image.open(io.BytesIO(make_thumbnail(png(size=(40, 30)), 256))).size == (40, 30)


def test_signed_url_reads_one_picture_without_a_key(live: Any, world: Any) -> None:
    """Until it expires, of this picture and this form alone, and not after the job is gone."""
    with live.client(world.key()) as client, live.client() as anyone:
        data = png()
        job = draw(world, client, data)
        made = client.post(f"/v1/jobs/{job}/images/0/url", json={"expires_in_s": 60})
        assert made.status_code == 201
        url = made.json()["url"]
        answer = anyone.get(url)
        assert (answer.status_code, answer.content) == (200, data)
        small = client.post(f"/v1/jobs/{job}/images/0/url", json={"thumbnail": 64}).json()["url"]
        assert Image.open(io.BytesIO(anyone.get(small).content)).size == (64, 48)
        other = draw(world, client)
        for changed in (
            url.replace(job, other),
            url.replace("/0?", "/1?"),
            url.replace("expires=", "expires=1"),
            small.replace("thumbnail=64&", ""),
            url[:-1] + ("A" if url[-1] != "A" else "B"),
        ):
            refused = anyone.get(changed)
            assert (refused.status_code, refused.json()["code"]) == (403, "signature_invalid"), changed
        assert anyone.get(f"/v1/jobs/{job}/images/0").status_code == 401
        assert client.delete(f"/v1/jobs/{job}").status_code == 204
        assert anyone.get(url).status_code == 404


def test_signed_url_expires(live: Any, world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Afterwards it reads nothing."""
    with live.client(world.key()) as client, live.client() as anyone:
        job = draw(world, client)
        url = client.post(f"/v1/jobs/{job}/images/0/url", json={"expires_in_s": 60}).json()["url"]
        now = time.time()
        monkeypatch.setattr("broker_api.auth.signing.time.time", lambda: now + 61)
        refused = anyone.get(url)
    assert (refused.status_code, refused.json()["code"]) == (410, "url_expired")


def test_only_the_owner_signs_and_every_process_reads(live: Any, world: Any) -> None:
    """A foreign picture cannot be shared; the secret is the fleet's, not a process's."""
    with live.client(world.key("ann")) as client, live.client(world.key("bob")) as other:
        job = draw(world, client)
        assert other.post(f"/v1/jobs/{job}/images/0/url", json={}).status_code == 404
        assert client.post(f"/v1/jobs/{job}/images/0/url", json={"expires_in_s": 10**9}).status_code == 422
        first = client.post(f"/v1/jobs/{job}/images/0/url", json={}).json()["url"]
        live.services.signer._secret._value = None  # noqa: SLF001 - as a process that has just started
        with live.client() as anyone:
            assert anyone.get(first).status_code == 200


def test_pictures_are_deleted_one_by_one_and_many_at_once(live: Any, world: Any) -> None:
    """Their jobs stay, their files become garbage, and those of others are left."""
    with live.client(world.key("ann")) as client, live.client(world.key("bob")) as other:
        one, two, three = (draw(world, client) for _ in range(3))
        foreign = draw(world, other)
        assert client.delete(f"/v1/results/{one}/0").status_code == 204
        assert client.delete(f"/v1/results/{one}/0").status_code == 404
        assert client.get(f"/v1/jobs/{one}").json()["images"] == []
        pictures = [{"job": job, "index": 0} for job in (two, three, foreign, str(uuid4()))]
        gone = client.post("/v1/results/delete", json={"pictures": pictures}).json()["pictures"]
        assert {item["job"] for item in gone} == {two, three}
        assert found(client) == []
        assert found(other) == [foreign]
    assert world.count("garbage") == 3


def test_jobs_are_deleted_many_at_once(live: Any, world: Any) -> None:
    """Those that have ended, of one's own; the others are left and not named."""
    with live.client(world.key("ann")) as client, live.client(world.key("bob")) as other:
        ended, foreign = draw(world, client), draw(world, other)
        waiting = client.post("/v1/jobs", json={"prompt": "x"}).json()["id"]
        jobs = [ended, foreign, waiting, str(uuid4())]
        assert client.post("/v1/jobs/delete", json={"jobs": jobs}).json() == {"jobs": [ended]}
        assert client.post("/v1/jobs/delete", json={"jobs": []}).status_code == 422
    assert world.count("jobs") == 2
    assert world.count("garbage") == 1
