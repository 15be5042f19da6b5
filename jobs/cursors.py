"""Cursors of lists: opaque, URL-safe, refused when they are not ours; pure."""

import base64
import binascii
from datetime import UTC, datetime, timedelta
from uuid import UUID

from jobs.errors import RequestRefused

_UUID_BYTES = 16
_INDEX_BYTES = 2
_MOMENT_BYTES = 8
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
#: Microseconds; the last moment that Python can name is later.
_LATEST = int((datetime(9000, 1, 1, tzinfo=UTC) - _EPOCH).total_seconds()) * 1_000_000


class CursorInvalid(RequestRefused):
    """The cursor is not one this list gave out."""

    code = "cursor_invalid"


def encode_cursor(last: UUID, index: int | None = None) -> str:
    """Return the cursor behind a job, or behind one of its pictures."""
    tail = b"" if index is None else index.to_bytes(_INDEX_BYTES, "big")
    return _text(last.bytes + tail)


def decode_cursor(cursor: str) -> UUID:
    """Return the job a cursor stands behind, raising `CursorInvalid`."""
    return UUID(bytes=_bytes(cursor, _UUID_BYTES))


def decode_picture_cursor(cursor: str) -> tuple[UUID, int]:
    """Return the picture a cursor stands behind, raising `CursorInvalid`."""
    found = _bytes(cursor, _UUID_BYTES + _INDEX_BYTES)
    return UUID(bytes=found[:_UUID_BYTES]), min(int.from_bytes(found[_UUID_BYTES:], "big"), 2**15 - 1)


def encode_moment_cursor(at: datetime, key: str) -> str:
    """Return the cursor behind what happened at a moment; the key tells apart what happened at the same."""
    microseconds = (at - _EPOCH) // timedelta(microseconds=1)
    return _text(microseconds.to_bytes(_MOMENT_BYTES, "big") + key.encode())


def decode_moment_cursor(cursor: str) -> tuple[datetime, str]:
    """Return the moment and the key a cursor stands behind, raising `CursorInvalid`."""
    found = _decoded(cursor)
    microseconds = int.from_bytes(found[:_MOMENT_BYTES], "big")
    try:
        key = found[_MOMENT_BYTES:].decode()
    except UnicodeDecodeError:
        raise _invalid() from None
    if not key or "\x00" in key or microseconds > _LATEST:
        raise _invalid()
    return _EPOCH + timedelta(microseconds=microseconds), key


def _bytes(cursor: str, length: int) -> bytes:
    found = _decoded(cursor)
    if len(found) != length:
        raise _invalid()
    return found


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _decoded(cursor: str) -> bytes:
    try:
        padded = cursor.encode("ascii") + b"=" * (-len(cursor) % 4)
        return base64.b64decode(padded, altchars=b"-_", validate=True)
    except (ValueError, binascii.Error):
        raise _invalid() from None


def _invalid() -> CursorInvalid:
    return CursorInvalid("The cursor is not one this list gave out.", field="cursor")
