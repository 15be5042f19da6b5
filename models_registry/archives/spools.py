"""Rows on their way into an archive: read in one short transaction, kept on the disk until the archive gets to them."""

import contextlib
import tempfile
from collections.abc import Iterable, Iterator
from typing import IO, Any, Final, Self

from pydantic_core import to_json

from models_registry.archives.writing import Member

_CHUNK: Final = 1024 * 1024
#: Less than this is kept in memory.
_IN_MEMORY: Final = 1024 * 1024


class Spool:
    """One member of JSON lines, on the disk while it is large."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.rows = 0
        self.bytes = 0
        # Closed by `close`: it outlives this function.
        self._file: IO[bytes] = tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY)  # noqa: SIM115

    def add(self, row: Any) -> None:
        """Append a row."""
        line = to_json(row) + b"\n"
        self._file.write(line)
        self.rows += 1
        self.bytes += len(line)

    def extend(self, rows: Iterable[Any]) -> Self:
        """Append rows, and return the spool."""
        for row in rows:
            self.add(row)
        return self

    @property
    def member(self) -> Member:
        """Return it as a member of an archive."""
        return Member(self.name, self._chunks)

    def close(self) -> None:
        """Remove the file."""
        with contextlib.suppress(OSError):
            self._file.close()

    def _chunks(self) -> Iterator[bytes]:
        self._file.seek(0)
        while chunk := self._file.read(_CHUNK):
            yield chunk
