"""Archives that are not what they seem are refused, each with a code that says why, before a member is used."""

import hashlib
import io
import json
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator

import pytest

from models_registry.archives import reading
from models_registry.archives.reading import open_archive
from models_registry.archives.refusals import ArchiveRefused
from models_registry.archives.writing import About, Member, write_archive

MOST = 10**9
HELLO = b"hello" * 100
DIGEST = hashlib.sha256(HELLO).hexdigest()


def sound() -> bytes:
    """Return an archive of ours."""
    members = [
        Member("entries.jsonl", lambda: iter([b"{}\n"])),
        Member(f"files/{DIGEST}", lambda: iter([HELLO[:7], HELLO[7:]])),
    ]
    return b"".join(write_archive(members, About("export", "include", 1, 0)))


def manifest_of(members: dict[str, bytes], **changes: object) -> bytes:
    """Return a manifest that lists members rightly, but for the changes."""
    listed = [
        {"name": name, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in members.items()
    ]
    document = {
        "product": "imagefleet", "schema_version": 1, "kind": "export", "made_at": "2026-01-01T00:00:00Z", "files": "include",
        "entries": 0, "recipes": 0, "members": listed,
    }  # fmt: skip
    return json.dumps(document | changes).encode()


def zipped(members: dict[str, bytes], *, manifest: bytes | None = None, change: Callable[[zipfile.ZipInfo], None] | None = None,
           compression: int = zipfile.ZIP_STORED) -> bytes:  # fmt: skip
    """Return an archive of these members and a manifest."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, data in members.items():
            info = zipfile.ZipInfo(name)
            info.compress_type = compression
            if change is not None:
                change(info)
            archive.writestr(info, data)
        archive.writestr("manifest.json", manifest_of(members) if manifest is None else manifest)
    return file.getvalue()


def link(info: zipfile.ZipInfo) -> None:
    """Make a member a symbolic link."""
    info.external_attr = 0o120777 << 16


def twice() -> bytes:
    """Return an archive with two members of one name."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("entries.jsonl", b"{}")
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("entries.jsonl", b"[]")
        archive.writestr("manifest.json", manifest_of({"entries.jsonl": b"[]"}))
    return file.getvalue()


def encrypted() -> bytes:
    """Return an archive whose first member says that it is encrypted."""
    data = bytearray(zipped({"entries.jsonl": b"{}"}))
    for signature, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(signature) + place] |= 1
    return bytes(data)


def renamed_inside() -> bytes:
    """Return an archive whose member has another name in its own header than in the directory."""
    return zipped({"entries.jsonl": b"{}"}).replace(b"entries.jsonl", b"recipes.jsonl", 1)


def size_inside() -> bytes:
    """Return an archive whose member has another size in its own header than in the directory."""
    data = bytearray(zipped({"entries.jsonl": b"{}"}))
    place = data.index(b"PK\x03\x04")
    data[place + 22 : place + 26] = struct.pack("<L", 999)
    return bytes(data)


def overlapping() -> bytes:
    """Return an archive whose directory names the same bytes twice."""
    data = zipped({"entries.jsonl": b"{}", "recipes.jsonl": b"{}"})
    opened = zipfile.ZipFile(io.BytesIO(data))
    place = data.index(b"PK\x01\x02", data.index(b"PK\x01\x02") + 4)
    changed = bytearray(data)
    changed[place + 42 : place + 46] = struct.pack("<L", opened.getinfo("entries.jsonl").header_offset)
    return bytes(changed)


def bomb() -> bytes:
    """Return an archive whose member is 64 MiB of nothing."""
    return zipped({"entries.jsonl": bytes(64 * 1024 * 1024)}, manifest=b"{}", compression=zipfile.ZIP_DEFLATED)


def bomb_that_lies() -> bytes:
    """Return an archive whose deflated member is larger than both its headers say."""
    packed = zlib.compressobj(9, zlib.DEFLATED, -15)
    body = packed.compress(bytes(32 * 1024 * 1024)) + packed.flush()
    data = zipped({"entries.jsonl": b"{}" * 1000}, compression=zipfile.ZIP_DEFLATED)
    opened = zipfile.ZipFile(io.BytesIO(data)).getinfo("entries.jsonl")
    start = opened.header_offset + 30 + len("entries.jsonl")
    grown = bytearray(data[:start] + body + data[start + opened.compress_size :])
    more = len(body) - opened.compress_size
    struct.pack_into("<L", grown, 18, len(body))
    first = grown.index(b"PK\x01\x02", start + len(body))
    struct.pack_into("<L", grown, first + 20, len(body))
    second = grown.index(b"PK\x01\x02", first + 4)
    struct.pack_into("<L", grown, second + 42, struct.unpack_from("<L", grown, second + 42)[0] + more)
    end = grown.index(b"PK\x05\x06")
    struct.pack_into("<L", grown, end + 16, struct.unpack_from("<L", grown, end + 16)[0] + more)
    return bytes(grown)


def damaged() -> bytes:
    """Return an archive with one bit of a file turned over, its checksum mended."""
    data = bytearray(zipped({f"files/{DIGEST}": HELLO}))
    place = data.index(HELLO)
    old = zlib.crc32(HELLO)
    data[place] ^= 1
    crc = zlib.crc32(bytes(data[place : place + len(HELLO)]))
    return bytes(data).replace(struct.pack("<L", old), struct.pack("<L", crc))


HOSTILE: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty": (lambda: b"", "archive_invalid"),
    "text": (lambda: b"no archive" * 1000, "archive_invalid"),
    "end alone": (lambda: b"PK\x05\x06", "archive_invalid"),
    "cut short": (lambda: sound()[:-30], "archive_invalid"),
    "cut in the middle": (lambda: sound()[:300], "archive_invalid"),
    "claims many members": (lambda: b"PK\x05\x06" + struct.pack("<4H2LH", 0, 0, 5, 5, 2**31, 0, 0), "archive_too_large"),
    "parent folder": (lambda: zipped({"../entries.jsonl": b"{}"}), "archive_name_refused"),
    "absolute": (lambda: zipped({"/etc/passwd": b"x"}), "archive_name_refused"),
    "drive": (lambda: zipped({"C:/x": b"x"}), "archive_name_refused"),
    "backslash": (lambda: zipped({"files\\..\\x": b"x"}), "archive_name_refused"),
    "below a file": (lambda: zipped({f"files/{DIGEST}/../../x": b"x"}), "archive_name_refused"),
    "unknown member": (lambda: zipped({"run.py": b"x"}), "archive_name_refused"),
    "line break": (lambda: zipped({"entries.jsonl\n": b"x"}), "archive_name_refused"),
    "folder": (lambda: zipped({"files/": b""}), "archive_name_refused"),
    "link": (lambda: zipped({"entries.jsonl": b"/etc/passwd"}, change=link), "archive_link_refused"),
    "twice": (twice, "archive_duplicate"),
    "encrypted": (encrypted, "archive_encrypted"),
    "bzip2": (lambda: zipped({"entries.jsonl": b"{}"}, compression=zipfile.ZIP_BZIP2), "archive_compression_refused"),
    "lzma": (lambda: zipped({"entries.jsonl": b"{}"}, compression=zipfile.ZIP_LZMA), "archive_compression_refused"),
    "bomb": (bomb, "archive_bomb"),
    "bomb that lies": (bomb_that_lies, "archive_damaged"),
    "other name inside": (renamed_inside, "archive_headers_disagree"),
    "other size inside": (size_inside, "archive_headers_disagree"),
    "overlapping": (overlapping, "archive_headers_disagree"),
    "no manifest": (lambda: b"".join(_without_manifest()), "manifest_missing"),
    "manifest is text": (lambda: zipped({}, manifest=b"hello"), "manifest_invalid"),
    "manifest is deep": (lambda: zipped({}, manifest=b"[" * 100_000), "manifest_invalid"),
    "manifest lacks fields": (lambda: zipped({}, manifest=b'{"schema_version": 1}'), "manifest_invalid"),
    "manifest of another program": (lambda: zipped({}, manifest=manifest_of({}, product="other")), "manifest_invalid"),
    "newer": (lambda: zipped({}, manifest=manifest_of({}, schema_version=999, new="x")), "archive_newer"),
    "unlisted": (lambda: zipped({"entries.jsonl": b"{}"}, manifest=manifest_of({})), "archive_incomplete"),
    "missing": (lambda: zipped({}, manifest=manifest_of({"entries.jsonl": b"{}"})), "archive_incomplete"),
    "listed with another hash": (
        lambda: zipped({"entries.jsonl": b"{}"}, manifest=manifest_of({"entries.jsonl": b"[]"})), "archive_damaged",
    ),
    "named after another hash": (lambda: zipped({f"files/{'0' * 64}": b"x"}), "manifest_invalid"),
    "damaged": (damaged, "archive_damaged"),
}  # fmt: skip


def _without_manifest() -> list[bytes]:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("entries.jsonl", b"{}")
    return [file.getvalue()]


@pytest.mark.parametrize(("make", "code"), HOSTILE.values(), ids=HOSTILE)
def test_hostile_archive_is_refused(make: Callable[[], bytes], code: str) -> None:
    """With its own code, by what opens an archive or by what checks the hashes."""
    data = make()
    with pytest.raises(ArchiveRefused) as refused:
        open_archive(io.BytesIO(data), MOST).verify()
    assert refused.value.code == code, refused.value


def test_bomb_is_not_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    """What claims too much, or grows too much, is refused before a byte of it is read."""
    monkeypatch.setattr(reading, "_stream", None)
    for data, most in ((bomb(), MOST), (sound(), 10)):
        with pytest.raises(ArchiveRefused):
            open_archive(io.BytesIO(data), most)


def test_archive_with_too_much_is_refused() -> None:
    """The limit is on what it unpacks to."""
    with pytest.raises(ArchiveRefused) as refused:
        open_archive(io.BytesIO(sound()), 10)
    assert refused.value.code == "archive_too_large"


def test_every_cut_of_an_archive_is_refused() -> None:
    """However much of it arrived."""
    data = sound()
    open_archive(io.BytesIO(data), MOST).verify()
    for length in range(len(data)):
        with pytest.raises(ArchiveRefused):
            open_archive(io.BytesIO(data[:length]), MOST)


def test_every_flipped_byte_is_noticed_or_harmless() -> None:
    """No damage makes the reader fail in another way, and what passes has the same content."""
    data = sound()
    for place in range(len(data)):
        changed = bytearray(data)
        changed[place] ^= 0xFF
        try:
            archive = open_archive(io.BytesIO(bytes(changed)), MOST)
            archive.verify()
        except ArchiveRefused:
            continue
        assert b"".join(archive.stream(f"files/{DIGEST}")) == HELLO


def test_deflated_archive_is_read() -> None:
    """As other programs pack it again."""
    members = {"entries.jsonl": b'{"a": 1}\n' * 100}
    archive = open_archive(io.BytesIO(zipped(members, compression=zipfile.ZIP_DEFLATED)), MOST)
    archive.verify()
    assert list(archive.rows("entries.jsonl")) == [{"a": 1}] * 100


def test_writing_holds_only_the_chunk_on_its_way() -> None:
    """A member of 64 MiB passes in chunks, and what was taken is let go."""
    chunk = bytes(1024 * 1024)

    def chunks() -> Iterator[bytes]:
        for _ in range(64):
            yield chunk

    written = write_archive([Member("entries.jsonl", chunks)], About("export", "include", 0, 0))
    taken = [len(part) for part in written]
    assert max(taken) < 2 * len(chunk)
    assert sum(taken) > 64 * len(chunk)
