"""Previews in archives: pictures by their first bytes, small, and as large as they say."""

from collections.abc import Collection, Iterable
from typing import Final, Protocol

from infra.storage import Storage
from models_registry.archives.manifest import preview_member
from models_registry.archives.reading import Archive
from models_registry.archives.refusals import RowInvalid
from models_registry.preview_bytes import preview_key

MOST_BYTES: Final = 16 * 1024 * 1024
_LONGEST_SIDE: Final = 16_384
#: How files of each type begin.
_BEGINNINGS: Final = {"image/png": b"\x89PNG\r\n\x1a\n", "image/jpeg": b"\xff\xd8\xff", "image/webp": b"RIFF"}


class Shown(Protocol):
    """What a row says of a preview."""

    @property
    def sha256(self) -> str:
        """Its content."""

    @property
    def mime(self) -> str:
        """Its type."""

    @property
    def width(self) -> int:
        """Pixels."""

    @property
    def height(self) -> int:
        """Pixels."""


def check_previews(archive: Archive, shown: Iterable[Shown]) -> None:
    """Raise `RowInvalid` for the first preview that is no picture of the type it claims; one that is not in the archive is let be."""
    for preview in shown:
        name = preview_member(preview.sha256)
        beginning = _BEGINNINGS.get(preview.mime)
        sides = (preview.width, preview.height)
        if beginning is None or not all(0 < side <= _LONGEST_SIDE for side in sides):
            raise RowInvalid(f"A preview is {preview.mime[:100]} of {sides[0]} x {sides[1]}: no picture we show", name)
        if not archive.has(name):
            continue
        if archive.zip.getinfo(name).file_size > MOST_BYTES:
            raise RowInvalid(f"A preview is larger than {MOST_BYTES} bytes", name)
        if not next(archive.stream(name), b"").startswith(beginning):
            raise RowInvalid(f"A preview is not the {preview.mime} it claims to be", name)


def put_previews(archive: Archive, storage: Storage, previews: Collection[str]) -> None:
    """Store the bytes of previews, where they are not stored already."""
    for sha256 in sorted(previews):
        storage.put(preview_key(sha256), b"".join(archive.stream(preview_member(sha256))))
