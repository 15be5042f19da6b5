"""Remember what lies at each path, so that a scan opens only what is new or has changed."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple
from uuid import UUID

from psycopg import Connection
from psycopg.rows import tuple_row

from models_registry.scanning.stamps import stamp_of

_READ: Final = """
select path, stamp, model, refused_path, code, reason from model_places
where exists (select from unnest(%(roots)s::text[]) root where path = root or starts_with(path, rtrim(root, '/') || '/'))
"""
_WRITE: Final = """
insert into model_places (path, stamp, model, refused_path, code, reason)
select * from unnest(%(paths)s::text[], %(stamps)s::text[], %(models)s::uuid[], %(refused)s::text[], %(codes)s::text[], %(reasons)s::text[])
on conflict (path) do update set stamp = excluded.stamp, model = excluded.model, refused_path = excluded.refused_path,
    code = excluded.code, reason = excluded.reason
"""
_FORGET: Final = "delete from model_places where path = any (%(paths)s)"


class Place(NamedTuple):
    """What was found at one path, and what its files were then."""

    stamp: str
    #: None for what was refused (`code`), or taken from the library by people (no `code`).
    model: UUID | None
    refused_path: Path | None = None
    code: str | None = None
    reason: str | None = None


class Places:
    """What was found at the paths below some folders, compared with what lies there now; each path is looked at once."""

    def __init__(self, known: Mapping[Path, Place]) -> None:
        self.known = known
        self._stamps: dict[Path, str] = {}

    def stamp(self, path: Path) -> str:
        """Return the stamp of what lies at a path."""
        if path not in self._stamps:
            self._stamps[path] = stamp_of(path)
        return self._stamps[path]

    def unchanged(self, path: Path) -> Place | None:
        """Return what was found at a path, unless something about it has changed since."""
        place = self.known.get(path)
        return place if place is not None and place.stamp == self.stamp(path) else None


def read_places(connection: "Connection[Any]", roots: Sequence[Path]) -> Places:
    """Read what is known of everything below some folders, in one statement."""
    with connection.cursor(row_factory=tuple_row) as cursor:
        rows = cursor.execute(_READ, {"roots": _texts(roots)}).fetchall()
    return Places(
        {
            Path(path): Place(stamp, model, None if refused is None else Path(refused), code, reason)
            for path, stamp, model, refused, code, reason in rows
        }
    )


def write_places(connection: "Connection[Any]", found: Mapping[Path, Place], gone: Iterable[Path]) -> None:
    """Record what was found, and forget paths where nothing is any more."""
    # Postgres cannot hold other paths; what lies there is refused for them, without a look.
    kept = {path: place for path, place in found.items() if _texts([path, place.refused_path or path])[1:]}
    if kept:
        values = {
            "paths": [str(path) for path in kept],
            "stamps": [place.stamp for place in kept.values()],
            "models": [place.model for place in kept.values()],
            "refused": [None if place.refused_path is None else str(place.refused_path) for place in kept.values()],
            "codes": [place.code for place in kept.values()],
            "reasons": [place.reason for place in kept.values()],
        }
        connection.execute(_WRITE, values)
    connection.execute(_FORGET, {"paths": _texts(gone)})


def _texts(paths: Iterable[Path]) -> list[str]:
    """Return those of the paths that are printable."""
    return [str(path) for path in paths if str(path).isprintable()]
