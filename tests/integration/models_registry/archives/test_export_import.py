"""What was exported can be imported, all of it or nothing."""

import hashlib
import io
import json
import zipfile
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from models_registry.archives.exporting import Selection, collect, export
from models_registry.archives.importing import import_archive
from models_registry.archives.manifest import Files
from models_registry.archives.planning import Options
from models_registry.archives.reading import Archive, open_archive
from models_registry.archives.refusals import ArchiveRefused, ImportRefused
from models_registry.archives.report import ImportReport
from models_registry.archives.writing import About, Member, SourceChanged, write_archive
from models_registry.content import content_key
from models_registry.entries import ModelRef
from models_registry.pins import pin
from models_registry.records import Facts, Reader

ADMIN = Reader("ann", is_admin=True)
ANN = Reader("ann")
BOB = Reader("bob")
WORDS = st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1, max_size=8), max_size=3)
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=30)
WEIGHT = st.none() | st.floats(-2, 2, allow_nan=False)
FACTS = st.fixed_dictionaries(
    {
        "owner": st.sampled_from([None, "ann", "bob"]), "visibility": st.sampled_from(["public", "private"]), "description": TEXT,
        "licence": TEXT, "source": TEXT, "base_model": TEXT, "tags": WORDS, "trigger_words": WORDS, "weight": WEIGHT,
        "weight_min": WEIGHT, "weight_max": WEIGHT,
    }
)  # fmt: skip
MARK = st.none() | st.fixed_dictionaries(
    {
        "favourite": st.booleans(), "rating": st.none() | st.integers(1, 5), "active": st.booleans(),
        "position": st.none() | st.integers(0, 9), "weight": WEIGHT,
    }
)  # fmt: skip


def exported(registry: Any, reader: Reader = ADMIN, files: Files = "include", **chosen: Any) -> bytes:
    """Return an archive."""
    found = collect(registry.connection, registry.storage, Selection(**chosen), reader, files)
    size = found.bytes
    data = b"".join(export(registry.connection, registry.storage, found))
    assert abs(size - len(data)) < 4096
    return data


def imported(registry: Any, data: bytes, reader: Reader = ADMIN, **options: Any) -> ImportReport:
    """Import an archive."""
    archive = open_archive(io.BytesIO(data), 10**9)
    return import_archive(registry.connection, registry.storage, archive, Options(reader, **options))


def actions(report: ImportReport) -> list[tuple[str, str, str | None]]:
    """Return what became of each entry."""
    return [(each.ref, each.action, each.files) for each in report.entries]


@pytest.fixture
def filled_registry(filled: Callable[[], Any]) -> Any:
    """Return a registry with a bit of everything."""
    return filled()


@given(
    entries=st.lists(st.tuples(FACTS, MARK, st.none() | st.integers(0, 2)), max_size=4),
    recipes=st.sets(st.text("abc", min_size=1, max_size=3), max_size=3),
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
def test_export_wipe_import_gives_an_equal_registry(
    registry: Any, entries: list[Any], recipes: set[str], files: Files
) -> None:
    """Whatever the entries are, and whether their bytes are in the archive or still in storage."""
    registry.wipe()
    for number, (facts, mark, shade) in enumerate(entries):
        registry.add(number + 1, f"e{number}", Facts(**facts, aliases=[f"alias {number}"]), mark=mark, shade=shade)
    for name in sorted(recipes):
        registry.add_recipe(f"n{name}", name)
    # A mark that says nothing is as good as none.
    registry.connection.execute(
        "delete from model_marks where not favourite and rating is null and not active and position is null and weight is null"
    )
    before, objects = registry.content(), registry.objects()
    data = exported(registry, files=files)
    registry.wipe(objects=files == "include")
    report = imported(registry, data)
    assert {each.action for each in report.entries} <= {"created"}
    for now, then in zip(registry.content()[0], before[0], strict=True):
        assert {name: value for name, value in now.items() if value != then[name]} == {}
    assert registry.content() == before
    assert registry.objects() == objects


def test_export_holds_what_was_chosen(filled_registry: Any) -> None:
    """By ids, by filter, and only what the reader sees."""
    registry = filled_registry

    def refs(reader: Reader, **chosen: Any) -> list[str]:
        archive = open_archive(io.BytesIO(exported(registry, reader, "reference", **chosen)), 10**9)
        return [row["ref"] for row in archive.rows("entries.jsonl")]

    assert refs(ADMIN) == ["frame", "frame@2", "dusk"]
    assert refs(ANN) == ["frame", "frame@2"]
    assert refs(BOB) == ["frame", "dusk"]
    assert refs(ANN, tag="border") == refs(ANN, active=True) == ["frame"]
    assert refs(ANN, own=True) == ["frame@2"]
    (row,) = registry.connection.execute("select id from models where name = 'dusk'").fetchall()
    assert refs(ANN, entries=[row["id"]]) == []
    assert refs(BOB, entries=[row["id"]]) == ["dusk"]
    assert refs(ANN, entries=[]) == []


def test_import_of_what_is_here_changes_nothing(filled_registry: Any) -> None:
    """The same content is recognised, also under another name; recipes as well."""
    registry = filled_registry
    data = exported(registry)
    before = registry.content()
    assert {each.action for each in imported(registry, data).entries} == {"skipped"}
    assert registry.content() == before
    registry.connection.execute("update models set name = 'renamed' where name = 'dusk'")
    again = imported(registry, data, conflict="rename")
    assert [(each.ref, each.action, each.as_ref) for each in again.entries][2] == ("dusk", "skipped", "renamed")


@pytest.mark.parametrize(
    ("conflict", "action", "names"),
    [
        ("skip", "skipped", ["frame"]),
        ("rename", "renamed", ["frame", "frame-2"]),
        ("replace", "replaced", ["frame"]),
    ],
)
def test_conflict_is_settled_as_asked(registry: Any, conflict: Any, action: str, names: list[str]) -> None:
    """Another content of the same name is left out, renamed, or takes its place with what others think of it."""
    registry.add(1, "frame", Facts(description="archived"))
    data = exported(registry)
    registry.wipe()
    registry.add(2, "frame", Facts(description="here"), mark={
        "favourite": True, "rating": 2, "active": False, "position": None, "weight": None, "owner": "bob",
    })  # fmt: skip
    foreseen = imported(registry, data, conflict=conflict, dry_run=True)
    before = registry.content()
    assert actions(foreseen)[0][1] == action
    assert registry.content() == before
    assert actions(imported(registry, data, conflict=conflict)) == actions(foreseen)
    entries, _ = registry.content()
    assert [row["name"] for row in entries] == names
    assert entries[0]["description"] == ("archived" if conflict == "replace" else "here")
    assert entries[0]["marks"][0]["owner"] == "bob"


def test_entry_of_others_is_not_replaced(registry: Any) -> None:
    """Only its owner and admins may; then nothing of the archive is imported."""
    registry.add(1, "frame", Facts())
    registry.add(3, "other", Facts())
    data = exported(registry)
    registry.wipe()
    registry.add(2, "frame", Facts(owner="ann"))
    before = registry.content()
    with pytest.raises(ImportRefused, match="not yours"):
        imported(registry, data, BOB, conflict="replace")
    assert registry.content() == before
    assert actions(imported(registry, data, ANN, conflict="replace"))[0][1] == "replaced"


def test_pinned_entry_is_not_replaced(registry: Any) -> None:
    """Somebody needs its files still: nothing is imported."""
    registry.add(1, "frame", Facts())
    data = exported(registry)
    registry.wipe()
    shelved = registry.add(2, "frame", Facts())
    pin(registry.connection, [shelved.id], "a job", 60)
    before = registry.content()
    with pytest.raises(ImportRefused, match="in use"):
        imported(registry, data, conflict="replace")
    assert registry.content() == before


def test_import_of_others_is_the_importers_own(filled_registry: Any) -> None:
    """Whose an entry was, and who may use it, only an admin's archive says; nor is storage searched for what it names."""
    registry = filled_registry
    known = registry.connection.execute("select components from models").fetchall()
    assert all(part["digest"] for row in known for part in row["components"])
    data = exported(registry, files="reference")
    registry.wipe(objects=False)
    report = imported(registry, data, BOB)
    assert {each.files for each in report.entries} == {"away"}
    rows = registry.connection.execute(
        "select owner, allowed_keys, missing_since, stored_at, path, components from models"
    ).fetchall()
    assert {(row["owner"], row["allowed_keys"], row["stored_at"]) for row in rows} == {("bob", None, None)}
    assert all(row["missing_since"] is not None and row["path"].startswith("storage:") for row in rows)
    # Files that nobody here has read are equal to none.
    assert {part["digest"] for row in rows for part in row["components"]} == {""}
    assert {row["owner"] for row in registry.content()[1]} == {"bob"}


def rewritten(data: bytes, change: Callable[[str, bytes], bytes]) -> bytes:
    """Return an archive with other members, rightly listed."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist() if info.filename != "manifest.json"}
        manifest = json.loads(archive.read("manifest.json"))
    about = About("export", manifest["files"], manifest["entries"], manifest["recipes"])

    def member(name: str, content: bytes) -> Member:
        return Member(name, lambda: iter([content]))

    return b"".join(write_archive((member(name, change(name, content)) for name, content in members.items()), about))


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"sha256": "0" * 64}, "hash_mismatch"),
        ({"kind": "vae"}, "kind_mismatch"),
        ({"name": "../x", "ref": "../x"}, "name_invalid"),
        ({"files": [{"path": "../../x", "bytes": 1, "sha256": None}]}, "archive_row_invalid"),
    ],
)
def test_entry_that_lies_is_refused(filled_registry: Any, change: Mapping[str, Any], code: str) -> None:
    """What an archive says of a file is not believed; a dry run tells, and an import leaves nothing."""
    registry = filled_registry
    data = exported(registry, ANN)

    def lie(name: str, content: bytes) -> bytes:
        if name != "entries.jsonl":
            return content
        first, *others = [json.loads(line) for line in content.splitlines()]
        if "files" in change:
            files = [{**change["files"][0], "sha256": first["files"][0]["sha256"]}]
            first |= {"files": files}
        else:
            first |= change
        return b"".join(json.dumps(row).encode() + b"\n" for row in [first, *others])

    lying = rewritten(data, lie)
    registry.wipe()
    report = imported(registry, lying, dry_run=True)
    assert (report.entries[0].action, report.entries[0].code) == ("refused", code)
    with pytest.raises(ImportRefused):
        imported(registry, lying)
    assert registry.content() == ([], [])
    keys = {row["key"] for row in registry.connection.execute("select key from garbage").fetchall()}
    # The other entry's bytes were stored ahead of its row: the keeper removes them.
    assert {key for key in registry.objects() if key.startswith("models/")} <= keys


@pytest.mark.parametrize(
    ("member", "row"),
    [
        ("entries.jsonl", b"{}"),
        ("entries.jsonl", b"nonsense"),
        ("entries.jsonl", b'{"ref": "\\u0000"}'),
        ("entries.jsonl", b"[" * 100_000),
        ("recipes.jsonl", b'{"name": ""}'),
        ("recipes.jsonl", b'{"x": NaN}'),
    ],
)
def test_line_that_cannot_be_understood_is_refused(filled_registry: Any, member: str, row: bytes) -> None:
    """With the code that says so, before anything changes."""
    registry = filled_registry
    data = rewritten(exported(registry, ANN), lambda name, content: row if name == member else content)
    registry.wipe()
    with pytest.raises(ArchiveRefused) as refused:
        imported(registry, data)
    assert refused.value.code == "archive_row_invalid"
    assert registry.content() == ([], [])


def test_preview_that_is_no_picture_is_refused(filled_registry: Any) -> None:
    """Whoever looks at it later must not get a page with a script."""
    registry = filled_registry
    data = exported(registry, ANN)
    page = b"<script>alert(1)</script>"
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        shown = next(name for name in archive.namelist() if name.startswith("previews/"))
        content = archive.read(shown)
    lying = rewritten_names(data, shown, f"previews/{hashlib.sha256(page).hexdigest()}", content, page)
    registry.wipe()
    with pytest.raises(ArchiveRefused) as refused:
        imported(registry, lying)
    assert refused.value.code == "archive_row_invalid"


def rewritten_names(data: bytes, name: str, other: str, content: bytes, page: bytes) -> bytes:
    """Return an archive in which one preview is another file, and is named so everywhere."""
    old, new = name.partition("/")[2].encode(), other.partition("/")[2].encode()
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist() if info.filename != "manifest.json"}
    assert members.pop(name) == content
    members = {key: value.replace(old, new) if key.endswith(".jsonl") else value for key, value in members.items()}
    members[other] = page
    about = About("export", "include", 1, 1)

    def member(key: str, value: bytes) -> Member:
        return Member(key, lambda: iter([value]))

    return b"".join(write_archive((member(key, value) for key, value in members.items()), about))


def test_export_breaks_off_where_a_file_is_not_as_recorded(filled_registry: Any) -> None:
    """What was sent until then is no archive, and the entries are no longer pinned."""
    registry = filled_registry
    (row,) = registry.connection.execute("select sha256 from models where name = 'frame'").fetchall()
    folder = Path(registry.storage._folder)  # noqa: SLF001 - a damaged disk
    place = folder / content_key(row["sha256"])
    place.write_bytes(b"x" * place.stat().st_size)
    found = collect(registry.connection, registry.storage, Selection(), ADMIN, "include")
    sent: list[bytes] = []
    with pytest.raises(SourceChanged):
        sent.extend(export(registry.connection, registry.storage, found))
    with pytest.raises(ArchiveRefused):
        open_archive(io.BytesIO(b"".join(sent)), 10**9)
    assert registry.connection.execute("select from model_pins").fetchall() == []


def test_file_that_is_away_is_named(filled_registry: Any) -> None:
    """The rest is exported with its files."""
    registry = filled_registry
    (row,) = registry.connection.execute("select sha256 from models where name = 'dusk'").fetchall()
    registry.storage.delete(content_key(row["sha256"]))
    archive: Archive = open_archive(io.BytesIO(exported(registry)), 10**9)
    assert archive.manifest.without_files == ("dusk",)
    assert sum(member.name.startswith("files/") for member in archive.manifest.members) == 2


def test_import_looks_once_more_before_it_writes(filled_registry: Any) -> None:
    """An entry that somebody came to need after the plan was made is not replaced either."""
    registry = filled_registry
    data = exported(registry)
    registry.wipe()
    registry.add(9, "frame", Facts())
    before, looks = registry.content(), []

    def holders(_: Any, refs: Collection[ModelRef]) -> Collection[ModelRef]:
        looks.append(list(refs))
        return refs if len(looks) > 1 else ()

    with pytest.raises(ImportRefused, match="in_use"):
        imported(registry, data, conflict="replace", holders=holders)
    assert [[ref.name for ref in refs] for refs in looks] == [["frame"], ["frame"]]
    assert registry.content() == before
