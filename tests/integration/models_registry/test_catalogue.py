"""The table of models follows the folders."""

import asyncio
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self

import numpy as np
import psycopg
import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from safetensors.numpy import load_file, save_file

from infra.database import Connection, connect, metadata, migration_config, open_engine
from models_registry.catalogue import find, find_all, load_catalogue, read_catalogue
from models_registry.compatibility import mismatch
from models_registry.entries import Kind, Layout, ModelRef
from models_registry.offers import Catalogue
from models_registry.reading.bounded_files import Reads
from models_registry.scanning.scan import scan
from models_registry.tables import model_pins, models

Copy = Callable[..., Path]


def refs(*names: str) -> tuple[ModelRef, ...]:
    """Name checkpoints."""
    return tuple(ModelRef(Kind.CHECKPOINT, name) for name in names)


def write_lora(path: Path) -> None:
    """Write a LoRA of rank 4 for one layer that reads text features of width 16."""
    layer = "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k"
    save_file(
        {f"{layer}.lora_A.weight": np.ones((4, 16), np.float32), f"{layer}.lora_B.weight": np.ones((8, 4), np.float32)},
        path,
    )


def replace_weights(folder: Path) -> None:
    """Save other weights of the same shapes under the same name."""
    path = folder / "unet/diffusion_pytorch_model.safetensors"
    save_file({name: tensor + 1 for name, tensor in load_file(path).items()}, path)


def test_migration_makes_the_tables(database_url: str) -> None:
    """The migrated tables are those the code declares."""
    declared = {name for name in metadata.tables if name.startswith("model")}
    assert {models.name, model_pins.name} < declared
    engine = open_engine(database_url, application_name="test")
    with engine.connect() as connection:
        options = {
            "include_name": lambda name, kind, _: kind != "table" or name in declared,
            "include_object": lambda _, name, kind, *__: kind != "table" or name in declared,
        }
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, metadata) == []
    engine.dispose()


def test_scan_offers_what_it_finds(conn: Connection, database_url: str, sd15: Copy) -> None:
    """A scanned model is read back whole, by workers and by the API."""
    folder = sd15("Tiny Model")
    report = scan(conn, [folder.parent])
    assert (report.found, report.added, report.changed, report.missing, report.refused) == (
        refs("Tiny Model"),
        refs("Tiny Model"),
        (),
        (),
        (),
    )
    entry = find(conn, *refs("Tiny Model"))
    assert entry is not None
    assert (entry.path, entry.native_size, len(entry.components)) == (folder, 128, 3)

    async def load() -> Catalogue:
        async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
            return await load_catalogue(connection)

    catalogue = asyncio.run(load())
    assert catalogue == read_catalogue(conn)
    assert catalogue.find("tiny model") == catalogue.default() == entry


def test_scan_twice_changes_nothing(conn: Connection, sd15: Copy) -> None:
    """The second scan writes no row and opens no file."""
    folder = sd15().parent
    first, second = Reads(), Reads()
    scan(conn, [folder], first)
    rows = conn.execute("SELECT *, xmin FROM models").fetchall()
    report = scan(conn, [folder], second)
    assert (report.found, report.added, report.changed) == (refs("tiny"), (), ())
    assert conn.execute("SELECT *, xmin FROM models").fetchall() == rows
    assert first.files > 0
    assert second == Reads()


def test_scan_sees_replaced_weights(conn: Connection, sd15: Copy) -> None:
    """Other weights in the same file are another fingerprint and another model key."""
    folder = sd15()
    scan(conn, [folder])
    before = find(conn, *refs("tiny"))
    replace_weights(folder)
    assert scan(conn, [folder]).changed == refs("tiny")
    after = find(conn, *refs("tiny"))
    assert before is not None
    assert after is not None
    assert before.model_key != after.model_key


def test_scan_marks_what_is_away_and_takes_it_back(conn: Connection, sd15: Copy) -> None:
    """A removed folder keeps its row and is not offered; when it returns it is."""
    folder = sd15()
    scan(conn, [folder.parent])
    folder.rename(folder.parent.parent / "away")
    for _ in range(2):
        report = scan(conn, [folder.parent])
        assert (report.found, report.changed, report.missing) == ((), (), refs("tiny"))
    assert find(conn, *refs("tiny")) is None
    catalogue = read_catalogue(conn)
    assert not catalogue.entries
    assert catalogue.missing == set(refs("tiny"))
    (folder.parent.parent / "away").rename(folder)
    assert scan(conn, [folder.parent]).changed == refs("tiny")
    assert find(conn, *refs("tiny")) is not None


def test_scan_no_longer_offers_a_model_that_was_damaged(conn: Connection, sd15: Copy) -> None:
    """A model that was good and is not any more is refused and marked missing."""
    folder = sd15()
    scan(conn, [folder.parent])
    (folder / "unet/config.json").write_text("{")
    report = scan(conn, [folder.parent])
    assert report.missing == refs("tiny")
    assert [(refusal.path, refusal.code) for refusal in report.refused] == [
        (folder / "unet/config.json", "config_invalid")
    ]
    assert find(conn, *refs("tiny")) is None


def test_scan_leaves_other_folders_alone(conn: Connection, sd15: Copy, tmp_path: Path) -> None:
    """Scanning one folder says nothing about the models of another."""
    scan(conn, [sd15().parent])
    (tmp_path / "empty").mkdir()
    assert scan(conn, [tmp_path / "empty"]).missing == ()
    assert find(conn, *refs("tiny")) is not None


def test_scan_reports_a_missing_folder_and_what_was_in_it(conn: Connection, sd15: Copy) -> None:
    """A disk that is not mounted takes its models away and is named."""
    folder = sd15().parent
    scan(conn, [folder])
    folder.rename(folder.with_name("unmounted"))
    report = scan(conn, [folder])
    assert (report.missing, [(refusal.path, refusal.code) for refusal in report.refused]) == (
        refs("tiny"),
        [(folder, "folder_missing")],
    )


def test_scan_gives_a_name_to_one_folder(conn: Connection, sd15: Copy) -> None:
    """The folder that has the name keeps it; the other is refused and says which folder has it."""
    second = sd15("b/tiny")
    scan(conn, [second.parent])
    first = sd15("a/TINY")
    for folders in ([first.parent.parent], [first.parent]):
        report = scan(conn, folders)
        assert [(refusal.path, refusal.code) for refusal in report.refused] == [(first, "name_taken")]
        assert str(second) in report.refused[0].reason
    shutil.rmtree(second)
    report = scan(conn, [first.parent])
    assert (report.changed, report.refused) == (refs("TINY"), ())
    assert tuple(read_catalogue(conn).entries) == refs("TINY")


def test_scan_follows_a_renamed_case(conn: Connection, sd15: Copy) -> None:
    """A folder renamed from `Tiny` to `tiny` is the same model under its new name."""
    folder = sd15("Tiny")
    scan(conn, [folder.parent])
    folder.rename(folder.with_name("tiny"))
    assert scan(conn, [folder.parent]).changed == refs("tiny")
    assert tuple(read_catalogue(conn).entries) == refs("tiny")


def test_scan_looks_deep_and_names_what_it_leaves(conn: Connection, sd15: Copy) -> None:
    """Models are found below the folder, also through links that turn in circles; loose files are named with their reason."""
    deep = sd15("sd/anime/deep")
    root = deep.parents[2]
    (root / "sd/again").symlink_to(root)
    (root / "linked").symlink_to(deep)
    (root / ".hidden").mkdir()
    (root / ".hidden/x.ckpt").touch()
    for name in ("lora.safetensors", "old.ckpt", "quant.gguf", "notes.txt"):
        (root / name).touch()
    (root / "pieces/unet").mkdir(parents=True)
    (root / "pieces/unet/config.json").write_text("{}")
    report = scan(conn, [root])
    assert report.found == refs("deep", "linked")
    assert {(refusal.path.relative_to(root).as_posix(), refusal.code) for refusal in report.refused} == {
        ("lora.safetensors", "not_safetensors"),
        ("old.ckpt", "pickle_refused"),
        ("quant.gguf", "unrecognised"),
        ("pieces", "unrecognised"),
    }


def test_scans_take_turns(conn: Connection, database_url: str, sd15: Copy) -> None:
    """A scan waits for the one before it, and then finds what that one added."""
    folder = sd15().parent

    def second() -> tuple[ModelRef, ...]:
        with connect(database_url, application_name="second") as connection:
            return scan(connection, [folder]).added

    waiting = "SELECT count(*) AS n FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
    with ThreadPoolExecutor(1) as pool:
        with conn.transaction():
            # Inside an outer transaction the scan's own is a savepoint: its lock is held until this block ends.
            assert scan(conn, [folder]).added == refs("tiny")
            later = pool.submit(second)
            while conn.execute(waiting).fetchone() != {"n": 1}:
                assert not later.done()
        assert later.result(30) == ()


def test_default_stays_when_models_are_added(conn: Connection, sd15: Copy) -> None:
    """The model known longest remains the default, whatever the names of later ones."""
    folder = sd15("zebra").parent
    scan(conn, [folder])
    sd15("aardvark")
    scan(conn, [folder])
    default = read_catalogue(conn).default()
    assert default is not None
    assert default.name == "zebra"


def test_migration_knows_every_kind_and_layout(conn: Connection) -> None:
    """The checks of the migrated table let every kind and layout in, and nothing else."""
    row = (
        "INSERT INTO models (kind, layout, name, family, variant, path, fingerprint, components, weight_bytes, native_size,"
        " latent_factor, latent_channels) VALUES (%s, %s, 'a', 'sd15', 'base', '/a', 'f', '[]', 0, 0, 0, 0)"
    )
    for kind in Kind:
        conn.execute(row, (kind.value, Layout.SINGLE_FILE.value))
    for layout in Layout:
        conn.execute("UPDATE models SET layout = %s", (layout.value,))
    for values in (("hypernetwork", "file"), ("lora", "zip")):
        with pytest.raises(psycopg.errors.CheckViolation):
            conn.execute(row.replace("'a'", "'b'"), values)
    with pytest.raises(psycopg.errors.UniqueViolation):
        conn.execute(row.replace("'a'", "'A'"), ("lora", "file"))


def test_migration_can_be_taken_back(database_url: str) -> None:
    """Going back leaves the checkpoints that the version before can read; coming again keeps them."""
    config = migration_config(database_url)
    row = (
        "INSERT INTO models (kind, layout, name, family, variant, path, fingerprint, components, weight_bytes, native_size,"
        " latent_factor, latent_channels) VALUES (%s, %s, 'a', 'sd15', 'base', '/a', 'f', '[]', 0, 0, 0, 0)"
    )
    with connect(database_url, application_name="test") as connection:
        connection.execute(row, ("checkpoint", "diffusers"))
        connection.execute(row, ("lora", "file"))
    for revision, move in (("0003", command.downgrade), ("head", command.upgrade)):
        move(config, revision)
        with connect(database_url, application_name="test") as connection:
            assert connection.execute("SELECT kind, name FROM models").fetchall() == [
                {"kind": "checkpoint", "name": "a"}
            ]


def test_find_all_takes_one_statement(conn: Connection, sd15: Copy) -> None:
    """All needs of a job are found at once, by kind and exact name; what is away or unknown is left out."""
    folder = sd15("one")
    gone = sd15("gone")
    write_lora(folder.parent / "one.safetensors")
    scan(conn, [folder.parent])
    shutil.rmtree(gone)
    scan(conn, [folder.parent])
    lora = ModelRef(Kind.LORA, "one")
    executed: list[object] = []

    class Counted(psycopg.Cursor[psycopg.rows.DictRow]):
        def execute(self, query: Any, params: Any = None, **more: Any) -> Self:
            executed.append(query)
            return super().execute(query, params, **more)

    conn.cursor_factory = Counted
    found = find_all(conn, [*refs("one", "gone", "One", "never"), lora])
    assert {ref: entry.ref for ref, entry in found.items()} == {ref: ref for ref in (*refs("one"), lora)}
    assert find_all(conn, []) == {}
    assert len(executed) == 1


def test_scan_gives_each_kind_its_own_names(conn: Connection, sd15: Copy) -> None:
    """A LoRA may be called as a checkpoint is; two LoRAs may not, wherever they lie."""
    folder = sd15("frame").parent
    first, second = folder / "a/Frame.safetensors", folder / "b/frame.safetensors"
    for path in (first, second):
        path.parent.mkdir()
        write_lora(path)
    report = scan(conn, [folder])
    assert report.found == (*refs("frame"), ModelRef(Kind.LORA, "Frame"))
    assert [(refusal.path, refusal.code) for refusal in report.refused] == [(second, "name_taken")]
    first.unlink()
    report = scan(conn, [folder])
    assert (report.found, report.changed) == (
        (*refs("frame"), ModelRef(Kind.LORA, "frame")),
        (ModelRef(Kind.LORA, "frame"),),
    )


def test_scan_sees_a_file_become_another_kind(conn: Connection, tmp_path: Path) -> None:
    """A file replaced by one of another kind is a new entry, and the old one is away."""
    path = tmp_path / "thing.safetensors"
    write_lora(path)
    scan(conn, [tmp_path])
    save_file({"emb_params": np.zeros((2, 16), np.float32)}, path)
    report = scan(conn, [tmp_path])
    assert report.added == (ModelRef(Kind.EMBEDDING, "thing"),)
    assert report.missing == (ModelRef(Kind.LORA, "thing"),)
    catalogue = read_catalogue(conn)
    assert catalogue.missing == {ModelRef(Kind.LORA, "thing")}
    found = catalogue.find("thing", Kind.EMBEDDING)
    assert found is not None
    assert (found.vectors, found.text_width, found.rank) == (2, 16, None)


def test_scan_forgets_a_file_that_was_damaged(conn: Connection, tmp_path: Path) -> None:
    """A LoRA that was cut short is refused by name, and not offered any more."""
    path = tmp_path / "frame.safetensors"
    write_lora(path)
    scan(conn, [tmp_path])
    path.write_bytes(path.read_bytes()[:-4])
    report = scan(conn, [tmp_path])
    assert (report.found, report.missing) == ((), (ModelRef(Kind.LORA, "frame"),))
    assert [(refusal.path, refusal.code) for refusal in report.refused] == [(path, "offsets_invalid")]


def test_reference_models_are_offered(conn: Connection) -> None:
    """Everything that is trained here is registered, nothing of it refused, and `shapes-sd15` draws when none is named."""
    report = scan(conn, [Path(__file__).parents[3] / "reference_models"])
    assert report.refused == ()
    catalogue = read_catalogue(conn)
    default = catalogue.default()
    assert default is not None
    assert default.name == "shapes-sd15"
    models = [entry for entry in catalogue.entries.values() if entry.kind is Kind.CHECKPOINT]
    adapters = [entry for entry in catalogue.entries.values() if entry.kind is not Kind.CHECKPOINT]
    fitting = {
        adapter.name: {model.name for model in models if mismatch(adapter, model) is None} for adapter in adapters
    }
    assert all(fitting.values()), fitting
    assert "shapes-sd15" in fitting["shapes-frame"]
