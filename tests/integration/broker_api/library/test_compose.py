"""Composing: a stack becomes a prompt, and a job, or is refused with the reason."""

from typing import Any


def activate(world: Any, owner: str, *names: str, **weights: float) -> None:
    """Put entries into an owner's stack, in this order."""
    for position, name in enumerate(names):
        world.connection.execute(
            "insert into model_marks (owner, model, active, position, weight) "
            "select %s, id, true, %s, %s from models where name = %s",
            (owner, position, weights.get(name), name),
        )


def test_active_adapters_become_a_prompt(live: Any, world: Any) -> None:
    """In their order, with their own or recommended weights, each trigger word once and not where the prompt says it."""
    activate(world, "ann", "dusk", "frame", "glow", dusk=0.5)
    with live.client(world.key()) as client:
        answer = client.post("/v1/compose", json={"prompt": "a Framed circle", "negative_prompt": "grey"})
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert found["prompt"] == "a Framed circle, dusk, thin border, glow <lora:dusk:0.5> <lora:frame:0.8>"
    assert found["negative_prompt"] == "grey"
    assert [(lora["name"], lora["weight"]) for lora in found["loras"]] == [("dusk", 0.5), ("frame", 0.8)]
    assert (found["model"], found["warnings"], found["job"]) == ("shapes-sd15", [], None)


def test_nothing_active_is_refused(live: Any, world: Any) -> None:
    """With 400 and a code; what another owner has active does not count, nor does an empty list."""
    activate(world, "bob", "frame")
    with live.client(world.key()) as client:
        for body in ("{}", '{"prompt": "x"}', '{"loras": []}'):
            answer = client.post("/v1/compose", content=body)
            assert (answer.status_code, answer.json()["code"]) == (400, "nothing_active")


def test_mismatch_names_the_adapter_and_the_nearest_alternative(live: Any, world: Any) -> None:
    """The sentence says which adapter, which model takes it, and which adapter this model has instead."""
    body: dict[str, Any] = {"prompt": "x", "loras": [{"name": "frame"}, {"name": "dusk-wide"}], "model": "shapes-sd15"}
    with live.client(world.key()) as client:
        answer = client.post("/v1/compose", json=body)
        problem = answer.json()
        assert (answer.status_code, problem["code"], problem["field"]) == (422, "family_mismatch", "loras.1.name")
        assert "dusk-wide is a LoRA" in problem["detail"]
        assert "shapes-wide" in problem["detail"]
        assert "nearest lora is dusk." in problem["detail"]
        alone = client.post("/v1/compose", json={"loras": [{"name": "dusk-wide"}]}).json()
    assert alone["model"] == "shapes-wide"


def test_unknown_and_foreign_adapters_look_alike(live: Any, world: Any) -> None:
    """Both are refused with one code, or left out with a warning; the owner may use theirs."""
    with live.client(world.key()) as client, live.client(world.key("bob")) as owner:
        for name in ("nothing", "hidden"):
            refused = client.post("/v1/compose", json={"loras": [{"name": name}]})
            assert (refused.status_code, refused.json()["code"]) == (422, "adapter_unknown")
        some = {"loras": [{"name": "hidden"}, {"name": "frame"}], "skip_missing": True}
        left = client.post("/v1/compose", json=some).json()
        assert ([lora["name"] for lora in left["loras"]], len(left["warnings"])) == (["frame"], 1)
        assert owner.post("/v1/compose", json={"loras": [{"name": "hidden"}]}).status_code == 200


def test_weight_outside_its_range_is_warned_of(live: Any, world: Any) -> None:
    """What people recommend is said, and the wish is kept; a tag in the prompt counts more than the list."""
    with live.client(world.key()) as client:
        found = client.post("/v1/compose", json={"loras": [{"name": "frame", "weight": 1.5}]}).json()
        tagged = client.post("/v1/compose", json={"prompt": "x <lora:frame:0.3>", "loras": [{"name": "frame"}]}).json()
    assert found["loras"][0]["weight"] == 1.5
    assert "1.5 is outside" in found["warnings"][0]
    assert [lora["weight"] for lora in tagged["loras"]] == [0.3]


def test_composition_is_submitted_at_once(live: Any, world: Any) -> None:
    """By the body or by the query, with each LoRA once; what would be refused leaves no job."""
    activate(world, "ann", "frame")
    with live.client(world.key()) as client:
        answer = client.post("/v1/compose?submit=1", json={"prompt": "a circle", "settings": {"steps": 9, "seed": 3}})
        assert answer.status_code == 202, answer.text
        job = answer.json()["job"]
        assert answer.headers["location"] == f"/v1/jobs/{job['id']}"
        request = client.get(f"/v1/jobs/{job['id']}").json()["request"]
        other = client.post("/v1/compose", json={"prompt": "a circle", "submit": True})
        assert other.status_code == 202
        refused = client.post("/v1/compose?submit=1", json={"settings": {"width": 129}})
        assert refused.status_code == 422
    assert (request["prompt"], request["steps"], request["seed"]) == ("a circle, framed, thin border", 9, 3)
    assert [(lora["name"], lora["weight"]) for lora in request["loras"]] == [("frame", 0.8)]
    assert world.count("jobs") == 2


def test_recipe_is_composed_by_name(live: Any, world: Any) -> None:
    """Prompt, weights and settings are the recipe's; the caller's own prompt joins it."""
    with live.client(world.key()) as client:
        recipe = {
            "name": "Framed",
            "prompt": "a circle",
            "loras": [{"name": "frame", "weight": 0.4}],
            "settings": {"steps": 7},
        }
        kept = client.post("/v1/recipes", json=recipe).json()
        for named in ("framed", kept["id"]):
            found = client.post(
                "/v1/compose", json={"recipe": named, "prompt": "at night", "trigger_words": False}
            ).json()
            assert found["prompt"] == "a circle, at night <lora:frame:0.4>"
            assert found["settings"] == {"steps": 7}
        unknown = client.post("/v1/compose", json={"recipe": "nothing"})
    assert (unknown.status_code, unknown.json()["code"]) == (422, "recipe_unknown")
