"""A backup brings everything back, or is refused before anything has changed."""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from infra.database import connect
from models_registry.archives.backups import (
    TABLES,
    BackupRunning,
    alone,
    backup_key,
    create_backup,
    delete_backup,
    list_backups,
    read_backup,
    verify_backup,
)
from models_registry.archives.refusals import ArchiveDamaged, ArchiveRefused, RestoreBlocked
from models_registry.archives.restoring import restore_backup
from models_registry.archives.schedule import make_what_is_due, read_schedule, set_schedule
from models_registry.pins import pin
from models_registry.records import Facts

#: Tables that hang on entries and are not backed up: what they hold is passing, counted, or learnt again.
PASSING = frozenset(
    {
        "model_pins", "model_uploads", "downloads", "model_places", "analyses", "model_usage", "model_usage_weights", "model_pairs",
        "model_use_totals",
    }
)  # fmt: skip


def tables(registry: Any) -> dict[str, list[Any]]:
    """Return every row of the library as it is, but for the revisions that readers go by."""
    return {
        table: sorted(
            (row["row"] for row in registry.connection.execute(f"select to_jsonb({table}) - 'revision' as row from {table}")),
            key=repr,
        )
        for table in TABLES
    }  # fmt: skip


@pytest.fixture
def full(filled: Callable[[], Any]) -> Any:
    """Return a registry with a bit of everything."""
    return filled()


CHANGES: dict[str, str] = {
    "delete": "delete from models where name = 'frame'",
    "rename": "update models set name = 'other' where name = 'dusk'",
    "swap": "update models set name = case name when 'dusk' then 'frame@2' else 'x' end where name in ('dusk', 'frame@2')",
    "describe": "update models set description = 'x', tags = '{y}', weight = 9",
    "unmark": "delete from model_marks",
    "mark": "update model_marks set rating = 1",
    "no previews": "delete from model_previews",
    "no recipes": "delete from recipes",
    "recipe": "update recipes set name = name || ' x'",
    "aliases": "update model_aliases set alias = 'z'",
    "all": "delete from models",
}


@given(
    changes=st.lists(st.sampled_from(sorted(CHANGES)), unique=True, max_size=6),
    files=st.sampled_from(["include", "reference"]),
)
@settings(
    max_examples=8,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    derandomize=True,
    database=None,
    phases=[Phase.generate],
)
def test_restore_gives_an_equal_library(filled: Callable[[], Any], changes: list[str], files: Any) -> None:
    """Whatever happened to it: every row, its id and its times, and the bytes where the backup has them."""
    registry = filled()
    before, objects = tables(registry), registry.objects()
    made = create_backup(registry.connection, registry.storage, files, "ann")
    for change in changes:
        if change != "swap" or not {"rename", "delete"} & set(changes):
            registry.connection.execute(CHANGES[change].encode())
    registry.add(9, "newcomer", Facts())
    if files == "include":
        for key in objects:
            registry.storage.delete(key)
    restored = restore_backup(registry.connection, registry.storage, made)
    assert tables(registry) == before
    assert (restored.entries, restored.recipes, restored.without_files) == (3, 2, [])
    assert objects.items() <= registry.objects().items()
    registry.wipe()


def test_damaged_backup_is_refused_before_anything_changes(full: Any) -> None:
    """One wrong byte anywhere is found by reading it to its end; it is recorded, and restores nothing."""
    registry = full
    made = create_backup(registry.connection, registry.storage, "include", "ann")
    place = Path(registry.storage._folder) / backup_key(made.id)  # noqa: SLF001 - a disk that goes bad
    sound = place.read_bytes()
    verified = verify_backup(registry.connection, registry.storage, made.id)
    assert verified is not None
    assert (verified.damage, verified.verified_at is not None) == (None, True)
    registry.connection.execute("delete from model_marks")
    before = tables(registry)
    for offset in (0, len(sound) // 3, len(sound) // 2, len(sound) - 1):
        place.write_bytes(sound[:offset] + bytes([sound[offset] ^ 1]) + sound[offset + 1 :])
        with pytest.raises(ArchiveDamaged):
            restore_backup(registry.connection, registry.storage, made)
        assert tables(registry) == before
    damaged = verify_backup(registry.connection, registry.storage, made.id)
    assert damaged is not None
    assert damaged.damage is not None
    # The recorded hash may be forged along with the bytes: members have hashes of their own.
    forged = made.model_copy(update={"sha256": "0" * 64})
    with pytest.raises(ArchiveRefused):
        restore_backup(registry.connection, registry.storage, forged)


def test_restore_leaves_entries_in_use(full: Any) -> None:
    """What the backup does not have and somebody needs blocks it; what it has stays pinned."""
    registry = full
    made = create_backup(registry.connection, registry.storage, "reference", None)
    (row,) = registry.connection.execute("select id from models where name = 'frame'").fetchall()
    pin(registry.connection, [row["id"]], "a job", 60)
    restore_backup(registry.connection, registry.storage, made)
    assert registry.connection.execute("select holder from model_pins").fetchall() == [{"holder": "a job"}]
    newcomer = registry.add(9, "newcomer", Facts())
    pin(registry.connection, [newcomer.id], "a job", 60)
    before = tables(registry)
    with pytest.raises(RestoreBlocked):
        restore_backup(registry.connection, registry.storage, made)
    assert tables(registry) == before


def test_restore_leaves_what_a_holder_names_as_it_is(full: Any) -> None:
    """An entry that is called otherwise, or has other files, since the backup blocks it while it is held; one that is the same does not."""
    registry = full
    made = create_backup(registry.connection, registry.storage, "reference", None)

    def restore(*names: str) -> None:
        restore_backup(
            registry.connection, registry.storage, made, lambda _, refs: [ref for ref in refs if ref.name in names]
        )

    registry.connection.execute("update models set description = 'x' where name = 'dusk'")
    restore("dusk", "frame")
    for change, name in (("name = 'dawn'", "dawn"), (f"fingerprint = '{'f' * 64}'", "dusk")):
        registry.connection.execute(f"update models set {change} where name = 'dusk'")
        before = tables(registry)
        with pytest.raises(RestoreBlocked):
            restore(name)
        assert tables(registry) == before
        restore("frame")


def test_restore_says_whose_files_are_gone(full: Any) -> None:
    """An entry whose bytes are nowhere comes back as missing."""
    registry = full
    made = create_backup(registry.connection, registry.storage, "reference", None)
    registry.wipe()
    restored = restore_backup(registry.connection, registry.storage, made)
    assert sorted(restored.without_files) == ["dusk", "frame", "frame@2"]
    rows = registry.connection.execute("select from models where missing_since is null").fetchall()
    assert rows == []


def test_backups_are_found_in_storage(full: Any) -> None:
    """Also when the table is lost; what was deleted is not found again."""
    registry = full
    made = [create_backup(registry.connection, registry.storage, "reference", None) for _ in range(2)]
    registry.storage.put("backups/readme.txt", b"x")
    listed = list_backups(registry.connection, registry.storage)
    assert [each.id for each in listed] == [made[1].id, made[0].id]
    registry.connection.execute("delete from backups")
    found = list_backups(registry.connection, registry.storage)
    assert [(each.id, each.sha256, each.entries) for each in found] == [(each.id, each.sha256, 3) for each in listed]
    restore_backup(registry.connection, registry.storage, found[0])
    assert delete_backup(registry.connection, registry.storage, made[0].id)
    assert not delete_backup(registry.connection, registry.storage, made[0].id)
    assert [each.id for each in list_backups(registry.connection, registry.storage)] == [made[1].id]
    assert read_backup(registry.connection, made[0].id) is None


def test_one_backup_is_made_at_a_time(full: Any, database_url: str) -> None:
    """A second one is told so, and works once the first is done."""
    with connect(database_url, application_name="test") as other:
        with alone(other), pytest.raises(BackupRunning):
            create_backup(full.connection, full.storage, "reference", None)
        create_backup(full.connection, full.storage, "reference", None)


def test_schedule_makes_what_is_due_and_keeps_the_newest(full: Any) -> None:
    """Only when it is due; those that people made are not counted."""
    registry = full
    create_backup(registry.connection, registry.storage, "reference", "ann")
    assert make_what_is_due(registry.connection, registry.storage) is None
    set_schedule(registry.connection, every_hours=6.0, keep=2, files="reference")
    assert make_what_is_due(registry.connection, registry.storage) is None
    made = []
    for _ in range(3):
        registry.connection.execute("update backup_schedule set next_at = now() - interval '1 minute'")
        backup = make_what_is_due(registry.connection, registry.storage)
        assert backup is not None
        made.append(backup.id)
        assert make_what_is_due(registry.connection, registry.storage) is None
    listed = list_backups(registry.connection, registry.storage)
    assert [each.id for each in listed if each.made_by is None] == [made[2], made[1]]
    assert len(listed) == 3
    set_schedule(registry.connection, every_hours=None, keep=2, files="reference")
    assert read_schedule(registry.connection).next_at is None


def test_every_table_that_hangs_on_entries_is_backed_up_or_passing(full: Any) -> None:
    """Whoever adds one decides which."""
    rows = full.connection.execute(
        "select distinct conrelid::regclass::text as name from pg_constraint where confrelid = 'models'::regclass"
    ).fetchall()
    known = {*TABLES, *PASSING}
    assert {row["name"] for row in rows} - known == set()
    assert list(itertools.islice(TABLES, 1)) == ["models"]
