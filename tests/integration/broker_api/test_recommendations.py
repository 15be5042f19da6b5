"""Recommendations over HTTP, by a real worker that looks at the reference models."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest

from broker_api.auth.keys import create_key
from infra.database import Connection
from models_registry.scanning.scan import scan
from tests.fleet_process import eventually

ROOT = Path(__file__).parents[3]
WAIT = 60


@pytest.fixture(scope="module")
def studio(shared_world: Any, shared_live: Any) -> Iterator[Any]:
    """Register the reference models and start a worker with the real engine."""
    scan(shared_world.connection, [ROOT / "reference_models"])
    shared_world.connection.execute("delete from workers")
    given = {
        "database_url": shared_world.database_url, "redis_url": shared_world.redis_url, "home": shared_world.home,
        "storage_url": shared_world.settings.storage, "engine": "local", "device": "cpu:0", "threads": 1,
    }  # fmt: skip
    kept = {name: value for name, value in os.environ.items() if not name.startswith("IMAGEFLEET_")}
    environment = kept | {f"IMAGEFLEET_{name.upper()}": str(value) for name, value in given.items()}
    with (shared_world.home / "worker.log").open("wb") as log:
        worker = subprocess.Popen(
            [sys.executable, "-m", "workers"],
            env=environment | {"PYTHONPATH": str(ROOT)}, cwd=shared_world.home, stdout=log, stderr=subprocess.STDOUT,
        )  # fmt: skip
        try:
            eventually(lambda: len(shared_live.services.snapshots.fleet.online()))
            yield shared_live
        finally:
            worker.terminate()
            worker.wait(60)


@pytest.fixture(scope="module")
def http(shared_world: Any, studio: Any) -> Iterator[httpx.Client]:
    """Return a client of an ordinary owner that waits as long as answers may take."""
    with studio.client(shared_world.key("ann")) as client:
        client.timeout = 2 * WAIT
        yield client


def names(answer: httpx.Response) -> list[str]:
    """Return who was recommended, in order."""
    assert answer.status_code == 200, answer.text
    return [item["adapter"]["ref"] for item in answer.json()["items"]]


def test_similar_of_a_lora_trained_twice_is_its_twin(http: httpx.Client) -> None:
    """Another seed of the same style is found by the weights alone, exactly, with the reason."""
    query: dict[str, Any] = {"adapter": "shapes-frame", "sources": "weights", "wait": WAIT}
    answer = http.get("/v1/recommendations/similar", params=query)
    assert names(answer)[0] == "shapes-frame-2"
    twin, *others = answer.json()["items"]
    assert twin["sources"]["weights"]["exact"] is True
    assert twin["score"] == pytest.approx(0.294, abs=0.01)
    assert "Cosine of the updates 0.29" in twin["why"]
    assert all(other["score"] < 0.05 for other in others)
    assert answer.json()["sources"]["text"]["state"] == "off"
    assert answer.json()["sources"]["weights"]["state"] == "used"


@pytest.mark.parametrize(
    ("prompt", "style"),
    [
        ("a red circle in a black frame", {"shapes-frame", "shapes-frame-2"}),
        ("a yellow star that stands on white ground", {"shapes-ground"}),
    ],
)
def test_prompt_that_speaks_of_a_style_finds_its_lora(http: httpx.Client, prompt: str, style: set[str]) -> None:
    """The prompt is read by the worker, and the LoRA of the style comes first."""
    answer = http.get("/v1/recommendations/for-prompt", params={"prompt": prompt, "model": "shapes-sd15", "wait": WAIT})
    assert set(names(answer)[: len(style)]) == style
    report = answer.json()["sources"]["text"]
    assert (report["state"], report["why"].split(",")[0]) == ("used", "Read by a text encoder")
    assert "Its text lies" in answer.json()["items"][0]["sources"]["text"]["why"]


def test_text_of_a_changed_entry_is_read_again(http: httpx.Client, shared_world: Any) -> None:
    """What people write of an entry counts as soon as it was read: status says when it is stale."""
    lora = "shapes-ground"
    query: dict[str, Any] = {"adapter": lora, "sources": "text", "wait": WAIT}
    http.get("/v1/recommendations/similar", params=query)

    def state() -> str:
        found = http.get("/v1/recommendations/status", params={"adapter": lora}).json()["items"]
        return str(found[0]["text"]["state"])

    assert state() == "ready"
    shared_world.connection.execute(
        "update models set tags = '{pedestal}', changed_at = now() where name = %s", (lora,)
    )
    assert state() == "stale"
    assert http.post("/v1/recommendations/refresh", json={"adapter": lora}).json() == {"jobs": 1}
    eventually(lambda: state() == "ready")
    # Nothing has changed since: nothing is asked.
    assert http.post("/v1/recommendations/refresh", json={"adapter": lora}).json() == {"jobs": 0}


def test_both_forms_of_vectors_answer_alike(http: httpx.Client, shared_world: Any) -> None:
    """Where the server has no pgvector plain arrays recommend the same with the same scores."""
    queries: list[tuple[str, dict[str, Any]]] = [
        ("similar", {"adapter": "shapes-frame", "wait": WAIT}),
        ("for-prompt", {"prompt": "a ring in a frame", "wait": WAIT}),
    ]

    def ask() -> list[Any]:
        found = [http.get(f"/v1/recommendations/{path}", params=query).json() for path, query in queries]
        return [[(item["adapter"]["ref"], item["score"]) for item in each["items"]] for each in found]

    connection: Connection = shared_world.connection
    columns = (("likeness_texts", "vector"), ("likeness_signatures", "sketch"))
    ask()
    before = ask()
    assert all(before)
    assert http.get("/v1/recommendations/stats").json()["vectors"] == "pgvector"
    for table, column in columns:
        connection.execute(f"alter table {table} alter column {column} type real[] using {column}::real[]")
    try:
        assert http.get("/v1/recommendations/stats").json()["vectors"] == "arrays"
        after = ask()
        # New texts are taken in as well.
        assert names(http.get("/v1/recommendations/for-prompt", params={"prompt": "on the ground", "wait": WAIT}))
    finally:
        for table, column in columns:
            connection.execute(f"alter table {table} alter column {column} type vector using {column}::vector")
    assert [[ref for ref, _ in each] for each in after] == [[ref for ref, _ in each] for each in before]
    assert [score for each in after for _, score in each] == pytest.approx(
        [score for each in before for _, score in each], abs=1e-4
    )


@pytest.fixture
def private(shared_world: Any) -> Iterator[Callable[[str | None], None]]:
    """Return a way to make the frame's twin somebody's own; it is everybody's again afterwards."""

    def give(owner: str | None) -> None:
        shared_world.connection.execute(
            "update models set owner = %s, visibility = %s where name = 'shapes-frame-2'",
            (owner, "public" if owner is None else "private"),
        )

    yield give
    give(None)


def test_private_entries_are_recommended_to_their_owner_alone(
    private: Callable[[str], None], http: httpx.Client, shared_world: Any, shared_live: Any
) -> None:
    """By no path does a foreign private entry show, not even in the counts."""
    private("bob")
    paths: list[tuple[str, dict[str, Any]]] = [
        ("/v1/recommendations/similar", {"adapter": "shapes-frame", "wait": WAIT}),
        ("/v1/recommendations/together", {"adapter": "shapes-frame", "wait": WAIT}),
        ("/v1/recommendations/for-prompt", {"prompt": "a frame", "wait": WAIT}),
        ("/v1/dashboard/featured", {}),
        ("/v1/recommendations/status", {}),
    ]
    with shared_live.client(shared_world.key("bob")) as bob:
        bob.timeout = 2 * WAIT
        for path, query in paths:
            assert "shapes-frame-2" not in http.get(path, params=query).text, path
            assert "shapes-frame-2" in bob.get(path, params=query).text, path
        counts = [client.get("/v1/recommendations/stats").json()["weights"] for client in (http, bob)]
        assert sum(counts[1].values()) == sum(counts[0].values()) + 1
    for path in ("similar", "together"):
        foreign = http.get(f"/v1/recommendations/{path}", params={"adapter": "shapes-frame-2"})
        unknown = http.get(f"/v1/recommendations/{path}", params={"adapter": "nothing"})
        assert (foreign.status_code, foreign.json()["code"]) == (unknown.status_code, unknown.json()["code"])
        assert foreign.status_code == 404


def test_entries_of_other_keys_are_not_recommended(studio: Any, http: httpx.Client, shared_world: Any) -> None:
    """An entry that some keys may use does not exist for the others."""
    connection: Connection = shared_world.connection
    other = create_key(connection, owner="ann", name="other", scopes=("user",))
    connection.execute("update models set allowed_keys = %s where name = 'shapes-frame-2'", ([other.id],))
    try:
        query = {"adapter": "shapes-frame"}
        assert "shapes-frame-2" not in http.get("/v1/recommendations/similar", params=query).text
        with studio.client(other.key) as client:
            assert "shapes-frame-2" in client.get("/v1/recommendations/similar", params=query).text
    finally:
        connection.execute("update models set allowed_keys = null where name = 'shapes-frame-2'")


def test_what_an_owner_hides_or_refuses_is_not_recommended_to_them(studio: Any, shared_world: Any) -> None:
    """Preferences hold everywhere, feedback for what it was about, both for their owner alone."""
    query = {"prompt": "a cross in a frame", "wait": WAIT}
    with studio.client(shared_world.key("cyn")) as http:
        http.timeout = 2 * WAIT
        first = http.get("/v1/recommendations/for-prompt", params=query).json()["items"][0]["adapter"]
        about = {"adapter": first["ref"], "helpful": False, "about": query["prompt"]}
        assert http.post("/v1/recommendations/feedback", json=about).json() == {
            "adapter": first["id"], "helpful": False,
        }  # fmt: skip
        assert first["ref"] not in names(http.get("/v1/recommendations/for-prompt", params=query))
        other = query | {"prompt": "a ring in a frame"}
        assert first["ref"] in names(http.get("/v1/recommendations/for-prompt", params=other))
        wanted = {"sources": {"weights": 0.0, "text": 1.0, "use": 0.0}, "hidden": [first["id"]]}
        assert http.put("/v1/recommendations/preferences", json=wanted).json() == wanted
        assert http.get("/v1/recommendations/preferences").json() == wanted
        answer = http.get("/v1/recommendations/for-prompt", params=other)
        assert first["ref"] not in names(answer)
        assert answer.json()["sources"]["use"]["state"] == "off"
    with studio.client(shared_world.key("dan")) as http:
        assert first["ref"] in names(http.get("/v1/recommendations/for-prompt", params=query))


def test_damaged_lora_fails_alone_and_says_why(http: httpx.Client, shared_world: Any) -> None:
    """Its status has the message; asked again only when somebody insists."""
    path = shared_world.home / "broken.safetensors"
    path.write_bytes(b"this is no model")
    made = shared_world.connection.execute(
        "insert into models (name, kind, layout, family, variant, path, fingerprint, components, weight_bytes, native_size, "
        "latent_factor, latent_channels) values ('broken', 'lora', 'file', 'sd15', 'lora', %s, 'f00d', '[]', 1, 0, 0, 0) "
        "returning id",
        (str(path),),
    ).fetchone()
    model: UUID = made["id"]
    try:
        assert http.post("/v1/recommendations/refresh", json={"adapter": "broken"}).json() == {"jobs": 2}

        def weights() -> Any:
            return http.get("/v1/recommendations/status", params={"adapter": str(model)}).json()["items"][0]["weights"]

        eventually(lambda: weights()["state"] not in {"missing", "queued"})
        assert weights()["state"] == "failed"
        assert weights()["message"]
        assert http.post("/v1/recommendations/refresh", json={"adapter": "broken"}).json() == {"jobs": 0}
        answer = http.get("/v1/recommendations/similar", params={"adapter": "broken"})
        assert answer.json()["sources"]["weights"]["state"] == "waiting"
    finally:
        shared_world.connection.execute("delete from models where id = %s", (model,))
