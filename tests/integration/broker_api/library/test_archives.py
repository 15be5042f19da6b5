"""Archives over HTTP: estimated, streamed out, taken in as body or form, refused with codes."""

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from models_registry.contents.shelving import Wanted, take_in
from models_registry.records import Facts

LAYER = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_k"


@pytest.fixture
def stored(world: Any, tmp_path: Path) -> Any:
    """Take a LoRA in that is everyone's and one of ann's own."""
    for number, (name, owner) in enumerate((("shared", None), ("own", "ann"))):
        path = tmp_path / f"{name}.safetensors"
        down, up = np.full((4, 16), number, np.float32), np.ones((8, 4), np.float32)
        save_file({f"{LAYER}.lora_down.weight": down, f"{LAYER}.lora_up.weight": up}, path)
        facts = Facts(owner=owner, visibility="private" if owner else "public")
        world.connection.execute("delete from models where name = %s", (name,))
        take_in(world.connection, path, Wanted(name), facts, storage=world.storage)
    return world


def test_archive_goes_out_and_comes_in(live: Any, stored: Any) -> None:
    """The estimate is right to some kilobytes; a dry run changes nothing; body and form are the same."""
    chosen = {"filter": {"own": True}, "files": "include"}
    with live.client(stored.key()) as client:
        client.post("/v1/recipes", json={"name": "r", "prompt": "x"})
        told = client.post("/v1/archives/estimate", json=chosen).json()
        answer = client.post("/v1/archives/export", json=chosen)
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"] == "application/zip"
        assert (told["entries"], told["recipes"], told["files"], told["without_files"]) == (1, 1, 1, [])
        assert abs(told["bytes"] - len(answer.content)) < 4096
        with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
            assert archive.testzip() is None
        stored.connection.execute("delete from models where name = 'own'")
        stored.connection.execute("delete from recipes")
        form = {"file": ("a.zip", answer.content, "application/zip")}
        dry = client.post("/v1/archives/import?dry_run=1", files=form)
        assert dry.status_code == 200, dry.text
        assert stored.count("recipes") == 0
        done = client.post("/v1/archives/import", content=answer.content, headers={"content-type": "application/zip"})
        assert done.status_code == 201, done.text
        for report in (dry.json(), done.json()):
            assert [(each["ref"], each["action"], each["files"]) for each in report["entries"]] == [
                ("own", "created", "included")
            ]
            assert [(each["name"], each["action"]) for each in report["recipes"]] == [("r", "created")]
        again = client.post("/v1/archives/import", files=form).json()
        assert again["entries"][0]["action"] == "skipped"
        refused = client.post("/v1/archives/export", json={"entries": [], "filter": {}})
    assert stored.count("model_pins") == 0
    assert refused.status_code == 422


@pytest.mark.parametrize(
    ("content", "kind", "status", "code"),
    [
        (b"no archive", "application/zip", 422, "archive_invalid"),
        (b"{}", "application/json", 415, "media_type_unsupported"),
        (b"x", "multipart/form-data; boundary=x", 422, "archive_invalid"),
    ],
)
def test_what_is_no_archive_is_refused(
    live: Any, stored: Any, content: bytes, kind: str, status: int, code: str
) -> None:
    """With the code of the reason."""
    with live.client(stored.key()) as client:
        answer = client.post("/v1/archives/import", content=content, headers={"content-type": kind})
    assert (answer.status_code, answer.json()["code"]) == (status, code)


def test_archive_may_be_larger_than_other_bodies(live: Any, stored: Any) -> None:
    """It goes to the disk as it comes, where other bodies of this size are refused."""
    content = bytes(live.services.settings.max_body_bytes + 1)
    with live.client(stored.key()) as client:
        answer = client.post("/v1/archives/import", content=content, headers={"content-type": "application/zip"})
        other = client.post("/v1/uploads", content=content, headers={"content-type": "image/png"})
    assert (answer.status_code, answer.json()["code"]) == (422, "archive_invalid")
    assert other.status_code == 413


def test_backup_is_made_verified_restored_and_deleted(live: Any, stored: Any) -> None:
    """By an admin alone; its archive can be downloaded, and lies in storage until it is deleted."""
    with live.client(stored.key("root", ("user", "admin"))) as admin, live.client(stored.key()) as client:
        assert client.get("/v1/archives/backups").status_code == 403
        answer = admin.post("/v1/archives/backups", json={"files": "include"})
        assert answer.status_code == 201, answer.text
        made, path = answer.json(), answer.headers["location"]
        assert admin.get("/v1/archives/backups").json()["items"][0] == made == admin.get(path).json()
        stored.connection.execute("update models set description = 'changed'")
        verified = admin.post(f"{path}/verify").json()
        assert (verified["damage"], verified["verified_at"] is not None) == (None, True)
        restored = admin.post(f"{path}/restore")
        assert restored.status_code == 200, restored.text
        assert restored.json()["entries"] == made["entries"]
        content = admin.get(f"{path}/content").content
        assert len(content) == made["bytes"]
        assert stored.connection.execute("select from models where description = 'changed'").fetchall() == []
        stored.storage.delete(f"backups/{made['id']}.zip")
        stored.storage.put(f"backups/{made['id']}.zip", content[:-1])
        refused = admin.post(f"{path}/restore")
        assert (refused.status_code, refused.json()["code"]) == (422, "archive_damaged")
        assert admin.delete(path).status_code == 204
        assert admin.delete(path).status_code == admin.post(f"{path}/restore").status_code == 404
        plan = admin.put("/v1/archives/schedule", json={"every_hours": 6, "keep": 3}).json()
        assert plan == admin.get("/v1/archives/schedule").json()
        assert (plan["every_hours"], plan["keep"], plan["next_at"] is not None) == (6, 3, True)
        assert admin.put("/v1/archives/schedule", json={"every_hours": 0}).status_code == 422
    assert [found.key for found in stored.storage.list("backups")] == []
