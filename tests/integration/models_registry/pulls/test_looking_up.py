"""Entries that are here get what CivitAI says of their files, where nobody wrote anything, at the cost of few questions."""

import io
import json
from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
import uuid_utils.compat as uuids
from PIL import Image
from psycopg.types.json import Jsonb

from infra.database import Pool
from infra.storage import Storage
from models_registry.entries import Component, Kind, Layout, ModelEntry
from models_registry.library import create_entry
from models_registry.pulls.looking_up import LookerUp
from models_registry.pulls.lookups import claim_lookup
from models_registry.records import Facts
from tests.integration.models_registry.pulls.conftest import Desk
from tests.lora_file import lora_bytes
from tests.model_sources import Sources, sha256

LORA = lora_bytes()
HASH = sha256(LORA)
#: Adds an entry of this name and hash, with what people say of it.
Add = Callable[..., UUID]


@pytest.fixture
def add(desk: Desk, tmp_path: Any) -> Add:
    """Return a function that adds an entry without a file."""

    def make(name: str, digest: str | None = HASH, **said: Any) -> UUID:
        entry = ModelEntry(
            name=name, kind=Kind.LORA, layout=Layout.SINGLE_FILE, family="sd15", variant="lora", path=tmp_path / name, fingerprint="0" * 64,
            components=(Component(name="weights", bytes=1, parameters=1, dtype="F16"),),
        )  # fmt: skip
        return create_entry(desk.connection, entry, Facts(owner="ann", sha256=digest, **said))

    return make


@pytest.fixture
def look_up(desk: Desk, pool: Pool, sources: Sources, storage: Storage) -> Callable[..., dict[str, Any]]:
    """Return a function that looks entries up until nothing is left to do, or once."""
    looker = LookerUp(pool, desk.puller.web, sources.url, storage)

    def run(*ids: UUID, rounds: int = 20) -> dict[str, Any]:
        identity = uuids.uuid7()
        desk.connection.execute(
            "insert into library_lookups (id, owner, entries, total) values (%s, 'ann', %s, %s)",
            (identity, Jsonb([str(each) for each in ids]), len(ids)),
        )
        for _ in range(rounds):
            held = claim_lookup(desk.connection)
            if held is None:
                break
            looker.look_up(held)
            if rounds > 1:
                desk.connection.execute("update library_lookups set available_at = now() where state = 'queued'")
        row: Any = desk.connection.execute("select * from library_lookups where id = %s", (identity,)).fetchone()
        return dict(row)

    return run


def test_lookup_writes_down_what_nobody_wrote(desk: Desk, sources: Sources, add: Add, look_up: Any) -> None:
    """What people wrote stays as it is; pictures are encoded anew."""
    sources.add_version(456, 123, "hats.safetensors", LORA)
    picture = io.BytesIO()
    Image.new("RGB", (2000, 1000), "red").save(picture, "JPEG")
    sources.files["/image.jpg"] = picture.getvalue()
    sources.versions[456]["images"] = [{"url": f"{sources.url}/image.jpg", "type": "image", "nsfwLevel": 1}]
    plain, told = add("plain"), add("told", description="Mine.", tags=["own"])
    done = look_up(plain, told)
    assert (done["state"], done["total"], done["done"], done["found"], done["changed"]) == ("succeeded", 2, 2, 2, 2)
    assert desk.entry(plain)["description"].startswith("Hats of every colour.")
    assert (desk.entry(plain)["tags"], desk.entry(plain)["trigger_words"]) == (
        ["hat", "clothing"],
        ["ada style", "red hat"],
    )
    assert (desk.entry(told)["description"], desk.entry(told)["tags"]) == ("Mine.", ["own"])
    assert (desk.entry(told)["base_model"], desk.entry(told)["source"]) == ("SD 1.5", "civitai:123@456")
    previews = desk.connection.execute("select * from model_previews").fetchall()
    assert [(row["width"], row["height"]) for row in previews] == [(1024, 512)] * 2
    assert json.loads(sources.bodies[0]) == [HASH.upper()]


def test_lookup_asks_once_for_what_is_known_and_for_what_is_not(
    desk: Desk, sources: Sources, add: Add, look_up: Any
) -> None:
    """An answer counts until it expires, and that there is none counts too."""
    sources.add_version(456, 123, "hats.safetensors", LORA)
    ids = [add("known"), add("unknown", "1" * 64)]
    assert look_up(*ids)["found"] == 1
    assert look_up(*ids)["changed"] == 0
    assert len(sources.bodies) == 1
    desk.connection.execute("update civitai_answers set expires_at = now() where facts is null")
    look_up(*ids)
    assert [json.loads(body) for body in sources.bodies][1:] == [["1" * 64]]


def test_lookup_asks_for_a_hundred_at_once(sources: Sources, add: Add, look_up: Any) -> None:
    """The whole library costs one question for a hundred entries."""
    done = look_up(*[add(f"lora{n}", f"{n:064x}") for n in range(230)])
    assert (done["state"], done["done"]) == ("succeeded", 230)
    assert [len(json.loads(body)) for body in sources.bodies] == [100, 100, 30]


def test_lookup_leaves_out_what_has_no_hash(sources: Sources, add: Add, look_up: Any) -> None:
    """Nothing is asked for it."""
    done = look_up(add("unread", None))
    assert (done["state"], done["done"], done["found"]) == ("succeeded", 1, 0)
    assert sources.bodies == []


def test_lookup_waits_when_it_is_asked_to_and_goes_on_where_it_was(
    desk: Desk, sources: Sources, add: Add, look_up: Any
) -> None:
    """As long as the site says, without asking again for what was answered."""
    sources.add_version(456, 123, "hats.safetensors", LORA)
    ids = [add("first"), *[add(f"other{n}", f"{n:064x}") for n in range(100)]]
    sources.refusals.extend([(429, {"retry-after": "1000"})])
    waiting = look_up(*ids, rounds=1)
    assert (waiting["state"], waiting["error_code"], waiting["done"]) == ("queued", "source_away", 0)
    assert (waiting["available_at"] - waiting["created_at"]).total_seconds() > 900
    desk.connection.execute("update library_lookups set available_at = now()")
    done = look_up(rounds=5)
    rows = desk.connection.execute("select state, done, found from library_lookups where total = 101").fetchall()
    assert [(row["state"], row["done"], row["found"]) for row in rows] == [("succeeded", 101, 1)]
    assert done["state"] == "succeeded"


def test_lookup_gives_up_on_a_site_that_stays_away(sources: Sources, add: Add, look_up: Any) -> None:
    """And says why."""
    sources.refusals.extend([(500, {})] * 30)
    done = look_up(add("hats"))
    assert (done["state"], done["error_code"]) == ("failed", "source_away")


def test_lookup_goes_on_when_a_model_was_taken_down(desk: Desk, sources: Sources, add: Add, look_up: Any) -> None:
    """The version is known still."""
    sources.add_version(456, 123, "hats.safetensors", LORA)
    del sources.models[123]
    entry = add("hats")
    assert look_up(entry)["changed"] == 1
    assert (desk.entry(entry)["trigger_words"], desk.entry(entry)["tags"]) == (["ada style", "red hat"], [])
