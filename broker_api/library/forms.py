"""Read a form with one large file in it: the file goes to the disk as it comes, the fields stay small."""

import asyncio
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, Final

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from broker_api.library.pull_refusals import DiskFull, FileTooLarge, FormInvalid
from broker_api.refusals import MediaTypeUnsupported
from models_registry.pulls import failures
from models_registry.pulls.fetching import Room

FORM: Final = "multipart/form-data"
_FIELD: Final = "file"
LONGEST_FIELD: Final = 64 * 1024
MOST_FIELDS: Final = 60
LONGEST_HEADERS: Final = 16 * 1024
#: Bytes written at once, off the event loop.
_FLUSH: Final = 1024 * 1024
_ROOM_EVERY: Final = 64 * 1024 * 1024


class FileForm:
    """What a form held: fields by name in their order, and the file's facts once it came."""

    def __init__(self) -> None:
        self.fields: dict[str, list[str]] = {}
        self.filename: str | None = None
        self.bytes = 0
        self.sha256 = ""


class _Parts:
    """Sort the parser's callbacks into fields and bytes of the file; nothing here waits for the disk."""

    def __init__(self, form: FileForm) -> None:
        self._form = form
        self._header = bytearray()
        self._value = bytearray()
        self._headers = 0
        self._disposition = b""
        self._name = ""
        self._text: bytearray | None = None
        self._fields = 0
        #: Bytes of the file that are still to be written.
        self.waiting = bytearray()
        self.is_over = False

    def callbacks(self) -> Any:
        """Return what the parser calls."""
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._into(self._header),
            "on_header_value": self._into(self._value),
            "on_header_end": self._end_header,
            "on_headers_finished": self._end_headers,
            "on_part_data": self._take,
            "on_part_end": self._end,
            "on_end": self._finish,
        }

    def _begin(self) -> None:
        self._disposition, self._headers = b"", 0

    def _into(self, target: bytearray) -> Callable[[bytes, int, int], None]:
        def take(data: bytes, start: int, end: int) -> None:
            self._headers += end - start
            if self._headers > LONGEST_HEADERS:
                raise FormInvalid("A part of the form has headers without end.")
            target.extend(data[start:end])

        return take

    def _end_header(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = bytes(self._value)
        self._header.clear()
        self._value.clear()

    def _end_headers(self) -> None:
        _, options = parse_options_header(self._disposition)
        name = options.get(b"name")
        if name is None:
            raise FormInvalid("A part of the form has no name.")
        self._name = name.decode("utf-8", "replace")
        self._fields += 1
        if self._fields > MOST_FIELDS:
            raise FormInvalid(f"The form has more than {MOST_FIELDS} parts.")
        if b"filename" not in options:
            self._text = bytearray()
            return
        if self._name != _FIELD or self._form.filename is not None:
            raise FormInvalid(f"The form may hold one file, in the field `{_FIELD}`.", field=self._name[:100])
        self._text = None
        self._form.filename = options[b"filename"].decode("utf-8", "replace")

    def _take(self, data: bytes, start: int, end: int) -> None:
        if self._text is None:
            self.waiting += data[start:end]
            return
        if len(self._text) + end - start > LONGEST_FIELD:
            raise FormInvalid(f"The field is longer than {LONGEST_FIELD} bytes.", field=self._name[:100])
        self._text += data[start:end]

    def _end(self) -> None:
        if self._text is not None:
            self._form.fields.setdefault(self._name, []).append(self._text.decode("utf-8", "replace"))

    def _finish(self) -> None:
        self.is_over = True


async def read_file_form(request: Request, place: Path, room: Room) -> FileForm:
    """Write the file of a form to `place`, which must not exist, and return what else the form holds; hashed as it comes."""
    media_type, options = parse_options_header(request.headers.get("content-type", ""))
    if media_type.lower() != FORM.encode():
        raise MediaTypeUnsupported(f"Send a form ({FORM}).", field="Content-Type")
    boundary = options.get(b"boundary", b"")
    form = FileForm()
    parts = _Parts(form)
    try:
        parser = MultipartParser(boundary, parts.callbacks())
    except FormParserError as problem:
        raise FormInvalid(f"The form cannot be read: {problem}.") from None
    digest = hashlib.sha256()
    looked = 0
    await asyncio.to_thread(check_room, room, place.parent, _announced(request))
    with await asyncio.to_thread(place.open, "xb") as file:
        async for chunk in request.stream():
            try:
                parser.write(chunk)
            except FormParserError as problem:
                raise FormInvalid(f"The form cannot be read: {problem}.") from None
            if len(parts.waiting) >= _FLUSH:
                form.bytes += await _write(file, parts, digest)
                if form.bytes > room.most_bytes:
                    raise FileTooLarge(f"The file has more than {room.most_bytes} bytes.", field=_FIELD)
                if form.bytes - looked >= _ROOM_EVERY:
                    await asyncio.to_thread(check_room, room, place.parent, 0)
                    looked = form.bytes
        form.bytes += await _write(file, parts, digest)
    if not parts.is_over:
        raise FormInvalid("The form ends too early.")
    if form.bytes > room.most_bytes:
        raise FileTooLarge(f"The file has more than {room.most_bytes} bytes.", field=_FIELD)
    form.sha256 = digest.hexdigest()
    return form


def check_room(room: Room, folder: Path, more: int) -> None:
    """Refuse what would leave too little room on the disk."""
    try:
        room.check(folder, more)
    except failures.DiskFull as problem:
        raise DiskFull(problem.message) from None


def _announced(request: Request) -> int:
    text = request.headers.get("content-length", "")
    return int(text) if text.isascii() and text.isdigit() else 0


async def _write(file: BinaryIO, parts: _Parts, digest: "hashlib._Hash") -> int:
    data, parts.waiting = parts.waiting, bytearray()

    def write() -> None:
        digest.update(data)
        file.write(data)

    await asyncio.to_thread(write)
    return len(data)
