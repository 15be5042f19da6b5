"""Read an archive that may be hostile: limits and agreement of all headers before a member is opened, hashes before one is used."""

import hashlib
import json
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, Final

from pydantic import ValidationError
from pydantic_core import from_json

from models_registry.archives.manifest import MANIFEST, MEMBER, SCHEMA, Manifest, digest_of
from models_registry.archives.refusals import (
    ArchiveDamaged,
    ArchiveIncomplete,
    ArchiveInvalid,
    ArchiveNewer,
    ArchiveTooLarge,
    CompressionRefused,
    HeadersDisagree,
    ManifestInvalid,
    ManifestMissing,
    MemberEncrypted,
    MemberNameRefused,
    MemberNotAFile,
    MemberTwice,
    RatioRefused,
    RowInvalid,
)

CHUNK: Final = 1024 * 1024
MOST_MEMBERS: Final = 200_000
MOST_DIRECTORY: Final = 64 * 1024 * 1024
MOST_MANIFEST: Final = 64 * 1024 * 1024
LONGEST_ROW: Final = 8 * 1024 * 1024
#: Members smaller than this may be as repetitive as they like.
RATIO_FROM: Final = 1024 * 1024
MOST_RATIO: Final = 100

_END: Final = b"PK\x05\x06"
_END_FORMAT: Final = "<4s4H2LH"
_END_SEARCHED: Final = 22 + 0xFFFF
_END64: Final = b"PK\x06\x06"
_LOCATOR64: Final = b"PK\x06\x07"
_LOCAL: Final = "<4s5H3L2H"
_LOCAL_SIZE: Final = 30
_ENCRYPTED: Final = 0x1
_SIZES_FOLLOW: Final = 0x8
_IN_EXTRA: Final = 0xFFFFFFFF
_NO_PERMISSIONS: Final = 0


@dataclass(frozen=True)
class Archive:
    """An archive whose directory, headers and manifest agree; what its members hold is checked by `verify`."""

    zip: zipfile.ZipFile
    manifest: Manifest

    def has(self, name: str) -> bool:
        """Tell whether there is a member of this name."""
        return name in self.zip.NameToInfo

    def stream(self, name: str) -> Iterator[bytes]:
        """Yield a member's bytes, raising `ArchiveDamaged` where they are not as the directory says."""
        return _stream(self.zip, name)

    def rows(self, name: str) -> Iterator[Any]:
        """Yield the values of a member that holds one JSON document a line, raising `RowInvalid`; none where there is no such member."""
        if not self.has(name):
            return
        rest = b""
        for chunk in self.stream(name):
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                yield _row(line, name)
            if len(rest) > LONGEST_ROW:
                raise RowInvalid(f"{name} has a line longer than {LONGEST_ROW} bytes", name)
        if rest:
            yield _row(rest, name)

    def verify(self) -> None:
        """Read every member once, raising `ArchiveDamaged` for the first whose bytes are not those that the manifest lists."""
        for listed in self.manifest.members:
            digest, size = hashlib.sha256(), 0
            for chunk in self.stream(listed.name):
                digest.update(chunk)
                size += len(chunk)
            if (size, digest.hexdigest()) != (listed.bytes, listed.sha256):
                raise ArchiveDamaged(f"{listed.name} has other bytes than the manifest lists", listed.name)


def open_archive(file: BinaryIO, most_bytes: int) -> Archive:
    """Return an archive that is sound as far as its headers and its manifest tell, raising an `ArchiveRefused`."""
    _check_directory(file)
    try:
        opened = zipfile.ZipFile(file)
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, struct.error, IndexError) as problem:
        raise ArchiveInvalid(f"The file is no ZIP archive: {problem}") from None
    infos = opened.infolist()
    names: set[str] = set()
    for info in infos:
        _check_member(info)
        if info.filename in names:
            raise MemberTwice(f"Two members are named {info.filename}", info.filename)
        names.add(info.filename)
    total = sum(info.file_size for info in infos)
    if total > most_bytes:
        raise ArchiveTooLarge(f"The members have {total} bytes; at most {most_bytes} are taken")
    _check_headers(file, infos, opened.start_dir)
    if MANIFEST not in names:
        raise ManifestMissing(f"The archive has no {MANIFEST}")
    manifest = _manifest(opened)
    listed = [member.name for member in manifest.members]
    if len(set(listed)) != len(listed) or set(listed) != names - {MANIFEST}:
        odd = sorted(set(listed) ^ (names - {MANIFEST}))
        raise ArchiveIncomplete(f"The members are not those that {MANIFEST} lists: {', '.join(odd[:5])}")
    for member in manifest.members:
        if digest_of(member.name) not in {None, member.sha256}:
            raise ManifestInvalid(f"{member.name} is listed with another hash than its name", member.name)
    return Archive(opened, manifest)


def _check_directory(file: BinaryIO) -> None:
    """Refuse a directory that is too large before anything reads it."""
    size = file.seek(0, 2)
    file.seek(max(0, size - _END_SEARCHED - 76))
    tail = file.read()
    place = tail.rfind(_END)
    if place < 0 or len(tail) - place < struct.calcsize(_END_FORMAT):
        raise ArchiveInvalid("The file is no ZIP archive: it has no directory")
    _, _, _, _, count, length, _, _ = struct.unpack_from(_END_FORMAT, tail, place)
    locator = place - 20
    if locator >= 0 and tail[locator : locator + 4] == _LOCATOR64:
        (offset,) = struct.unpack_from("<Q", tail, locator + 8)
        file.seek(min(offset, size))
        record = file.read(56)
        if len(record) < 56 or not record.startswith(_END64):  # noqa: PLR2004 - the record's length
            raise ArchiveInvalid("The file is no ZIP archive: its large directory is not where it should be")
        count, length = struct.unpack_from("<QQ", record, 32)
    if count > MOST_MEMBERS or length > MOST_DIRECTORY:
        raise ArchiveTooLarge(f"The archive has {count} members; at most {MOST_MEMBERS} are taken")
    file.seek(0)


def _check_member(info: zipfile.ZipInfo) -> None:
    name = info.orig_filename
    if name != info.filename or not MEMBER.fullmatch(name):
        raise MemberNameRefused(f"A member is named {name[:200]!r}, as none of ours is", name[:200])
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind not in {_NO_PERMISSIONS, stat.S_IFREG} or info.is_dir():
        raise MemberNotAFile(f"{name} is no regular file", name)
    if info.flag_bits & _ENCRYPTED:
        raise MemberEncrypted(f"{name} is encrypted", name)
    if info.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
        raise CompressionRefused(
            f"{name} is compressed in a way that is not read: use stored or deflated members", name
        )
    if info.compress_type == zipfile.ZIP_STORED and info.file_size != info.compress_size:
        raise HeadersDisagree(f"{name} is stored, and yet has two sizes", name)
    if info.file_size > RATIO_FROM and info.file_size > MOST_RATIO * max(info.compress_size, 1):
        raise RatioRefused(f"{name} would grow to {info.file_size} bytes from {info.compress_size}", name)


def _check_headers(file: BinaryIO, infos: list[zipfile.ZipInfo], end: int) -> None:
    """Refuse members whose own headers say something else than the directory, and such as share bytes."""
    ordered = sorted(infos, key=lambda info: info.header_offset)
    for place, info in enumerate(ordered):
        name = info.filename
        # A directory that lies elsewhere than it says moves every member with it.
        file.seek(max(info.header_offset, 0))
        head = file.read(_LOCAL_SIZE)
        if info.header_offset < 0 or len(head) < _LOCAL_SIZE or not head.startswith(b"PK\x03\x04"):
            raise HeadersDisagree(f"{name} is not where the directory says", name)
        _, _, flags, method, _, _, _, packed, size, name_length, extra = struct.unpack(_LOCAL, head)
        own = file.read(name_length)
        sizes = {(packed, size), (info.compress_size, info.file_size)}
        untold = bool(flags & _SIZES_FOLLOW) or _IN_EXTRA in {packed, size}
        if own != name.encode() or method != info.compress_type or (len(sizes) > 1 and not untold):
            raise HeadersDisagree(f"{name} says something else of itself than the directory says", name)
        following = ordered[place + 1].header_offset if place + 1 < len(ordered) else end
        if info.header_offset + _LOCAL_SIZE + name_length + extra + info.compress_size > following:
            raise HeadersDisagree(f"{name} overlaps what follows it", name)


def _manifest(opened: zipfile.ZipFile) -> Manifest:
    if opened.getinfo(MANIFEST).file_size > MOST_MANIFEST:
        raise ManifestInvalid(f"{MANIFEST} is larger than {MOST_MANIFEST} bytes", MANIFEST)
    data = b"".join(_stream(opened, MANIFEST))
    try:
        found = json.loads(data)
        newer = (
            isinstance(found, dict)
            and isinstance(found.get("schema_version"), int)
            and found["schema_version"] > SCHEMA
        )
    except (ValueError, RecursionError):
        raise ManifestInvalid(f"{MANIFEST} is no JSON", MANIFEST) from None
    if newer:
        raise ArchiveNewer("The archive was made by a newer version of this program", MANIFEST)
    try:
        return Manifest.model_validate_json(data)
    except ValidationError as problem:
        first = problem.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise ManifestInvalid(f"{MANIFEST} cannot be understood: {where}: {first['msg']}", MANIFEST) from None


def _stream(opened: zipfile.ZipFile, name: str) -> Iterator[bytes]:
    try:
        with opened.open(name) as member:
            while chunk := member.read(CHUNK):
                yield chunk
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError) as problem:
        raise ArchiveDamaged(f"{name} cannot be read: {problem}", name) from None


def _row(line: bytes, name: str) -> Any:
    # NUL is JSON, but nothing that the database keeps.
    if b"\\u0000" in line:
        raise RowInvalid(f"{name} has a line with the character NUL", name)
    try:
        return from_json(line, allow_inf_nan=False)
    except ValueError:
        raise RowInvalid(f"{name} has a line that is no JSON", name) from None
