"""Adapters are listed apart from models, by kind and family."""

from typing import Any

import openai
import pytest

from client.client import Client
from models_registry.entries import ANY_FAMILY, Kind, Layout


@pytest.fixture
def registered(world: Any) -> Any:
    """Register one adapter of each kind, and a checkpoint that inpaints."""
    world.add_model("shapes-sd15-inpaint", variant="inpaint")
    empty = {"native_size": 0, "latent_factor": 0, "latent_channels": 0, "layout": Layout.SINGLE_FILE}
    world.add_model("frame", kind=Kind.LORA, variant="locon", rank=8, text_width=64, **empty)
    world.add_model("shapes-sd15", kind=Kind.LORA, variant="lora", rank=4, text_width=768, **empty)
    world.add_model("canny", kind=Kind.CONTROLNET, text_width=64, **empty)
    world.add_model("dusk", kind=Kind.EMBEDDING, vectors=2, text_width=64, **empty)
    world.add_model("grey", kind=Kind.VAE, **(empty | {"latent_factor": 8, "latent_channels": 4}))
    world.add_model("x4", kind=Kind.UPSCALER, family=ANY_FAMILY, variant="compact", scale=4, **empty)
    world.add_model("hed", kind=Kind.PREPROCESSOR, family=ANY_FAMILY, **empty)
    return world


def test_models_are_checkpoints_with_their_tasks(registered: Any, live: Any) -> None:
    """Adapters are no models, and a checkpoint for inpainting says that it does nothing else; the default is an ordinary one."""
    with live.client(registered.key()) as client:
        page = client.get("/v1/models").json()
    assert {item["name"]: item["tasks"] for item in page["items"]} == {
        "shapes-sd15": ["img2img", "inpaint", "txt2img"],
        "shapes-sd15-inpaint": ["inpaint"],
    }
    assert [item["name"] for item in page["items"] if item["is_default"]] == ["shapes-sd15"]
    assert {item["id"] for item in page["data"]} == {"shapes-sd15", "shapes-sd15-inpaint"}


def test_models_are_named_to_openai_clients_all_at_once(registered: Any, live: Any) -> None:
    """They ask for no second page; who gives a limit gets a page, and our own client reads all pages."""
    registered.connection.execute(
        "insert into models (name, kind, layout, family, variant, path, fingerprint, components, weight_bytes, native_size, latent_factor, "
        "latent_channels) select 'model ' || n, 'checkpoint', 'file', 'sd15', 'base', '/x' || n, md5(n::text), '[]', 1, 128, 8, 4 "
        "from generate_series(1, 220) n"
    )
    key = registered.key()
    with live.client(key) as http:
        bare = http.get("/v1/models").json()
        assert (len(bare["items"]), len(bare["data"])) == (200, 222)
        assert [item["id"] for item in bare["data"]][:200] == [item["ref"] for item in bare["items"]]
        page = http.get("/v1/models", params={"limit": 2}).json()
        assert [item["id"] for item in page["data"]] == [item["ref"] for item in page["items"]]
        rest = http.get("/v1/models", params={"cursor": bare["next_cursor"]}).json()
        assert len(rest["items"]) == len(rest["data"]) == 22
    plain = openai.DefaultHttpxClient(trust_env=False)
    with openai.OpenAI(base_url=f"{live.url}/v1", api_key=key, http_client=plain) as client:
        assert len({model.id for model in client.models.list()}) == 222
    with Client(live.url, key) as fleet:
        assert len({model.name for model in fleet.models().items}) == 222


def test_adapters_are_listed_with_their_facts(registered: Any, live: Any) -> None:
    """Each kind tells what a request must know of it, and never where its files lie."""
    with live.client(registered.key()) as client:
        page = client.get("/v1/adapters").json()
    assert page["next_cursor"] is None
    items = {(item["kind"], item["name"]): item for item in page["items"]}
    assert items.keys() == {
        ("lora", "frame"),
        ("lora", "shapes-sd15"),
        ("controlnet", "canny"),
        ("embedding", "dusk"),
        ("vae", "grey"),
        ("upscaler", "x4"),
        ("preprocessor", "hed"),
    }
    frame = items["lora", "frame"]
    assert (frame["variant"], frame["rank"], frame["text_width"], frame["scale"]) == ("locon", 8, 64, None)
    assert frame["title"] == f"frame [{frame['fingerprint'][:10]}]"
    assert (items["upscaler", "x4"]["scale"], items["embedding", "dusk"]["vectors"]) == (4, 2)
    assert not any("path" in item for item in page["items"])


def test_adapters_are_filtered(registered: Any, live: Any) -> None:
    """Kind and family choose; an unknown kind is refused by name, an unknown family has none."""
    with live.client(registered.key()) as client:

        def names(**query: str) -> set[str]:
            return {item["name"] for item in client.get("/v1/adapters", params=query).json()["items"]}

        assert names(kind="lora") == {"frame", "shapes-sd15"}
        assert names(family="any") == {"x4", "hed"}
        assert names(kind="upscaler", family="sd15") == names(family="flux") == set()
        refused = client.get("/v1/adapters", params={"kind": "checkpoint"})
        assert (refused.status_code, refused.json()["field"]) == (422, "kind")
        assert client.get("/v1/adapters", headers={"authorization": "Bearer no"}).status_code == 401


def test_a_checkpoint_for_inpainting_is_not_asked_for_more(registered: Any, live: Any) -> None:
    """The refusal says what the model does."""
    with live.client(registered.key()) as client:
        refused = client.post("/v1/jobs", json={"prompt": "a", "model": "shapes-sd15-inpaint"})
        lora = client.post("/v1/jobs", json={"prompt": "a", "model": "frame"})
    assert (refused.status_code, refused.json()["code"]) == (422, "task_unsupported")
    assert "can do: inpaint" in refused.json()["detail"]
    assert (lora.status_code, lora.json()["code"]) == (422, "model_unknown")
