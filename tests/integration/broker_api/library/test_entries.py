"""The library over HTTP: entries are searched, read by every name, changed by who may, and gone only when nobody needs them."""

import json
import re
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from typer.testing import CliRunner

from cli.main import app
from infra.storage import ObjectMissing
from models_registry import pins
from models_registry.entries import Kind
from models_registry.library import create_entry
from models_registry.preview_bytes import preview_key
from models_registry.records import Facts
from tests.library_entries import entry
from tests.picture_files import png
from tests.tensor_files import write_tensors

PROMPT = {"prompt": "a red circle on a blue background"}


@pytest.fixture
def shelf(clean_world: Any) -> Any:
    """Empty the library of a module's world but for its checkpoint."""
    clean_world.connection.execute("delete from model_pins")
    clean_world.connection.execute("delete from models where kind <> 'checkpoint'")
    return clean_world


def add(world: Any, name: str, kind: Kind = Kind.LORA, **facts: Any) -> str:
    """Add an entry and return its id."""
    changes = facts.pop("changes", {})
    return str(create_entry(world.connection, entry(name, kind, text_width=64, **changes), Facts(**facts)))


def names(client: Any, path: str = "/v1/adapters", **query: Any) -> list[str]:
    """Return the refs that a list shows."""
    answer = client.get(path, params=query)
    assert answer.status_code == 200, answer.text
    return [item["ref"] for item in answer.json()["items"]]


def test_entries_tell_how_much_they_were_used(shelf: Any, shared_live: Any) -> None:
    """In lists, which they sort, alone, and among their versions: what all owners did with them."""
    used = [add(shelf, name) for name in ("rare@v1", "often", "never")]
    for entry_id, owner, uses, weight in ((used[0], "ann", 1, 0.7), (used[1], "ann", 2, 1), (used[1], "bob", 2, 0.5)):
        shelf.connection.execute(
            "insert into model_usage (model, owner, uses, failures, seconds, last_at) values (%s, %s, %s, 1, 9, '2026-01-02Z')",
            (entry_id, owner, uses),
        )
        shelf.connection.execute(
            "insert into model_usage_weights (model, owner, weight, uses) values (%s, %s, %s, %s)",
            (entry_id, owner, weight, uses),
        )
    often = {
        "uses": 4, "last_used_at": "2026-01-02T00:00:00Z", "typical_weight": 0.5, "mean_seconds": 9.0, "failure_share": 0.5,
    }  # fmt: skip
    with shared_live.client(shelf.key("ann")) as client:
        assert names(client, sort="uses") == ["often", "rare@v1", "never"]
        assert names(client, sort="uses", order="asc") == ["never", "rare@v1", "often"]
        assert names(client, sort="uses", q="rar") == ["rare@v1"]
        items = client.get("/v1/adapters", params={"sort": "uses", "limit": 1}).json()
        assert items["items"][0]["usage"] == often
        assert client.get("/v1/adapters/often").json()["usage"] == often
        assert client.get("/v1/adapters/never").json()["usage"]["uses"] == 0
        rare = client.get("/v1/adapters/rare/versions").json()["items"][0]["usage"]
        assert (rare["uses"], rare["mean_seconds"], rare["failure_share"]) == (1, None, 1.0)
        refused = client.get("/v1/adapters", params={"sort": "name", "cursor": items["next_cursor"]})
        assert (refused.status_code, refused.json()["field"]) == (422, "cursor")
        assert client.get("/v1/models", params={"sort": "uses"}).json()["items"][0]["usage"]["uses"] == 0
        assert client.get("/v1/adapters", params={"sort": "abuses"}).status_code == 422


def test_entries_are_searched_filtered_and_sorted(shelf: Any, shared_live: Any) -> None:
    """Beginnings of words, in any of what is said of an entry; filters narrow; every order pages without gap or repeat."""
    add(shelf, "Neon Dusk@v2", tags=("style", "night"), base_model="SD 1.5", description="glowing streets")
    add(shelf, "watercolour", tags=("style",), trigger_words=("wtrclr",))
    add(shelf, "glow", Kind.EMBEDDING)
    gone = add(shelf, "lost")
    shelf.connection.execute("update models set missing_since = now() where id = %s", (gone,))
    with shared_live.client(shelf.key("ann")) as client:
        assert names(client, q="glow") == ["glow", "Neon Dusk@v2"], "a name weighs more than a description"
        assert names(client, q="neo STREETS") == ["Neon Dusk@v2"]
        assert names(client, q="wtr") == ["watercolour"]
        assert names(client, q="eon") == []
        assert names(client, tag="style, night") == ["Neon Dusk@v2"]
        assert names(client, base_model="sd 1.5") == ["Neon Dusk@v2"]
        assert names(client, kind="embedding") == ["glow"]
        assert names(client, missing=True) == ["lost"]
        assert names(client, sort="name") == ["glow", "Neon Dusk@v2", "watercolour"]
        for sort in ("name", "created", "updated", "size", "rating", "uses"):
            for order in ("asc", "desc"):
                whole = names(client, sort=sort, order=order)
                paged, cursor = [], ""
                while cursor is not None:
                    asked = {"sort": sort, "order": order, "limit": 1} | ({"cursor": cursor} if cursor else {})
                    page = client.get("/v1/adapters", params=asked).json()
                    paged += [item["ref"] for item in page["items"]]
                    cursor = page["next_cursor"]
                assert paged == whole
                assert len(set(whole)) == 3
        tags = client.get("/v1/adapters/tags").json()
        assert tags["items"] == [{"tag": "style", "count": 2}, {"tag": "night", "count": 1}]
        first = client.get("/v1/adapters/tags", params={"limit": 1}).json()
        second = client.get("/v1/adapters/tags", params={"limit": 1, "cursor": first["next_cursor"]}).json()
        assert first["items"] + second["items"] == tags["items"]
        refused = client.get("/v1/adapters", params={"cursor": first["next_cursor"]})
        assert (refused.status_code, refused.json()["code"]) == (422, "cursor_invalid")


def test_an_entry_is_read_by_every_name(shelf: Any, shared_live: Any) -> None:
    """Its id, its ref, an alias, and the name of its newest version; two kinds of one name are told apart by id."""
    made = add(shelf, "dusk@v2", aliases=("night",))
    add(shelf, "dusk@v1")
    other = add(shelf, "both")
    add(shelf, "both", Kind.VAE)
    with shared_live.client(shelf.key("ann")) as client:
        for name in (made, "dusk@v2", "NIGHT", "dusk"):
            found = client.get(f"/v1/adapters/{name}").json()
            assert (found["id"], found["name"], found["version"], found["ref"]) == (made, "dusk", "v2", "dusk@v2")
            assert "path" not in found
        assert [item["ref"] for item in client.get("/v1/adapters/dusk@v1/versions").json()["items"]] == [
            "dusk@v2",
            "dusk@v1",
        ]
        unknown = client.get("/v1/adapters/nothing")
        assert (unknown.status_code, unknown.json()["code"]) == (404, "not_found")
        ambiguous = client.get("/v1/adapters/both")
        assert (ambiguous.status_code, ambiguous.json()["code"]) == (409, "name_ambiguous")
        assert client.get(f"/v1/adapters/{other}").json()["kind"] == "lora"
        model = client.get("/v1/models/shapes-sd15").json()
        assert (model["id"], model["object"], model["kind"]) == ("shapes-sd15", "model", "checkpoint")
        assert client.get(f"/v1/models/{model['entry_id']}").json() == model
        assert client.get("/v1/adapters/shapes-sd15").status_code == 404, "a checkpoint is no adapter"


def test_a_private_entry_is_nobody_elses(shelf: Any, shared_live: Any) -> None:
    """For others it is unknown by every door: lists, names, jobs, tags in prompts, A1111; allowed keys open a public one."""
    made = add(shelf, "mine", owner="ann", visibility="private", tags=("secret",))
    ann, bob = shelf.key("ann"), shelf.key("bob")
    asked = PROMPT | {"loras": [{"name": "mine"}]}
    with shared_live.client(bob) as client:
        assert names(client) == []
        assert client.get("/v1/adapters/tags").json()["items"] == []
        hidden, unknown = client.get(f"/v1/adapters/{made}"), client.get(f"/v1/adapters/{uuid4()}")
        assert (hidden.status_code, hidden.json()["detail"]) == (404, unknown.json()["detail"])
        for request in (asked, {"prompt": "a <lora:mine:1>"}):
            refused = client.post("/v1/jobs", params={"dry_run": True}, json=request)
            assert (refused.status_code, refused.json()["code"]) == (422, "adapter_unknown"), refused.text
        other = client.post("/v1/jobs", params={"dry_run": True}, json=PROMPT | {"loras": [{"name": "none"}]})
        assert refused.json()["detail"].replace("'mine'", "'none'") == other.json()["detail"]
        assert client.get("/sdapi/v1/loras").json() == []
        assert client.patch(f"/v1/adapters/{made}", json={"tags": []}).status_code == 404
        assert client.post("/v1/adapters/bulk", json={"action": "activate", "ids": [made]}).status_code == 409
    with shared_live.client(ann) as client:
        assert names(client) == ["mine"]
        assert client.post("/v1/jobs", params={"dry_run": True}, json=asked).status_code == 200
        assert [item["name"] for item in client.get("/sdapi/v1/loras").json()] == ["mine"]
        key_id = shelf.connection.execute("select id from api_keys where owner = 'bob'").fetchone()["id"]
        opened = client.patch(f"/v1/adapters/{made}", json={"visibility": "public", "allowed_keys": [key_id]})
        assert opened.json()["allowed_keys"] == [key_id]
    with shared_live.client(bob) as client:
        assert names(client) == ["mine"]
        assert client.get(f"/v1/adapters/{made}").json()["allowed_keys"] is None, (
            "which keys there are is its owner's business"
        )
    with shared_live.client(shelf.key("bob")) as client:
        assert names(client) == []


def test_only_who_may_changes_an_entry(shelf: Any, shared_live: Any) -> None:
    """Its owner and admins; what is left out stays; what others have is refused and nothing is half changed."""
    own, fleets = add(shelf, "own", owner="ann", tags=("a",)), add(shelf, "fleet's")
    with shared_live.client(shelf.key("ann")) as client:
        changed = client.patch(
            f"/v1/adapters/{own}",
            json={
                "name": "ours",
                "version": "v1",
                "aliases": ["short"],
                "weight": 0.6,
                "weight_max": 1,
                "description": "d",
            },
        ).json()
        assert (changed["ref"], changed["tags"], changed["weight"], changed["aliases"]) == (
            "ours@v1",
            ["a"],
            0.6,
            ["short"],
        )
        for body, status, code in (
            ({"name": "fleet's", "version": "", "tags": ["b"]}, 409, "name_taken"),
            ({"weight_min": 2.0}, 422, "weights_invalid"),
            ({"name": "a/b"}, 422, "name_invalid"),
            ({"tags": [""]}, 422, "invalid_request"),
            ({"kind": "vae"}, 422, "invalid_request"),
        ):
            refused = client.patch(f"/v1/adapters/{own}", json=body)
            assert (refused.status_code, refused.json()["code"]) == (status, code), refused.text
        assert client.get("/v1/adapters/short").json()["tags"] == ["a"]
        assert client.patch(f"/v1/adapters/{fleets}", json={"tags": []}).json()["code"] == "forbidden"
        assert client.delete(f"/v1/adapters/{fleets}").status_code == 403
        assert client.get(f"/v1/adapters/{fleets}").json()["editable"] is False
    with shared_live.client(shelf.key("root", ("user", "admin"))) as client:
        assert client.patch(f"/v1/adapters/{fleets}", json={"tags": ["x"]}).json()["tags"] == ["x"]
        assert client.delete(f"/v1/adapters/{fleets}").status_code == 204
        assert client.get(f"/v1/adapters/{fleets}").status_code == 404


def test_marks_are_each_owners_own(shelf: Any, shared_live: Any) -> None:
    """Others do not see them; what is left out stays; what becomes active comes last in the stack."""
    first, second = add(shelf, "first"), add(shelf, "second")
    with shared_live.client(shelf.key("ann")) as client, shared_live.client(shelf.key("bob")) as other:
        assert client.put(f"/v1/adapters/{first}/marks", json={"active": True, "rating": 4}).json()["position"] == 1
        assert client.put(f"/v1/adapters/{second}/marks", json={"active": True, "weight": 0.5}).json()["position"] == 2
        kept = client.put(f"/v1/adapters/{first}/marks", json={"favourite": True}).json()
        assert kept == {"favourite": True, "rating": 4, "active": True, "position": 1, "weight": None}
        assert names(client, active=True) == ["first", "second"]
        assert names(client, favourite=True) == names(client, rating=4) == ["first"]
        assert names(client, favourite=False) == ["second"]
        assert names(client, sort="rating") == ["first", "second"]
        assert names(other, active=True) == []
        assert client.put(f"/v1/adapters/{first}/marks", json={"active": False}).json()["position"] is None
        assert client.put(f"/v1/adapters/{first}/marks", json={"rating": 6}).status_code == 422


def test_previews_come_and_go(shelf: Any, shared_live: Any) -> None:
    """A picture is kept small, read with its ETag, and its bytes are left to the keeper when it is removed."""
    made = add(shelf, "dusk", owner="ann")
    with shared_live.client(shelf.key("ann")) as client:
        upload = client.post("/v1/uploads", content=png(1024, 512), headers={"content-type": "image/png"}).json()
        added = client.post(f"/v1/adapters/{made}/previews", json={"image": f"upload:{upload['id']}"})
        assert (added.status_code, added.json()["n"], added.json()["width"], added.json()["height"]) == (
            201,
            0,
            512,
            256,
        )
        picture = client.get(added.headers["location"])
        assert (picture.status_code, picture.headers["content-type"]) == (200, "image/webp")
        etag = picture.headers["etag"]
        assert client.get(added.headers["location"], headers={"if-none-match": etag}).status_code == 304
        assert names(client, previewed=True) == ["dusk"]
        assert client.get("/v1/adapters/dusk").json()["previews"][0]["url"] == added.json()["url"]
        bad = client.post(f"/v1/adapters/{made}/previews", json={"image": "bm90IGEgcGljdHVyZQ=="})
        assert (bad.status_code, bad.json()["field"]) == (422, "image")
        assert client.delete(added.headers["location"]).status_code == 204
        assert client.delete(added.headers["location"]).status_code == 404
        assert names(client, previewed=True) == []
    key = preview_key(etag.strip('"'))
    assert shelf.connection.execute("select key from garbage").fetchall() == [{"key": key}]
    assert shelf.storage.get(key), "the keeper removes it"
    with pytest.raises(ObjectMissing):
        shelf.storage.get(preview_key("0" * 64))


def test_compatibility_says_why_not(shelf: Any, shared_live: Any) -> None:
    """Each checkpoint, or the one that is asked for."""
    add(shelf, "fits", changes={"family": "sd15"})
    add(shelf, "other", changes={"family": "sdxl"})
    with shared_live.client(shelf.key("ann")) as client:
        assert client.get("/v1/adapters/fits/compatibility").json()["items"] == [
            {"model": "shapes-sd15", "fits": True, "reason": None}
        ]
        other = client.get("/v1/adapters/other/compatibility", params={"model": "SHAPES-sd15"}).json()["items"][0]
        assert (other["fits"], "SDXL" in other["reason"]) == (False, True)
        assert client.get("/v1/adapters/fits/compatibility", params={"model": "x"}).json()["code"] == "model_unknown"


def test_a_lora_without_weight_takes_its_entrys(shelf: Any, shared_live: Any) -> None:
    """In the list and in a tag; a weight that is given counts; a name alone is its newest version."""
    add(shelf, "dusk@v2", weight=0.4)
    add(shelf, "dusk@v1", weight=0.9)

    def weights(client: Any, **request: Any) -> list[tuple[str, float]]:
        answer = client.post("/v1/jobs", json=PROMPT | request)
        assert answer.status_code == 202, answer.text
        return [(lora["name"], lora["weight"]) for lora in answer.json()["request"]["loras"]]

    with shared_live.client(shelf.key("ann")) as client:
        assert weights(client, loras=[{"name": "dusk"}]) == [("dusk@v2", 0.4)]
        assert weights(client, loras=[{"name": "dusk@v1", "weight": 1.0}]) == [("dusk@v1", 1.0)]
        assert weights(client, prompt="a <lora:Dusk>") == [("dusk@v2", 0.4)]
        assert weights(client, prompt="a <lora:dusk:0.7>") == [("dusk@v2", 0.7)]


def test_what_an_unfinished_job_names_is_not_deleted(shelf: Any, shared_live: Any) -> None:
    """Neither the checkpoint nor any adapter, by one door or many at once, until the job has ended; nor what is pinned."""
    lora, vae, other = (
        add(shelf, "dusk", owner="ann"),
        add(shelf, "grey", Kind.VAE, owner="ann"),
        add(shelf, "other", owner="ann"),
    )
    with shared_live.client(shelf.key("ann", ("user", "admin"))) as client:
        job = client.post("/v1/jobs", json=PROMPT | {"loras": [{"name": "dusk"}], "vae": "grey"}).json()
        for which in (lora, vae):
            refused = client.delete(f"/v1/adapters/{which}")
            assert (refused.status_code, refused.json()["code"]) == (409, "in_use")
        assert client.delete("/v1/models/shapes-sd15").json()["code"] == "in_use"
        assert client.patch(f"/v1/adapters/{lora}", json={"name": "dawn"}).json()["code"] == "in_use"
        together = client.post("/v1/adapters/bulk", json={"action": "delete", "ids": [other, lora]})
        assert (together.status_code, together.json()["code"]) == (409, "bulk_refused")
        assert [(each["field"], each["code"]) for each in together.json()["errors"]] == [("ids.1", "in_use")]
        assert names(client) == ["dusk", "grey", "other"]
        client.post(f"/v1/jobs/{job['id']}/cancel")
        pins.pin(shelf.connection, [UUID(lora)], "test", 60)
        assert client.delete(f"/v1/adapters/{lora}").json()["code"] == "in_use"
        pins.unpin(shelf.connection, "test")
        assert (
            client.post("/v1/adapters/bulk", json={"action": "delete", "filter": {"owner": "ann"}}).status_code == 200
        )
        assert names(client) == []


def test_many_are_marked_and_tagged_at_once(shelf: Any, shared_live: Any) -> None:
    """By ids or by what finds them; one unknown or foreign among them and nothing is done."""
    ids = [add(shelf, f"lora {number}", owner="ann") for number in range(3)]
    foreign = add(shelf, "fleet's")
    with shared_live.client(shelf.key("ann")) as client:

        def bulk(status: int = 200, **body: Any) -> Any:
            answer = client.post("/v1/adapters/bulk", json=body)
            assert answer.status_code == status, answer.text
            return answer.json()

        assert bulk(action="activate", ids=[ids[2], ids[0]])["ids"] == [ids[2], ids[0]]
        assert [client.get(f"/v1/adapters/{each}").json()["marks"]["position"] for each in (ids[2], ids[0])] == [1, 2]
        bulk(action="tag", filter={"q": "lora"}, tags=["night", "style"])
        bulk(action="tag", ids=ids[:1], tags=["style", "new"])
        assert client.get(f"/v1/adapters/{ids[0]}").json()["tags"] == ["night", "style", "new"]
        bulk(action="untag", ids=ids, tags=["night"])
        assert client.get("/v1/adapters/tags").json()["items"] == [
            {"tag": "style", "count": 3},
            {"tag": "new", "count": 1},
        ]
        bulk(action="favourite", ids=[*ids, foreign])
        bulk(action="deactivate", filter={"active": True})
        assert names(client, active=True) == []
        refused = bulk(409, action="tag", ids=[ids[0], foreign], tags=["x"])
        assert [(each["field"], each["code"]) for each in refused["errors"]] == [("ids.1", "forbidden")]
        refused = bulk(409, action="unfavourite", ids=[ids[0], str(uuid4())])
        assert refused["errors"][0]["code"] == "not_found"
        assert names(client, favourite=True) == [*(f"lora {number}" for number in range(3)), "fleet's"]
        refused = bulk(409, action="tag", ids=ids, tags=[f"tag {number}" for number in range(100)])
        assert refused["errors"][0]["code"] == "tags_full"
        assert client.get("/v1/adapters/tags").json()["items"][0] == {"tag": "style", "count": 3}
        for body in (
            {"action": "tag", "ids": ids},
            {"action": "activate"},
            {"action": "activate", "ids": ids, "filter": {}},
        ):
            bulk(422, **body)


def test_a_file_is_taken_in_where_it_lies(shelf: Any, shared_live: Any, tmp_path: Path) -> None:
    """Below the model folders, by an admin; its name is its file's unless another is given; a second of the name is refused."""
    folder = shelf.home / "models"
    folder.mkdir(exist_ok=True)
    layer = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"
    shapes = {f"{layer}.lora_down.weight": (4, 768), f"{layer}.lora_up.weight": (320, 4)}
    for path in (folder / "dusk.safetensors", tmp_path / "dawn.safetensors"):
        write_tensors(path, shapes)
    with shared_live.client(shelf.key("ann", ("user", "admin"))) as client:
        made = client.post(
            "/v1/adapters", json={"path": str(folder / "dusk.safetensors"), "version": "v1", "tags": ["t"]}
        )
        assert made.status_code == 201, made.text
        assert (made.json()["ref"], made.json()["owner"], made.json()["tags"]) == ("dusk@v1", "ann", ["t"])
        again = client.post("/v1/adapters", json={"path": str(folder / "dusk.safetensors"), "version": "v1"})
        assert (again.status_code, again.json()["code"]) == (409, "name_taken")
        for path in (tmp_path / "dawn.safetensors", folder / "none.safetensors", folder / ".." / ".." / "etc", folder):
            refused = client.post("/v1/adapters", json={"path": str(path)})
            assert (refused.status_code, refused.json()["code"]) == (422, "path_refused")
        (folder / "bad.safetensors").write_bytes(b"nothing")
        refused = client.post("/v1/adapters", json={"path": str(folder / "bad.safetensors")})
        assert (refused.status_code, refused.json()["code"]) == (422, "not_safetensors")
    with shared_live.client(shelf.key("bob")) as client:
        assert client.post("/v1/adapters", json={"path": str(folder / "dusk.safetensors")}).status_code == 403


def test_the_library_is_used_from_the_command_line(
    shelf: Any, shared_live: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Listed, found, shown, edited, tagged, activated and deleted, all or none, by the names that people know."""
    add(shelf, "dusk@v2", tags=("night",))
    add(shelf, "dawn")
    settings = {
        "IMAGEFLEET_HOME": str(tmp_path), "IMAGEFLEET_URL": shared_live.url, "IMAGEFLEET_API_KEY": shelf.key("ann", ("user", "admin")),
        "COLUMNS": "300",
    }  # fmt: skip
    for name, value in settings.items():
        monkeypatch.setenv(name, value)

    def ran(*arguments: str, status: int = 0) -> str:
        done = CliRunner().invoke(app, [*arguments])
        assert done.exit_code == status, (done.output, done.exception)
        # The server's log goes to the same place.
        return "".join(
            line for line in done.output.splitlines(keepends=True) if not re.match(r"\d{4}-\d\d-\d\d ", line)
        )

    assert [line.split()[0] for line in ran("adapters", "list").splitlines()] == ["name", "dawn", "dusk@v2"]
    assert [item["ref"] for item in json.loads(ran("adapters", "find", "nig", "--json"))["items"]] == ["dusk@v2"]
    ran("adapters", "edit", "dawn", "--weight", "0.6", "--alias", "morning", "--description", "first light")
    shown = ran("adapters", "show", "morning")
    assert "first light" in shown
    assert "0.6" in shown
    ran("adapters", "tag", "dawn", "dusk", "--add", "style", "--remove", "night")
    assert [each["tag"] for each in json.loads(ran("adapters", "tags", "--json"))] == ["style"]
    ran("adapters", "activate", "dusk", "dawn")
    active = json.loads(ran("adapters", "find", "--active", "--json"))["items"]
    assert {item["ref"]: item["marks"]["position"] for item in active} == {"dusk@v2": 1, "dawn": 2}
    ran("models", "favourite", "shapes-sd15")
    assert "favourite" in ran("models", "find", "--favourite")
    assert "sd15" in ran("models", "show", "shapes-sd15")
    ran("adapters", "delete", "dawn", "nothing", status=1)
    assert ran("adapters", "delete", "dawn", "dusk") == "delete: 2\n"
    assert "No adapters." in ran("adapters", "list")
