"""Keep the table of models equal to the folders: look through them, open what is new or has changed, write down what came of it.

Connections are in autocommit mode.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple
from uuid import UUID

from psycopg import Connection

from infra.advisory_locks import MODEL_SCAN
from models_registry.entries import ModelRef
from models_registry.reading.bounded_files import Reads
from models_registry.refusals import FileUnreadable, ModelRefused, NameTaken, TakenOut
from models_registry.scanning.examining import Examined, examine
from models_registry.scanning.known_places import Place, Places, read_places, write_places
from models_registry.scanning.places import places
from models_registry.scanning.reconciling import Outcome, reconcile

_LOCK: Final = f"SELECT pg_advisory_xact_lock({MODEL_SCAN})"


class Refusal(NamedTuple):
    """Say why one path is not offered as a model."""

    path: Path
    code: str
    reason: str


@dataclass(frozen=True)
class ScanReport:
    """Say what a scan saw; by kind and name, refusals with the file at fault."""

    found: tuple[ModelRef, ...]
    added: tuple[ModelRef, ...]
    changed: tuple[ModelRef, ...]
    missing: tuple[ModelRef, ...]
    refused: tuple[Refusal, ...]


class Progress(NamedTuple):
    """Say how far a scan is."""

    #: Files and folders that may be models.
    seen: int
    #: Those that were opened, because they are new or have changed.
    opened: int
    place: Path


def scan(
    conn: "Connection[Any]",
    folders: Sequence[Path],
    reads: Reads | None = None,
    *,
    progress: Callable[[Progress], None] | None = None,
    again: bool = False,
) -> ScanReport:
    """Look through the folders, then bring the table up to date in one transaction.

    What lies where it lay, with the same size and time, is not opened; with `again` everything is, also what people took out of the
    library. `reads` counts what was read.
    """
    # Not resolved: a link has the name that its maker wants the model to have.
    roots = [Path(os.path.abspath(folder)) for folder in folders]  # noqa: PTH100
    known = read_places(conn, roots)
    look = _Look(roots, Places({}) if again else known, reads or Reads(), progress)
    look.run()
    with conn.transaction():
        conn.execute(_LOCK)
        outcome = reconcile(conn, look.seen, look.unchanged, roots)
        write_places(conn, look.found(outcome), known.known.keys() - look.everywhere)
    refused = [*look.refused.values(), *outcome.refused]
    return ScanReport(
        found=tuple(sorted(outcome.found)),
        added=tuple(sorted(outcome.added)),
        changed=tuple(sorted(outcome.changed)),
        missing=tuple(sorted(outcome.missing)),
        refused=tuple(sorted(Refusal(refusal.path, refusal.code, refusal.reason) for refusal in refused)),
    )


class _Look:
    """One walk through the folders; it touches no table."""

    def __init__(
        self, roots: Sequence[Path], known: Places, reads: Reads, progress: Callable[[Progress], None] | None
    ) -> None:
        self._roots = roots
        self._real = [root.resolve() for root in roots]
        self._known = known
        self._reads = reads
        self._progress = progress
        self._opened = 0
        self.everywhere: set[Path] = set()
        self.seen: dict[Path, Examined] = {}
        self.unchanged: dict[Path, UUID] = {}
        #: By the place that was refused.
        self.refused: dict[Path, ModelRefused] = {}

    def run(self) -> None:
        """Look at everything once."""
        for root in self._roots:
            try:
                for place in places(root, self._reads, lambda path: self._known.unchanged(path) is not None):
                    if isinstance(place, ModelRefused):
                        self.refused[place.path] = place
                    elif place not in self.everywhere:
                        self.everywhere.add(place)
                        self._look_at(place)
                        if self._progress is not None:
                            self._progress(Progress(len(self.everywhere), self._opened, place))
            except OSError as error:
                self.refused[root] = FileUnreadable(
                    root, f"cannot be looked through: {error.strerror}: {error.filename}"
                )

    def found(self, outcome: Outcome) -> dict[Path, Place]:
        """Return what was found at each place that was looked into, so that it need not be again."""
        found = {path: Place(self._known.stamp(path), model) for path, model in outcome.at.items()}
        for path, refusal in self.refused.items():
            # Whether a name is taken depends on others, and what cannot be read may be another time.
            if path in self.everywhere and not isinstance(refusal, (NameTaken, FileUnreadable, TakenOut)):
                stamp = self._known.stamp(path)
                found[path] = Place(stamp, None, refusal.path, refusal.code, refusal.reason)
        return found

    def _look_at(self, place: Path) -> None:
        before = self._known.unchanged(place)
        if before is not None:
            self._take_over(place, before)
            return
        self._opened += 1
        try:
            self.seen[place] = examine(place, self._real, self._reads, whole=False)
        except ModelRefused as refusal:
            self.refused[place] = refusal
        except OSError as error:
            self.refused[place] = FileUnreadable(place, f"cannot be read: {error.strerror}: {error.filename}")

    def _take_over(self, place: Path, before: Place) -> None:
        if before.model is not None:
            self.unchanged[place] = before.model
        elif before.code is None:
            self.refused[place] = TakenOut(place, "was taken out of the library; scan again in full to offer it anew")
        else:
            self.refused[place] = ModelRefused.known(before.code, before.refused_path or place, before.reason or "")
