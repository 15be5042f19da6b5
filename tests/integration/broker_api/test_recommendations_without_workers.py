"""Recommendations while no worker looks at models, and the use of adapters over HTTP."""

from typing import Any

import httpx
import pytest

from jobs.history.usage import count_usage
from models_registry.entries import Kind


@pytest.fixture
def http(world: Any, live: Any) -> Any:
    """Return a client of an ordinary owner; two LoRAs are there, and no worker that analyses."""
    for name in ("night-city", "quiet-forest"):
        world.add_model(name, kind=Kind.LORA, native_size=0, latent_factor=0, latent_channels=0)
    world.connection.execute("update models set tags = '{neon}' where name = 'night-city'")
    with live.client(world.key("ann")) as client:
        yield client


def refs(answer: httpx.Response) -> list[str]:
    """Return who was recommended, in order."""
    assert answer.status_code == 200, answer.text
    return [item["adapter"]["ref"] for item in answer.json()["items"]]


def test_prompt_is_answered_by_words_and_says_why(http: httpx.Client) -> None:
    """Nobody waits for a worker that is not there."""
    answer = http.get("/v1/recommendations/for-prompt", params={"prompt": "a city in neon light", "wait": 60})
    assert refs(answer) == ["night-city"]
    report = answer.json()["sources"]["text"]
    assert report["why"] == "By words alone: no worker that reads texts is online."
    assert answer.json()["items"][0]["why"] == "By words alone: it says 'city', 'neon'."


def test_similar_asks_the_fleet_and_says_that_it_waits(world: Any, http: httpx.Client) -> None:
    """The jobs wait for a worker; asked again, they are not made again."""
    answer = http.get("/v1/recommendations/similar", params={"adapter": "night-city"})
    assert answer.json()["sources"]["weights"]["state"] == "waiting"
    jobs = "select count(*) as n from jobs where task = 'analyse'"
    asked = world.connection.execute(jobs).fetchone()
    assert asked["n"] > 0
    http.get("/v1/recommendations/similar", params={"adapter": "night-city"})
    assert world.connection.execute(jobs).fetchone() == asked
    # They are the fleet's own: no owner sees them.
    assert http.get("/v1/jobs").json()["items"] == []


@pytest.mark.parametrize(
    ("path", "query"),
    [
        ("similar", {"adapter": "night-city", "sources": "luck"}),
        ("similar", {"adapter": "night-city", "limit": "0"}),
        ("similar", {}),
        ("for-prompt", {"prompt": ""}),
        ("for-prompt", {"prompt": "x", "model": "nothing"}),
        ("status", {"cursor": "x"}),
    ],
)
def test_bad_questions_are_refused(http: httpx.Client, path: str, query: dict[str, str]) -> None:
    """With a 4xx that says what is wrong."""
    answer = http.get(f"/v1/recommendations/{path}", params=query)
    assert 400 <= answer.status_code < 500
    assert answer.json()["code"]


def test_preferences_need_a_source(http: httpx.Client) -> None:
    """All switched off is no preference; nothing is stored."""
    nothing = {"sources": {"weights": 0, "text": 0, "use": 0}}
    assert http.put("/v1/recommendations/preferences", json=nothing).status_code == 422
    assert http.get("/v1/recommendations/preferences").json()["sources"]["weights"] > 0


def test_use_of_an_adapter_is_shown_and_recommends_it(world: Any, http: httpx.Client) -> None:
    """Draw, download, draw again: counted for its owner and for all, featured, and paired."""
    request = {
        "prompt": "a ring", "model": "shapes-sd15",
        "loras": [{"name": "night-city", "weight": 0.8}, {"name": "quiet-forest", "weight": 0.5}],
    }  # fmt: skip
    made = http.post("/v1/jobs", json=request)
    assert made.status_code == 202, made.text
    job = made.json()["id"]
    worker = world.worker()
    worker.claim()
    worker.finish()
    picture = http.get(f"/v1/jobs/{job}/images/0", params={"download": "true"})
    assert picture.headers["content-disposition"].startswith("attachment;")
    assert http.get(f"/v1/jobs/{job}/images/0").headers["content-disposition"].startswith("inline;")
    assert http.post(f"/v1/jobs/{job}/replay", json={"changes": {}}).status_code == 202
    assert http.post(f"/v1/jobs/{job}/replay?dry_run=true", json={"changes": {}}).status_code == 200
    count_usage(world.connection)
    usage = http.get("/v1/adapters/night-city/usage").json()
    assert usage["mine"] == usage["fleet"]
    counted = {name: usage["mine"][name] for name in ("uses", "pictures", "downloaded", "repeated", "failures")}
    assert counted == {"uses": 1, "pictures": 1, "downloaded": 1, "repeated": 1, "failures": 0}
    assert usage["mine"]["weights"]["median"] == 0.8
    assert usage["owners"] == 1
    assert set(refs(http.get("/v1/recommendations/together", params={"adapter": "night-city"}))) == {"quiet-forest"}
    featured = http.get("/v1/dashboard/featured").json()["items"]
    assert {item["adapter"]["ref"] for item in featured} == {"night-city", "quiet-forest"}
    assert featured[0]["why"].startswith("Used by 1 job, 100% of its pictures kept")
    assert http.get("/v1/adapters/nothing/usage").status_code == 404
    assert http.get("/v1/adapters/a%00b/usage").status_code == 404
