"""Cursors of lists: opaque, URL-safe, refused when they are not ours; pure."""

import base64
import binascii
from uuid import UUID

from jobs.errors import RequestRefused

_UUID_BYTES = 16
_INDEX_BYTES = 2


class CursorInvalid(RequestRefused):
    """The cursor is not one this list gave out."""

    code = "cursor_invalid"


def encode_cursor(last: UUID, index: int | None = None) -> str:
    """Return the cursor behind a job, or behind one of its pictures."""
    tail = b"" if index is None else index.to_bytes(_INDEX_BYTES, "big")
    return base64.urlsafe_b64encode(last.bytes + tail).decode().rstrip("=")


def decode_cursor(cursor: str) -> UUID:
    """Return the job a cursor stands behind, raising `CursorInvalid`."""
    return UUID(bytes=_bytes(cursor, _UUID_BYTES))


def decode_picture_cursor(cursor: str) -> tuple[UUID, int]:
    """Return the picture a cursor stands behind, raising `CursorInvalid`."""
    found = _bytes(cursor, _UUID_BYTES + _INDEX_BYTES)
    return UUID(bytes=found[:_UUID_BYTES]), min(int.from_bytes(found[_UUID_BYTES:], "big"), 2**15 - 1)


def _bytes(cursor: str, length: int) -> bytes:
    try:
        padded = cursor.encode("ascii") + b"=" * (-len(cursor) % 4)
        found = base64.b64decode(padded, altchars=b"-_", validate=True)
    except (ValueError, binascii.Error):
        found = b""
    if len(found) != length:
        raise CursorInvalid("The cursor is not one this list gave out.", field="cursor")
    return found
