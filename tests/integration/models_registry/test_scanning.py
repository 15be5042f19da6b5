"""Scans open only what is new or has changed, and follow what was moved."""

import os
from pathlib import Path
from typing import Any

import pytest

from infra.database import Connection
from models_registry.contents.storing import hash_next
from models_registry.entries import Kind, ModelRef
from models_registry.library import delete_entry, update_entry
from models_registry.reading import fingerprint
from models_registry.reading.bounded_files import Reads
from models_registry.scanning.scan import Progress, scan
from tests.integration.models_registry.test_catalogue import Copy, replace_weights
from tests.integration.models_registry.test_shelving import lora
from tests.tensor_files import write_tensors

LAYER = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_k"


def rows(conn: Connection) -> list[dict[str, Any]]:
    """Return all entries by name."""
    return conn.execute("select * from models order by name").fetchall()


def test_scan_of_thousands_reads_no_body_twice(conn: Connection, tmp_path: Path) -> None:
    """2 000 files: each is opened for its header and once for its body; the next scan opens only the one that changed."""
    shapes = {f"{LAYER}.lora_down.weight": (4, 16), f"{LAYER}.lora_up.weight": (8, 4)}
    paths = [tmp_path / f"{number % 40}/lora {number}.safetensors" for number in range(2000)]
    for number, path in enumerate(paths):
        write_tensors(path, shapes, metadata={"ss_output_name": f"lora {number}"})
    large = tmp_path / "large.safetensors"
    middle = LAYER.replace("attn2_to_k", "ff_net_2")
    write_tensors(large, {f"{middle}.lora_down.weight": (4, 900_000), f"{middle}.lora_up.weight": (900_000, 4)})
    reads, told = Reads(), list[Progress]()
    report = scan(conn, [tmp_path], reads, progress=told.append)
    assert (len(report.added), report.refused) == (2001, ())
    assert (told[-1].seen, told[-1].opened) == (2001, 2001)
    # The header's length, the header, and the file as a whole; of the large one, samples.
    assert reads.files == 2 * 2001
    headers = sum(8 + int.from_bytes(path.read_bytes()[:8], "little") + 1 for path in (*paths, large))
    assert reads.bytes <= sum(path.stat().st_size for path in paths) + headers + 200 * 1024
    lora(paths[7], 3.0)
    reads = Reads()
    report = scan(conn, [tmp_path], reads, progress=told.append)
    assert (len(report.found), [ref.name for ref in report.changed]) == (2001, ["lora 7"])
    assert (told[-1].seen, told[-1].opened, reads.files) == (2001, 1, 2)
    hashed = conn.execute("select count(*) as n from models where sha256 is not null").fetchone()
    assert hashed == {"n": 2000}


def test_scan_keeps_names_that_people_gave(conn: Connection, tmp_path: Path) -> None:
    """Its file may change, and may be moved: the entry keeps its name, its id and what people wrote."""
    path = lora(tmp_path / "a/v1.safetensors")
    scan(conn, [tmp_path])
    (before,) = rows(conn)
    update_entry(conn, before["id"], {"description": "Mine."}, ref="Frames")
    lora(path, 2.0)
    assert scan(conn, [tmp_path]).changed == (ModelRef(Kind.LORA, "Frames"),)
    (tmp_path / "b").mkdir()
    path.rename(tmp_path / "b/other.safetensors")
    report = scan(conn, [tmp_path])
    assert (report.changed, report.added, report.missing) == ((ModelRef(Kind.LORA, "Frames"),), (), ())
    (after,) = rows(conn)
    assert (after["id"], after["name"], after["description"]) == (before["id"], "Frames", "Mine.")
    assert (after["path"], after["files"][0]["path"]) == (str(tmp_path / "b/other.safetensors"), "other.safetensors")


def test_scan_follows_a_renamed_file(conn: Connection, tmp_path: Path) -> None:
    """An entry called as its file follows the file's new name, and answers to the old one."""
    path = lora(tmp_path / "old.safetensors")
    scan(conn, [tmp_path])
    (before,) = rows(conn)
    path.rename(tmp_path / "new.safetensors")
    scan(conn, [tmp_path])
    (after,) = rows(conn)
    assert (after["id"], after["name"], after["sha256"]) == (before["id"], "new", before["sha256"])
    assert conn.execute("select alias, model from model_aliases").fetchall() == [{"alias": "old", "model": after["id"]}]


def test_scan_follows_content_before_names(conn: Connection, tmp_path: Path) -> None:
    """Two files that change places by a third name are still the same two entries."""
    first, second = lora(tmp_path / "a/first.safetensors"), lora(tmp_path / "a/second.safetensors", 2.0)
    scan(conn, [tmp_path])
    ids = {row["name"]: row["id"] for row in rows(conn)}
    (tmp_path / "b").mkdir()
    first.rename(tmp_path / "b/second.safetensors")
    second.rename(tmp_path / "b/first.safetensors")
    report = scan(conn, [tmp_path])
    assert (report.added, report.missing, report.refused) == ((), (), ())
    paths = {row["id"]: row["path"] for row in rows(conn)}
    assert paths == {
        ids["first"]: str(tmp_path / "b/second.safetensors"),
        ids["second"]: str(tmp_path / "b/first.safetensors"),
    }


def test_scan_gives_a_copy_no_entry_of_the_original(conn: Connection, tmp_path: Path) -> None:
    """While the original is there, a copy of another name is an entry of its own with the same hash."""
    path = lora(tmp_path / "one.safetensors")
    scan(conn, [tmp_path])
    (tmp_path / "two.safetensors").write_bytes(path.read_bytes())
    assert scan(conn, [tmp_path]).added == (ModelRef(Kind.LORA, "two"),)
    one, two = rows(conn)
    assert one["sha256"] == two["sha256"]
    assert one["id"] != two["id"]


def test_scan_leaves_out_what_people_took_out(conn: Connection, tmp_path: Path) -> None:
    """A deleted entry does not come back because its file is there, but when the file changes, or all is asked for."""
    path = lora(tmp_path / "frame.safetensors")
    scan(conn, [tmp_path])
    delete_entry(conn, rows(conn)[0]["id"])
    for _ in range(2):
        report = scan(conn, [tmp_path])
        assert (report.found, [refusal.code for refusal in report.refused]) == ((), ["taken_out"])
    assert scan(conn, [tmp_path], again=True).added == (ModelRef(Kind.LORA, "frame"),)
    delete_entry(conn, rows(conn)[0]["id"])
    lora(path, 2.0)
    assert scan(conn, [tmp_path]).added == (ModelRef(Kind.LORA, "frame"),)


def test_scan_remembers_what_it_refused(conn: Connection, tmp_path: Path) -> None:
    """A file that is no model is opened once, and named by every scan until it changes."""
    bad = tmp_path / "bad.safetensors"
    bad.write_bytes(b"nothing of the kind")
    first = scan(conn, [tmp_path])
    reads = Reads()
    assert scan(conn, [tmp_path], reads).refused == first.refused
    assert (first.refused[0].code, reads) == ("not_safetensors", Reads())
    lora(bad)
    assert scan(conn, [tmp_path]).added == (ModelRef(Kind.LORA, "bad"),)
    bad.unlink()
    scan(conn, [tmp_path])
    assert conn.execute("select from model_places").fetchall() == []


def test_scan_refuses_links_out_of_its_folders(conn: Connection, sd15: Copy, tmp_path: Path) -> None:
    """A link to a file, to a folder, and inside a model; one that stays inside is followed."""
    outside = lora(tmp_path / "outside/secret.safetensors")
    folder = sd15("linked")
    weights = folder / "unet/diffusion_pytorch_model.safetensors"
    weights.rename(tmp_path / "outside/unet.safetensors")
    weights.symlink_to(tmp_path / "outside/unet.safetensors")
    (folder.parent / "file.safetensors").symlink_to(outside)
    (folder.parent / "elsewhere").symlink_to(outside.parent)
    inside = lora(folder.parent / "a/one.safetensors")
    (folder.parent / "two.safetensors").symlink_to(inside)
    report = scan(conn, [folder.parent])
    assert {ref.name for ref in report.found} == {"one", "two"}
    assert {refusal.code for refusal in report.refused} == {"link_outside"}
    assert {str(refusal.path.relative_to(folder.parent)) for refusal in report.refused} == {
        "linked/unet/diffusion_pytorch_model.safetensors", "file.safetensors", "elsewhere/secret.safetensors",
        "elsewhere/unet.safetensors",
    }  # fmt: skip


def test_scan_sees_what_appears_beside_a_model(conn: Connection, sd15: Copy) -> None:
    """A file added to a known folder is noticed, although none of its own has changed."""
    folder = sd15()
    scan(conn, [folder.parent])
    (folder / "unet/extra.py").write_text("print()")
    report = scan(conn, [folder.parent])
    assert [refusal.code for refusal in report.refused] == ["code_refused"]
    (folder / "unet/extra.py").unlink()
    assert scan(conn, [folder.parent]).found == (ModelRef(Kind.CHECKPOINT, "tiny"),)


def test_scan_keeps_hashes_of_what_was_only_moved(conn: Connection, sd15: Copy, tmp_path: Path) -> None:
    """A touched file is looked at again and is the same; a moved folder keeps the hash that was computed."""
    folder = sd15()
    scan(conn, [tmp_path / "models"])
    (before,) = rows(conn)
    os.utime(folder / "model_index.json", (1, 1))
    assert scan(conn, [tmp_path / "models"]).changed == ()
    (touched,) = rows(conn)
    assert (touched["sha256"], touched["changed_at"] > before["changed_at"]) == (before["sha256"], True)
    replace_weights(folder)
    scan(conn, [tmp_path / "models"])
    assert rows(conn)[0]["sha256"] != before["sha256"]


def test_scan_keeps_digests_of_components_that_were_read_whole(
    conn: Connection, sd15: Copy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is too large for a scan gets its digests with its hashes, and keeps them while the files are the same."""
    for limit, size in {"WHOLE_BYTES": 1000, "END_BYTES": 100, "SAMPLE_BYTES": 10}.items():
        monkeypatch.setattr(fingerprint, limit, size)
    folder = sd15()
    scan(conn, [tmp_path / "models"])
    assert set(digests(conn).values()) == {""}
    # The folder, and then nothing more.
    assert [hash_next(conn, ()) is not None for _ in range(2)] == [True, False]
    known = digests(conn)
    assert {len(digest) for digest in known.values()} == {64}
    (folder / "README.md").write_text("A tiny one.")
    assert (scan(conn, [tmp_path / "models"]).changed, digests(conn)) == ((), known)
    # A file that was written anew is read again in the background; until then nobody says what it holds.
    os.utime(folder / "model_index.json", (1, 1))
    assert (scan(conn, [tmp_path / "models"]).changed, set(digests(conn).values())) == ((), {""})
    assert hash_next(conn, ()) is not None
    assert digests(conn) == known
    replace_weights(folder)
    assert len(scan(conn, [tmp_path / "models"]).changed) == 1
    assert hash_next(conn, ()) is not None
    now = digests(conn)
    assert {name for name in now if now[name] != known[name]} == {"unet"}


def digests(conn: Connection) -> dict[str, str]:
    """Return the digests of the only entry's components."""
    (row,) = rows(conn)
    return {each["name"]: each["digest"] for each in row["components"]}


@pytest.mark.parametrize("key", ["modelspec.title", "ss_output_name"])
def test_scan_keeps_no_text_that_a_database_cannot(conn: Connection, tmp_path: Path, key: str) -> None:
    """A header may hold characters that Postgres refuses; they are left out."""
    shapes = {f"{LAYER}.lora_down.weight": (4, 16), f"{LAYER}.lora_up.weight": (8, 4)}
    write_tensors(tmp_path / "odd.safetensors", shapes, metadata={key: "a\x00b\ud800c", "\x00": "\udfff"})
    scan(conn, [tmp_path])
    assert rows(conn)[0]["metadata"]["title"] == "abc"
