"""Fetch one file, going on from the byte it has: by range where the server still has the same bytes, from the start where it has not.

Beside a part lies a note of what its bytes belong to. Where the source promises a hash, a part is gone on with whatever the server says of
its copy, and the hash decides at the end; where it does not, only the server's own validator lets a part be gone on with.
"""

import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Final, NamedTuple

import httpx

from models_registry.pulls.failures import (
    AnswerInvalid,
    DiskFull,
    HashMismatch,
    SourceAway,
    SourceForbidden,
    TooLarge,
)
from models_registry.pulls.plans import WantedFile
from models_registry.pulls.web import Web

CHUNK: Final = 1024 * 1024
#: How many bytes are written between two looks at the room that is left.
_ROOM_EVERY: Final = 64 * 1024 * 1024
_RANGE: Final = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)", re.ASCII)
_NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
#: Called with the bytes of the file that are on the disk; raises to end the fetching.
Progress = Callable[[int], None]


@dataclass(frozen=True)
class Room:
    """How much may be taken."""

    #: Of one file.
    most_bytes: int
    #: What stays free on the disk.
    headroom: int

    def check(self, folder: Path, more: int) -> None:
        """Raise `DiskFull` unless so many more bytes leave the headroom free."""
        free = shutil.disk_usage(folder).free
        if free - more < self.headroom:
            raise DiskFull(
                f"{more} more bytes are needed, {free} are free, and {self.headroom} must stay free (IMAGEFLEET_DISK_HEADROOM_BYTES)."
            )


class _Digests:
    """Hash as git and everybody else do, in one pass."""

    def __init__(self, wanted: WantedFile) -> None:
        self.sha256 = hashlib.sha256()
        self._git = hashlib.sha1(f"blob {wanted.bytes}\0".encode(), usedforsecurity=False) if wanted.git_sha1 else None
        self._wanted = wanted

    def update(self, data: bytes) -> None:
        """Take more bytes."""
        self.sha256.update(data)
        if self._git is not None:
            self._git.update(data)

    def are_right(self) -> bool:
        """Tell whether the bytes are those that the source promises, if it promises any."""
        if self._wanted.sha256 is not None:
            return self.sha256.hexdigest() == self._wanted.sha256.lower()
        return self._git is None or self._git.hexdigest() == self._wanted.git_sha1


class _Answer(NamedTuple):
    """Where a body begins, and where the whole file ends if that is known."""

    start: int
    total: int | None
    validator: str | None


def fetch_file(web: Web, wanted: WantedFile, place: Path, room: Room, progress: Progress) -> str:
    """Fetch a file to `place` and return its SHA-256; raises a `PullError`, or what `progress` raises, and leaves the part to go on with.

    A part that turns out to be of other bytes is fetched once more from the start before `HashMismatch` is raised.
    """
    place.parent.mkdir(parents=True, exist_ok=True)
    if place.exists():
        return _known(wanted, place, progress)
    part = place.with_name(f"{place.name}.part")
    note = place.with_name(f"{place.name}.note")
    try:
        digests, resumed = _fill(web, wanted, part, note, room, progress)
        if resumed and not (digests and digests.are_right()):
            _discard(part, note)
            digests, _ = _fill(web, wanted, part, note, room, progress)
    except OSError as problem:
        if problem.errno in _NO_ROOM:
            raise DiskFull(f"The disk is full: {problem.strerror}.") from None
        raise
    if digests is None or not digests.are_right():
        _discard(part, note)
        if digests is None:
            raise AnswerInvalid(f"{wanted.name} cannot be fetched from its start.")
        raise HashMismatch(
            f"{wanted.name} arrived with the SHA-256 {digests.sha256.hexdigest()}, which is not what its source promises."
        )
    part.replace(place)
    note.unlink(missing_ok=True)
    return digests.sha256.hexdigest()


def _known(wanted: WantedFile, place: Path, progress: Progress) -> str:
    """Return the hash of a file that was fetched whole before."""
    digests = _Digests(wanted)
    size = 0
    for chunk in _chunks(place):
        digests.update(chunk)
        size += len(chunk)
    if not digests.are_right():
        place.unlink()
        raise SourceAway(f"{wanted.name} was damaged on the disk, and is fetched again.", 0.0)
    progress(size)
    return digests.sha256.hexdigest()


def _fill(
    web: Web, wanted: WantedFile, part: Path, note: Path, room: Room, progress: Progress
) -> tuple[_Digests | None, bool]:
    """Fetch what a part lacks; return what its bytes hash to, None where it is of another file, and whether some were there before."""
    validator = _read_note(note)
    had = part.stat().st_size if part.exists() else 0
    if had and validator is None and wanted.sha256 is None:
        had = 0
    if had and wanted.bytes is not None and had >= wanted.bytes:
        if had == wanted.bytes:
            # All was there before the process died; the hash decides.
            return _hashed(wanted, part), True
        had = 0
    headers = {"range": f"bytes={had}-"} if had else {}
    if had and validator is not None and wanted.sha256 is None:
        headers["if-range"] = validator
    with web.open(wanted.url, headers) as response:
        if response.status_code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            # All was there before the process died, or more than there is now.
            whole = response.headers.get("content-range", "").replace(" ", "") == f"bytes*/{had}"
            return (_hashed(wanted, part) if whole else None), had > 0
        answer = _understood(response, wanted, had)
        if answer.start and wanted.sha256 is None and answer.validator not in {None, validator}:
            return None, True
        _check_size(answer, wanted, part.parent, room)
        _write_note(note, answer.validator)
        digests = _hashed(wanted, part, answer.start)
        _append(response, answer, part, digests, room, progress)
    return digests, answer.start > 0


def _understood(response: httpx.Response, wanted: WantedFile, had: int) -> _Answer:
    encoding = response.headers.get("content-encoding", "identity").lower()
    if encoding not in {"", "identity"}:
        raise AnswerInvalid(f"{response.url.host} sends the file compressed, though it was asked not to.")
    if response.headers.get("content-type", "").partition(";")[0].strip().lower() == "text/html":
        raise SourceForbidden(f"{response.url.host} answers with a web page in place of the file; it may want a token.")
    validator = _validator(response)
    if response.status_code == HTTPStatus.OK:
        length = response.headers.get("content-length", "")
        return _Answer(0, int(length) if length.isascii() and length.isdigit() else wanted.bytes, validator)
    found = _RANGE.fullmatch(response.headers.get("content-range", ""))
    if found is None or int(found[1]) != had:
        raise AnswerInvalid(f"{response.url.host} sends another part of the file than was asked for.")
    return _Answer(had, None if found[3] == "*" else int(found[3]), validator)


def _validator(response: httpx.Response) -> str | None:
    """Return what `If-Range` takes: a strong ETag, else none; times are too coarse to tell two files apart."""
    tag: str = response.headers.get("etag", "")
    return tag if tag.startswith('"') and tag.endswith('"') and len(tag) > 2 else None  # noqa: PLR2004 - two quotes


def _check_size(answer: _Answer, wanted: WantedFile, folder: Path, room: Room) -> None:
    if answer.total is None:
        return
    if wanted.bytes is not None and answer.total != wanted.bytes:
        raise HashMismatch(f"{wanted.name} has {answer.total} bytes; its source promises {wanted.bytes}.")
    if answer.total > room.most_bytes:
        raise TooLarge(f"{wanted.name} has {answer.total} bytes; at most {room.most_bytes} are taken.")
    room.check(folder, answer.total - answer.start)


def _append(
    response: httpx.Response, answer: _Answer, part: Path, digests: _Digests, room: Room, progress: Progress
) -> None:
    size = answer.start
    looked = size
    with part.open("r+b" if answer.start else "wb") as file:
        file.seek(size)
        file.truncate()
        try:
            for chunk in response.iter_raw():
                file.write(chunk)
                # What this process holds back would be lost with it.
                file.flush()
                digests.update(chunk)
                size += len(chunk)
                if size > room.most_bytes or (answer.total is not None and size > answer.total):
                    raise TooLarge(f"The file goes on after {size} bytes.")
                if size - looked >= _ROOM_EVERY:
                    room.check(part.parent, 0)
                    looked = size
                progress(size)
        finally:
            file.flush()
            os.fsync(file.fileno())
    if answer.total is not None and size < answer.total:
        raise SourceAway(f"{response.url.host} broke off after {size} of {answer.total} bytes.")


def _hashed(wanted: WantedFile, part: Path, most: int | None = None) -> _Digests:
    digests = _Digests(wanted)
    left = part.stat().st_size if most is None else most
    if left:
        for chunk in _chunks(part):
            digests.update(chunk[:left])
            left -= len(chunk)
            if left <= 0:
                break
    return digests


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            yield chunk


def _read_note(note: Path) -> str | None:
    try:
        found = json.loads(note.read_text(encoding="utf-8")).get("etag")
    except (OSError, ValueError, AttributeError):
        return None
    return found if isinstance(found, str) else None


def _write_note(note: Path, validator: str | None) -> None:
    note.write_text(json.dumps({"etag": validator}), encoding="utf-8")


def _discard(*paths: Path) -> None:
    for path in paths:
        path.unlink(missing_ok=True)
