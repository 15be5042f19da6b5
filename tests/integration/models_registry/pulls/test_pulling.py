"""Downloads from the hub, from CivitAI and from plain addresses become entries; what cannot become one says why."""

import io
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from huggingface_hub import HfApi, hf_hub_download
from PIL import Image

from infra.storage import Storage
from models_registry.content import content_key
from models_registry.pulls import queue
from models_registry.pulls.queue import Lost
from tests.integration.models_registry.pulls.conftest import Desk
from tests.lora_file import lora_bytes
from tests.model_sources import Sources, sha256

LORA = lora_bytes()
#: A keeper that does nothing but fetch.
KEEPER = """
import sys, threading
from infra.settings import Settings
from infra.storage import open_storage
from keeper.pulling import pulling
settings = Settings()
with pulling(settings, sys.argv[1], open_storage(settings.storage), threading.Event()):
    threading.Event().wait()
"""


def test_hub_file_becomes_an_entry(desk: Desk, sources: Sources, storage: Storage) -> None:
    """With what the repository's card says; its bytes lie in storage and nothing is left on the way."""
    sources.repos["ada/hats"] = {"README.md": b"# Hats", "hats.safetensors": LORA}
    sources.cards["ada/hats"] = {"license": "mit", "base_model": "sd/v1-5", "instance_prompt": "ada style"}
    done = desk.pull("ada/hats")
    assert (done["state"], done["bytes_done"], done["bytes_total"]) == ("succeeded", len(LORA), len(LORA))
    entry = desk.entry(done["model"])
    assert (entry["name"], entry["kind"], entry["owner"], entry["sha256"]) == ("hats", "lora", "ann", sha256(LORA))
    assert (entry["licence"], entry["base_model"], entry["trigger_words"], entry["tags"]) == (
        "mit",
        "sd/v1-5",
        ["ada style"],
        ["lora"],
    )
    assert entry["source"] == "hf:ada/hats"
    assert storage.get(content_key(sha256(LORA))) == LORA
    assert list(desk.puller.folder.iterdir()) == []


def test_sites_of_these_tests_speak_as_the_hub_does(sources: Sources, tmp_path: Path) -> None:
    """The hub's own client is content with them, so that what passes here would pass there."""
    sources.repos["ada/hats"] = {"README.md": b"# Hats", "hats.safetensors": LORA}
    listed = HfApi(endpoint=sources.url).model_info("ada/hats", revision="main", files_metadata=True)
    assert {each.rfilename: each.size for each in listed.siblings or ()} == {
        "README.md": 6,
        "hats.safetensors": len(LORA),
    }
    place = hf_hub_download("ada/hats", "hats.safetensors", endpoint=sources.url, cache_dir=tmp_path)
    assert Path(place).read_bytes() == LORA


def test_token_goes_to_its_own_site_alone(desk: Desk, sources: Sources) -> None:
    """The hub redirects to another host, which must not learn it."""
    sources.token = "secret-token"
    sources.repos["ada/hats"] = {"hats.safetensors": LORA}
    assert desk.pull("ada/hats:hats.safetensors@main")["state"] == "succeeded"
    assert all(headers["authorization"] == "Bearer secret-token" for headers in sources.of("/ada/hats"))
    assert all("authorization" not in headers for headers in sources.of("/cdn/"))
    assert sources.of("/cdn/")


def test_diffusers_repository_becomes_a_checkpoint(desk: Desk, sources: Sources, saved_sd15: Path) -> None:
    """Of a repository with everything twice only what draws is fetched; half precision where there is no other."""
    files = {str(path.relative_to(saved_sd15)): path.read_bytes() for path in saved_sd15.rglob("*") if path.is_file()}
    files["vae/diffusion_pytorch_model.fp16.safetensors"] = files.pop("vae/diffusion_pytorch_model.safetensors")
    files |= {
        "unet/diffusion_pytorch_model.fp16.safetensors": b"x" * 2000, "unet/diffusion_pytorch_model.bin": b"x" * 2000,
        "tiny-pruned.safetensors": b"x" * 2000, "safety_checker/model.safetensors": b"x" * 2000, "README.md": b"tiny",
    }  # fmt: skip
    sources.repos["ada/tiny"] = files
    done = desk.pull("ada/tiny", name="small", version="2")
    assert done["state"] == "succeeded", done["error_message"]
    entry = desk.entry(done["model"])
    assert (entry["name"], entry["kind"], entry["layout"]) == ("small@2", "checkpoint", "diffusers")
    fetched = {file["name"] for file in done["plan"]["files"]}
    assert "vae/diffusion_pytorch_model.safetensors" in fetched
    assert not any("safety" in name or "pruned" in name or name.endswith(".bin") for name in fetched)


def test_civitai_version_becomes_an_entry_with_what_is_said_of_it(desk: Desk, sources: Sources) -> None:
    """The newest version of a model; its description is text, its pictures are encoded anew."""
    sources.add_version(456, 123, "adaHats.safetensors", LORA)
    picture = io.BytesIO()
    Image.new("RGB", (60, 40), "red").save(picture, "PNG")
    sources.files["/image.png"] = picture.getvalue()
    images = [
        {"url": f"{sources.url}/image.png", "type": "image", "nsfwLevel": 1},
        {"url": f"{sources.url}/no", "nsfwLevel": 8},
    ]
    sources.versions[456]["images"] = images
    done = desk.pull("civitai:123", tags=["mine"])
    assert done["state"] == "succeeded", done["error_message"]
    entry = desk.entry(done["model"])
    assert (entry["name"], entry["base_model"], entry["source"]) == ("adaHats", "SD 1.5", "civitai:123@456")
    assert entry["description"] == "Hats of every colour.\n\nSecond try."
    assert (entry["trigger_words"], entry["tags"]) == (["ada style", "red hat"], ["mine"])
    assert "credit needed" in entry["licence"]
    preview = desk.connection.execute("select * from model_previews where model = %s", (done["model"],)).fetchall()
    assert [(row["width"], row["height"], row["mime"]) for row in preview] == [(60, 40, "image/webp")]
    assert desk.puller.storage.get(preview[0]["key"]) != picture.getvalue()
    assert sources.of("/no") == []


@pytest.mark.parametrize(
    "source",
    ["civitai:123@456", "urn:air:sd1:lora:civitai:123@456", "https://civitai.com/models/123?modelVersionId=456"],
)
def test_civitai_is_understood_in_every_spelling(desk: Desk, sources: Sources, source: str) -> None:
    """An id, an AIR, the address of the page."""
    sources.add_version(456, 123, "hats.safetensors", LORA)
    assert desk.pull(source)["state"] == "succeeded"


def test_plain_address_becomes_an_entry(desk: Desk, sources: Sources) -> None:
    """Named after the file; what stands behind the question mark is nobody's business."""
    sources.files["/loras/red hat.safetensors"] = LORA
    done = desk.pull(
        f"{sources.url}/loras/red%20hat.safetensors?key=secret", visibility="private", sha256=sha256(LORA).upper()
    )
    assert done["state"] == "succeeded", done["error_message"]
    entry = desk.entry(done["model"])
    assert (entry["name"], entry["visibility"]) == ("red hat", "private")
    assert "secret" not in entry["source"]


@pytest.mark.parametrize("after", [0, 1, 300, len(LORA) - 2])
def test_download_broken_off_goes_on_where_it_was(desk: Desk, sources: Sources, after: int) -> None:
    """Put off after each break, and whole in the end, without a byte fetched twice."""
    sources.repos["ada/hats"] = {"hats.safetensors": LORA}
    sources.cuts.extend([after, 0])
    done = desk.pull("ada/hats")
    assert done["state"] == "succeeded"
    assert [headers.get("range") for headers in sources.of("/cdn/")] == [
        None,
        *([f"bytes={after}-" if after else None] * 2),
    ]
    assert len([path for _, path, _ in sources.asked if path.startswith("/api/models")]) == 1


def test_download_of_a_dead_keeper_goes_on_in_another(desk: Desk, sources: Sources) -> None:
    """Its lease runs out; the part on the disk is gone on with, and the old one can write nothing any more."""
    sources.repos["ada/hats"] = {"hats.safetensors": LORA}
    identity = desk.order("ada/hats")
    dead = queue.claim(desk.connection)
    assert dead is not None
    plan = desk.puller._plan(dead)  # noqa: SLF001 - dies in the middle
    place = desk.puller.folder / str(identity) / "files" / "hats.safetensors.part"
    place.parent.mkdir(parents=True)
    place.write_bytes(LORA[:100])
    assert not desk.step()
    desk.connection.execute("update downloads set lease_until = now() - interval '1 second'")
    assert desk.step()
    assert desk.row(identity)["state"] == "succeeded"
    assert sources.of("/cdn/")[0]["range"] == "bytes=100-"
    with pytest.raises(Lost):
        queue.write_plan(desk.connection, dead, plan)


def test_download_survives_the_kill_of_its_keeper(
    desk: Desk, sources: Sources, database_url: str, tmp_path: Path
) -> None:
    """A real process is killed in the middle; another goes on from the byte that is on the disk."""
    sources.repos["ada/hats"] = {"hats.safetensors": LORA}
    sources.stalls.append(300)
    identity = desk.order("ada/hats")
    settings = {
        "IMAGEFLEET_HOME": str(tmp_path), "IMAGEFLEET_FETCH_ALLOW": "127.0.0.1,localhost", "IMAGEFLEET_HUB_ENDPOINT": sources.url,
        "IMAGEFLEET_DISK_HEADROOM_BYTES": "0",
    }  # fmt: skip
    part = tmp_path / "downloads" / str(identity) / "files" / "hats.safetensors.part"
    with subprocess.Popen([sys.executable, "-c", KEEPER, database_url], env={**os.environ, **settings}) as keeper:
        try:
            while not (part.exists() and part.stat().st_size == 300):
                assert keeper.poll() is None
                time.sleep(0.01)
        finally:
            keeper.kill()
    assert not desk.step()
    desk.connection.execute("update downloads set lease_until = now() - interval '1 second'")
    assert desk.step()
    assert desk.row(identity)["state"] == "succeeded"
    assert [headers.get("range") for headers in sources.of("/cdn/")] == [None, "bytes=300-"]


def test_download_is_its_own_entry_when_its_keeper_died_at_the_end(desk: Desk, sources: Sources) -> None:
    """Taken in and not written down: the second time it is found to be there."""
    sources.repos["ada/hats"] = {"hats.safetensors": LORA}
    first = desk.pull("ada/hats")
    desk.connection.execute("update downloads set state = 'queued', finished_at = null, model = null")
    again = first["id"]
    assert desk.step()
    assert desk.row(again)["model"] == first["model"]
    assert len(sources.of("/cdn/")) == 1


def test_paused_download_stops_and_goes_on(desk: Desk, sources: Sources, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever fetches hears of it by the next renewal and leaves the part where it is."""
    sources.files["/hats.safetensors"] = LORA
    identity = desk.order(f"{sources.url}/hats.safetensors")
    monkeypatch.setattr("models_registry.pulls.pulling.BEAT_SECONDS", 0.01)
    held = queue.claim(desk.connection)
    assert held is not None
    desk.connection.execute("update downloads set state = 'paused', epoch = epoch + 1, lease_until = null")
    desk.puller.pull(held)
    row = desk.row(identity)
    assert (row["state"], row["model"]) == ("paused", None)
    desk.connection.execute("update downloads set state = 'queued', epoch = epoch + 1")
    assert desk.step()
    assert desk.row(identity)["state"] == "succeeded"


def test_stopping_keeper_leaves_its_downloads_to_the_next_one(desk: Desk, sources: Sources) -> None:
    """At once, and without counting it as a failure of the source for long."""
    sources.files["/hats.safetensors"] = LORA
    stopping = threading.Event()
    stopping.set()
    object.__setattr__(desk.puller, "stopping", stopping)
    identity = desk.order(f"{sources.url}/hats.safetensors")
    assert desk.step()
    assert desk.row(identity)["state"] == "queued"
    stopping.clear()
    assert desk.step()
    assert desk.row(identity)["state"] == "succeeded"


@pytest.mark.parametrize(
    ("source", "code"),
    [
        ("nobody/nothing", "source_forbidden"),
        ("ada/hats:none.safetensors", "source_missing"),
        ("ada/hats:hats.ckpt", "pickle_refused"),
        ("ada/pickles", "pickle_refused"),
        ("ada/many", "source_missing"),
        ("civitai:99", "source_missing"),
        ("{url}/none", "source_missing"),
        ("{url}/bad.safetensors", "pickle_refused"),
        ("{url}/page", "source_forbidden"),
        ("{url}/inside", "address_refused"),
        ("{url}/loop", "answer_invalid"),
        ("http://10.1.2.3/x.safetensors", "address_refused"),
        ("https://127.0.0.2/x.safetensors", "address_refused"),
    ],
)
def test_download_that_cannot_be_says_why(desk: Desk, sources: Sources, source: str, code: str) -> None:
    """For good, with a code, and with nothing left."""
    sources.repos["ada/hats"] = {"hats.safetensors": LORA, "hats.ckpt": b"x" * 2000}
    sources.repos["ada/pickles"] = {"model.bin": b"x" * 2000}
    sources.repos["ada/many"] = {"a.safetensors": LORA, "b.safetensors": LORA}
    sources.files["/bad.safetensors"] = b"\x80\x04 no safetensors" * 100
    sources.redirects |= {
        "/inside": "https://169.254.169.254/latest/meta-data",
        "/loop": "/loop",
        "/page": "/page.html",
    }
    sources.files["/page.html"] = b"<html>"
    sources.html.add("/page.html")
    done = desk.pull(source.format(url=sources.url))
    assert (done["state"], done["error_code"]) == ("failed", code), done["error_message"]
    assert done["error_message"]
    assert desk.connection.execute("select * from models").fetchall() == []
    assert list(desk.puller.storage.list()) == []


def test_download_gives_up_on_a_source_that_stays_away(desk: Desk, sources: Sources) -> None:
    """After so many tries without a new byte; the row says what the source said."""
    sources.files["/hats.safetensors"] = LORA
    sources.refusals.extend([(503, {})] * 50)
    done = desk.pull(f"{sources.url}/hats.safetensors")
    assert (done["state"], done["error_code"]) == ("failed", "source_away")
    assert len(sources.asked) == queue.MOST_DELAYS


def test_download_waits_as_long_as_it_is_asked_to(desk: Desk, sources: Sources) -> None:
    """And says so in the meantime."""
    sources.files["/hats.safetensors"] = LORA
    sources.refusals.append((429, {"retry-after": "1000"}))
    identity = desk.order(f"{sources.url}/hats.safetensors")
    assert desk.step()
    row = desk.row(identity)
    assert (row["state"], row["error_code"]) == ("queued", "source_away")
    assert 990 < (row["available_at"] - row["created_at"]).total_seconds() < 1100
    assert queue.claim(desk.connection) is None


def test_download_does_not_take_a_name_that_is_another_models(desk: Desk, sources: Sources) -> None:
    """The entry that has it stays as it is."""
    sources.repos["ada/hats"] = {"hats.safetensors": LORA}
    sources.repos["bob/hats"] = {"hats.safetensors": lora_bytes(2.0)}
    first = desk.pull("ada/hats")
    second = desk.pull("bob/hats", owner="bob")
    assert (second["state"], second["error_code"]) == ("failed", "name_taken")
    assert desk.entry(first["model"])["sha256"] == sha256(LORA)


def test_forget_removes_what_lies_of_ended_downloads(desk: Desk, sources: Sources) -> None:
    """What waits or runs keeps its bytes."""
    kept, gone = desk.order("ada/hats"), desk.order("ada/hats")
    desk.connection.execute("update downloads set state = 'cancelled', finished_at = now() where id = %s", (gone,))
    for name in (str(kept), str(gone), "stray"):
        (desk.puller.folder / name).mkdir(parents=True)
    desk.puller.forget(desk.connection, 30)
    assert [place.name for place in desk.puller.folder.iterdir()] == [str(kept)]
    desk.puller.forget(desk.connection, 0)
    assert [row["id"] for row in desk.connection.execute("select id from downloads").fetchall()] == [kept]
    shutil.rmtree(desk.puller.folder)
    desk.puller.forget(desk.connection, 30)
    assert sources.asked == []
