"""Files taken in become entries, whole or not at all."""

import asyncio
import hashlib
import zlib
from pathlib import Path

import numpy as np
import psycopg
import pytest
from safetensors.numpy import save_file

from infra.database import CONNECT, Connection
from infra.storage import Storage, open_storage
from models_registry.catalogue import find, read_catalogue
from models_registry.content import content_key
from models_registry.contents.shelving import Wanted, take_in, take_in_async
from models_registry.entries import Kind, ModelRef
from models_registry.reading.bounded_files import Reads
from models_registry.records import Facts
from models_registry.refusals import ModelRefused
from models_registry.scanning.scan import scan
from tests.integration.models_registry.test_catalogue import Copy

LAYER = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_k"
METADATA = {
    "ss_tag_frequency": '{"10_style": {"blue": 7, "round": 3}}',
    "ss_network_alpha": "2.0",
    "modelspec.title": "Frame",
    "modelspec.trigger_phrase": "frame style, framed",
    "modelspec.license": "CC0",
    "ss_base_model_version": "sd_v1",
}


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    """Return an empty storage on disk."""
    return open_storage((tmp_path / "storage").as_uri())


def lora(path: Path, value: float = 1.0, metadata: dict[str, str] | None = None) -> Path:
    """Write a LoRA of rank 4 that reads text features of width 16."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {
        f"{LAYER}.lora_down.weight": np.full((4, 16), value, np.float32),
        f"{LAYER}.lora_up.weight": np.ones((8, 4), np.float32),
    }
    save_file(tensors, path, METADATA if metadata is None else metadata)
    return path


def stored(storage: Storage) -> set[str]:
    """Return the keys in storage."""
    return {found.key for found in storage.list()}


def test_take_in_stores_the_bytes_and_writes_the_row(conn: Connection, storage: Storage, tmp_path: Path) -> None:
    """What the header says fills what nobody said; the file is found by every hash that sites know."""
    path = lora(tmp_path / "upload")
    data = path.read_bytes()
    shelved = take_in(conn, path, Wanted("frame", "2"), Facts(owner="ann", licence="MIT"), storage=storage)
    path.unlink()
    assert storage.get(content_key(shelved.sha256)) == data
    assert hashlib.sha256(data).hexdigest() == shelved.sha256
    row = conn.execute("select * from models").fetchone()
    assert row is not None
    assert (row["id"], row["model_name"], row["version"], row["owner"]) == (shelved.id, "frame", "2", "ann")
    assert (row["licence"], row["base_model"], row["trigger_words"]) == ("MIT", "sd_v1", ["frame style", "framed"])
    assert row["metadata"]["training_tags"] == [{"tag": "blue", "count": 7}, {"tag": "round", "count": 3}]
    assert (row["metadata"]["alpha"], row["metadata"]["target_modules"]) == (2, ["to_k"])
    body = data[8 + int.from_bytes(data[:8], "little") :]
    assert row["hashes"] == {
        "autov2": shelved.sha256[:10],
        "autov3": hashlib.sha256(body).hexdigest()[:12],
        "crc32": f"{zlib.crc32(data):08x}",
    }
    assert [(file["path"], file["bytes"], file["sha256"]) for file in row["files"]] == [
        ("model.safetensors", len(data), shelved.sha256)
    ]
    assert row["stored_at"] is not None
    assert find(conn, ModelRef(Kind.LORA, "frame@2")) == shelved.entry


def test_take_in_reads_no_body_twice(conn: Connection, storage: Storage, tmp_path: Path) -> None:
    """Small weights are read once; of large ones, only the samples of the fingerprint besides."""
    small = lora(tmp_path / "small")
    reads = Reads()
    take_in(conn, small, Wanted("small"), storage=storage, reads=reads)
    header = 8 + int.from_bytes(small.read_bytes()[:8], "little")
    assert reads.bytes <= small.stat().st_size + header + 1
    large = tmp_path / "large"
    middle = LAYER.replace("attn2_to_k", "ff_net_2")
    tensors = {
        f"{middle}.lora_down.weight": np.ones((4, 500_000), np.float32),
        f"{middle}.lora_up.weight": np.ones((500_000, 4), np.float32),
    }
    save_file(tensors, large)
    reads = Reads()
    take_in(conn, large, Wanted("large"), storage=storage, reads=reads)
    assert reads.bytes <= large.stat().st_size + 256 * 1024


def test_take_in_refuses_a_second_entry_of_that_name(conn: Connection, storage: Storage, tmp_path: Path) -> None:
    """The first stays as it was; what was stored for the second is left to the keeper."""
    take_in(conn, lora(tmp_path / "a"), Wanted("frame", "1"), storage=storage)
    second = lora(tmp_path / "b", 2.0)
    with pytest.raises(ModelRefused) as caught:
        take_in(conn, second, Wanted("FRAME", "1"), storage=storage)
    assert len(conn.execute("select key from garbage").fetchall()) == 1
    assert caught.value.code == "name_taken"
    assert str(tmp_path) not in caught.value.reason
    take_in(conn, second, Wanted("FRAME", "2"), storage=storage)
    assert conn.execute("select key from garbage").fetchall() == []
    assert len(read_catalogue(conn).entries) == len(stored(storage)) == 2


@pytest.mark.parametrize(
    ("wanted", "code"),
    [
        (Wanted(""), "name_invalid"),
        (Wanted("../frame"), "name_invalid"),
        (Wanted("a<lora:b:1>"), "name_invalid"),
        (Wanted("frame", "1@2"), "name_invalid"),
        (Wanted("x" * 201), "name_invalid"),
        (Wanted("frame", kind=Kind.VAE), "kind_mismatch"),
        (Wanted("frame", sha256="0" * 64), "hash_mismatch"),
    ],
)
def test_take_in_refuses_what_was_not_announced(
    conn: Connection, storage: Storage, tmp_path: Path, wanted: Wanted, code: str
) -> None:
    """Nothing is stored of what is refused."""
    with pytest.raises(ModelRefused) as caught:
        take_in(conn, lora(tmp_path / "frame"), wanted, storage=storage)
    assert caught.value.code == code
    assert (conn.execute("select from models").fetchall(), stored(storage)) == ([], set())


def test_take_in_refuses_a_nan(conn: Connection, storage: Storage, tmp_path: Path) -> None:
    """One value that is no number, anywhere in the file, is enough."""
    path = lora(tmp_path / "frame", float("nan"))
    with pytest.raises(ModelRefused) as caught:
        take_in(conn, path, Wanted("frame"), storage=storage)
    assert caught.value.code == "not_a_number"
    assert stored(storage) == set()


def test_take_in_keeps_a_whole_folder(conn: Connection, storage: Storage, sd15: Copy) -> None:
    """Every file that drawing needs lies under its own hash, and the list of them has one."""
    folder = sd15()
    shelved = take_in(conn, folder, Wanted("tiny"), storage=storage)
    row = conn.execute("select files, sha256 from models").fetchone()
    assert row is not None
    for file in row["files"]:
        assert storage.get(content_key(file["sha256"])) == (folder / file["path"]).read_bytes()
    assert {"model_index.json", "unet/diffusion_pytorch_model.safetensors"} <= {file["path"] for file in row["files"]}
    assert row["sha256"] == shelved.sha256


def test_take_in_works_from_an_event_loop(
    conn: Connection, database_url: str, storage: Storage, tmp_path: Path
) -> None:
    """The row is the same; a second of its name is refused in the same way."""
    path = lora(tmp_path / "frame")

    async def take() -> str:
        async with await psycopg.AsyncConnection.connect(database_url, **CONNECT) as connection:
            shelved = await take_in_async(connection, path, Wanted("frame"), storage=storage)
            with pytest.raises(ModelRefused):
                await take_in_async(connection, path, Wanted("frame"), storage=storage)
            return shelved.sha256

    sha256 = asyncio.run(take())
    assert conn.execute("select sha256, stored_at is not null as stored from models").fetchall() == [
        {"sha256": sha256, "stored": True}
    ]


def test_scan_leaves_entries_in_storage_alone(conn: Connection, storage: Storage, tmp_path: Path) -> None:
    """A file in a folder does not take the name of an entry that somebody uploaded."""
    shelved = take_in(conn, lora(tmp_path / "upload"), Wanted("frame"), Facts(owner="ann"), storage=storage)
    lora(tmp_path / "models/frame.safetensors", 2.0)
    report = scan(conn, [tmp_path / "models"])
    assert [refusal.code for refusal in report.refused] == ["name_taken"]
    assert find(conn, ModelRef(Kind.LORA, "frame")) == shelved.entry


def test_take_in_may_leave_a_file_where_it_lies(conn: Connection, tmp_path: Path) -> None:
    """Without a storage the entry's path is the file's."""
    path = lora(tmp_path / "models/frame.safetensors")
    shelved = take_in(conn, path, Wanted("other name"), storage=None)
    assert shelved.entry.path == path
    assert conn.execute("select stored_at from models").fetchall() == [{"stored_at": None}]
