"""Recipes: kept once, shared, drawn, taken from jobs and from pictures."""

import base64
import io
from typing import Any
from uuid import uuid4

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from keeper.duties import tidy

FRAMED = {
    "name": "Framed circle",
    "prompt": "a red circle",
    "loras": [{"name": "frame", "weight": 0.8}],
    "settings": {"steps": 9},
}
INFOTEXT = (
    "a red circle <lora:myFrame:0.7>, <lora:gone:1>\nNegative prompt: blurry\nSteps: 12, Sampler: Euler, CFG scale: 4.5, Seed: 77, "
    'Size: 64x96, Model hash: ffffffffff, Model: somebodysMix, Lora hashes: "myFrame: 9f8e7d6c5b4a, gone: aabbccddeeff", Version: v1.10'
)  # fmt: skip


def picture(text: str = "", key: str = "parameters") -> str:
    """Return a PNG with a text in it, as base64."""
    info = PngInfo()
    if text:
        info.add_text(key, text)
    file = io.BytesIO()
    Image.new("RGB", (16, 8), "red").save(file, "PNG", pnginfo=info)
    return base64.b64encode(file.getvalue()).decode()


def test_recipe_is_kept_and_read_back(live: Any, world: Any) -> None:
    """Tags of the prompt join its LoRAs, and each LoRA shows whether it is here."""
    body = {**FRAMED, "prompt": "a red circle <lora:dusk:0.5> <lora:nothing:1>", "preview": picture(), "tags": ["x"]}
    with live.client(world.key()) as client:
        answer = client.post("/v1/recipes", json=body)
        assert answer.status_code == 201, answer.text
        kept = client.get(answer.headers["location"]).json()
        assert kept == answer.json()
        assert client.get("/v1/recipes", params={"tag": "x", "q": "RED"}).json()["items"] == [kept]
        assert client.get("/v1/recipes", params={"tag": "y"}).json()["items"] == []
        shown = client.get(kept["preview"]["url"])
        known = client.get(kept["preview"]["url"], headers={"if-none-match": shown.headers["etag"]})
    assert kept["prompt"] == "a red circle"
    assert [(lora["name"], lora["missing"]) for lora in kept["loras"]] == [
        ("frame", False), ("dusk", False), ("nothing", True),
    ]  # fmt: skip
    with Image.open(io.BytesIO(shown.content)) as opened:
        assert (opened.format, opened.size) == ("WEBP", (16, 8))
    assert known.status_code == 304


def test_recipe_is_kept_once(live: Any, world: Any) -> None:
    """Neither a name in another case nor the same content under another name is kept again; another owner's may be alike."""
    with live.client(world.key()) as client, live.client(world.key("bob")) as other:
        assert client.post("/v1/recipes", json=FRAMED).status_code == 201
        for body, code in (
            ({**FRAMED, "name": "FRAMED CIRCLE", "prompt": "other", "preview": picture()}, "name_taken"),
            ({**FRAMED, "name": "other"}, "recipe_exists"),
        ):
            refused = client.post("/v1/recipes", json=body)
            assert (refused.status_code, refused.json()["code"]) == (409, code)
        assert other.post("/v1/recipes", json=FRAMED).status_code == 201
        second = client.post("/v1/recipes", json={"name": "second", "prompt": "y"}).json()
        refused = client.patch(f"/v1/recipes/{second['id']}", json={"name": "framed CIRCLE"})
        assert (refused.status_code, refused.json()["code"]) == (409, "name_taken")
    assert world.count("recipes") == 3
    # Whose row was refused, its picture is left to the keeper.
    assert world.count("garbage") == 1


def test_recipe_is_seen_by_others_once_it_is_shared(live: Any, world: Any) -> None:
    """Private ones look like none; shared ones are read, composed and drawn, but not changed."""
    with live.client(world.key()) as client, live.client(world.key("bob")) as other:
        kept = client.post("/v1/recipes", json=FRAMED).json()
        path = f"/v1/recipes/{kept['id']}"
        for answer in (other.get(path), other.get(f"/v1/recipes/{uuid4()}"), other.post(f"{path}/generate", json={})):
            assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
        assert client.patch(path, json={"visibility": "public"}).status_code == 200
        assert other.get(path).json()["name"] == "Framed circle"
        assert other.get("/v1/recipes", params={"own": True}).json()["items"] == []
        assert len(other.get("/v1/recipes").json()["items"]) == 1
        assert other.patch(path, json={"name": "mine"}).status_code == 404
        assert other.delete(path).status_code == 404
        assert client.delete(path).status_code == 204
        assert client.get(path).status_code == 404


def test_recipe_is_changed(live: Any, world: Any) -> None:
    """What is left out stays; null forgets the model; a picture that is replaced is left to the keeper."""
    with live.client(world.key()) as client:
        kept = client.post("/v1/recipes", json={**FRAMED, "model": "shapes-sd15", "preview": picture()}).json()
        path = f"/v1/recipes/{kept['id']}"
        changed = client.patch(path, json={"prompt": "a circle <lora:dusk:1>", "model": None, "preview": None}).json()
    assert [(lora["name"], lora["sha256"]) for lora in changed["loras"]] == [
        ("frame", "9f8e7d6c5b4a" + "0" * 52), ("dusk", "0011223344556677" + "0" * 48),
    ]  # fmt: skip
    assert (changed["prompt"], changed["model"], changed["preview"]) == ("a circle", None, None)
    assert (changed["settings"], changed["name"]) == (kept["settings"], kept["name"])
    assert world.count("garbage") == 1


def test_recipe_is_drawn(live: Any, world: Any) -> None:
    """As it is, or with changes for this once; one whose LoRAs are away says which."""
    with live.client(world.key()) as client:
        kept = client.post("/v1/recipes", json=FRAMED).json()
        answer = client.post(f"/v1/recipes/{kept['id']}/generate", json={"changes": {"seed": 5}})
        assert answer.status_code == 202, answer.text
        request = answer.json()["request"]
        away = client.post("/v1/recipes", json={"name": "away", "loras": [{"name": "nothing"}]}).json()
        refused = client.post(f"/v1/recipes/{away['id']}/generate", json={})
        dry = client.post(f"/v1/recipes/{kept['id']}/generate?dry_run=1", json={})
    assert (request["prompt"], request["steps"], request["seed"], request["loras"][0]["weight"]) == (
        "a red circle",
        9,
        5,
        0.8,
    )
    assert (refused.status_code, refused.json()["code"]) == (422, "adapter_unknown")
    assert "nothing" in refused.json()["detail"]
    assert (dry.status_code, dry.json()["steps"]) == (200, 9)
    assert world.count("jobs") == 1


def test_job_becomes_a_recipe(live: Any, world: Any) -> None:
    """With its prompt, stack and every setting as it was resolved; a foreign job looks like none."""
    with live.client(world.key()) as client, live.client(world.key("bob")) as other:
        asked = {"prompt": "x <lora:frame:0.6>", "steps": 7, "scheduler": "DPM++ 2M Karras"}
        job = client.post("/v1/jobs", json=asked).json()
        assert other.post("/v1/recipes", json={"from_job": job["id"]}).status_code == 404
        answer = client.post("/v1/recipes", json={"from_job": job["id"], "name": "seven", "settings": {"steps": 8}})
        assert answer.status_code == 201, answer.text
        kept = answer.json()
    assert (kept["prompt"], kept["model"], kept["source"]) == ("x", "shapes-sd15", f"job:{job['id']}/0")
    assert [(lora["name"], lora["weight"]) for lora in kept["loras"]] == [("frame", 0.6)]
    assert kept["settings"] | {"steps": 8, "scheduler": "DPM++ 2M", "schedule_type": "karras"} == kept["settings"]
    assert kept["settings"]["seed"] == job["request"]["seed"]


def test_picture_of_a1111_becomes_a_recipe(live: Any, world: Any) -> None:
    """A LoRA under another name is found by its hash, and what is not here is marked as missing."""
    with live.client(world.key()) as client:
        dry = client.post("/v1/recipes/from-picture", json={"image": picture(INFOTEXT), "dry_run": True})
        assert dry.status_code == 200, dry.text
        assert world.count("recipes") == 0
        answer = client.post("/v1/recipes/from-picture", json={"image": picture(INFOTEXT)})
        assert answer.status_code == 201, answer.text
    for found in (dry.json(), answer.json()):
        assert [(lora["name"], lora["weight"], lora["missing"]) for lora in found["loras"]] == [
            ("frame", 0.7, False), ("gone", 1.0, True),
        ]  # fmt: skip
        assert (found["model"], found["model_missing"], found["negative_prompt"]) == ("somebodysMix", True, "blurry")
        assert found["settings"] | {"steps": 12, "seed": 77, "width": 64, "height": 96} == found["settings"]
        assert found["name"].startswith("a red circle")
    assert answer.json()["preview"] is not None


def test_own_picture_becomes_a_recipe(live: Any, world: Any) -> None:
    """Our metadata counts; what no recipe keeps is left out."""
    ours = '{"task": "img2img", "prompt": "p", "loras": [{"name": "dusk", "weight": 0.2}], "steps": 5, "strength": 0.5, "seed": "x"}'
    with live.client(world.key()) as client:
        found = client.post(
            "/v1/recipes/from-picture", json={"image": picture(ours, "imagefleet"), "dry_run": True}
        ).json()
    assert (found["prompt"], found["settings"], found["loras"][0]["name"]) == ("p", {"steps": 5}, "dusk")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"name": "x"}, None),
        ({"name": "", "prompt": "x"}, "name"),
        ({"prompt": "x", "settings": {"steps": 0}}, "settings.steps"),
        ({"prompt": "x", "preview": "nonsense!"}, "preview"),
        ({"prompt": "x", "nonsense": 1}, "nonsense"),
    ],
)
def test_bad_recipe_is_refused(live: Any, world: Any, body: dict[str, Any], field: str | None) -> None:
    """With 422, the field at fault, and nothing kept."""
    with live.client(world.key()) as client:
        answer = client.post("/v1/recipes", json=body)
    assert (answer.status_code, answer.json().get("field")) == (422, field)
    assert world.count("recipes") == 0


def test_shared_preview_is_kept_while_anybody_shows_it(live: Any, world: Any) -> None:
    """The same picture of two owners lies once, and goes with the last recipe that shows it."""
    with live.client(world.key()) as client, live.client(world.key("bob")) as other:
        paths = []
        for each in (client, other):
            kept = each.post("/v1/recipes", json={**FRAMED, "preview": picture()}).json()
            paths.append(f"/v1/recipes/{kept['id']}")
        assert client.delete(paths[0]).status_code == 204
        tidy(world.connection, world.storage, 30)
        assert other.get(f"{paths[1]}/preview").status_code == 200
        (key,) = [found.key for found in world.storage.list("previews")]
        assert other.delete(paths[1]).status_code == 204
        tidy(world.connection, world.storage, 30)
    assert key not in [found.key for found in world.storage.list("previews")]
    assert world.count("garbage") == 0
