"""Write a ZIP archive as a stream: nothing is held but the chunk on its way, and each member is hashed as it passes.

Members are stored, not compressed: weights do not shrink, and what is stored can be read from the middle. The manifest comes last.
"""

import hashlib
import io
import stat
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from models_registry.archives.manifest import MANIFEST, SCHEMA, Files, Manifest, MemberFacts, digest_of

_REGULAR: Final = (stat.S_IFREG | 0o600) << 16
#: What a member costs beside its bytes and twice its name: headers, sizes of 64 bits, its line in the manifest.
MEMBER_OVERHEAD: Final = 30 + 20 + 24 + 46 + 28 + 130


class SourceChanged(Exception):
    """What should be archived is not what was recorded any more."""


@dataclass(frozen=True)
class Member:
    """One member to write."""

    name: str
    chunks: Callable[[], Iterator[bytes]]


@dataclass(frozen=True)
class About:
    """What the manifest says of the whole."""

    kind: str
    files: Files
    entries: int
    recipes: int
    without_files: tuple[str, ...] = ()


class _Pipe(io.RawIOBase):
    """Take what `zipfile` writes, and hand it on."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        part = bytes(data)  # type: ignore[call-overload]
        self._parts.append(part)
        return len(part)

    def take(self) -> bytes:
        parts, self._parts = self._parts, []
        return b"".join(parts)


def write_archive(members: Iterable[Member], about: About) -> Iterator[bytes]:
    """Yield the archive; raise `SourceChanged` in the middle, so that what was written is no archive, when a source is not as recorded."""
    pipe = _Pipe()
    listed: list[MemberFacts] = []
    archive = zipfile.ZipFile(pipe, "w", zipfile.ZIP_STORED)
    for member in members:
        digest, size = hashlib.sha256(), 0
        with archive.open(_info(member.name), "w", force_zip64=True) as out:
            for chunk in member.chunks():
                digest.update(chunk)
                size += len(chunk)
                out.write(chunk)
                yield pipe.take()
        if digest_of(member.name) not in {None, digest.hexdigest()}:
            raise SourceChanged(f"{member.name} has other bytes than were recorded")
        listed.append(MemberFacts(name=member.name, bytes=size, sha256=digest.hexdigest()))
        yield pipe.take()
    manifest = Manifest.model_validate(
        {**about.__dict__, "schema_version": SCHEMA, "made_at": datetime.now(UTC), "members": listed}
    )
    with archive.open(_info(MANIFEST), "w", force_zip64=True) as out:
        out.write(manifest.model_dump_json(indent=1).encode())
    # Not in a `with`: an archive that was cut short must not get a directory, which would make it look whole.
    archive.close()
    yield pipe.take()


def _info(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = _REGULAR
    return info
