"""Ask a fleet what of its models is missing, doubled or orphaned, and settle it; for admins."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from client.answers import understood
from client.connection import Connection
from client.views import Page, View

#: The most that one page may hold.
_PAGE = {"limit": "200"}


class MissingView(View):
    """An entry whose files are away or damaged."""

    id: UUID
    kind: str
    ref: str
    path: str
    missing_since: datetime | None
    damage: str | None


class EqualView(View):
    """One of several entries of one content."""

    id: UUID
    kind: str
    ref: str
    path: str


class DuplicateView(View):
    """A content that several entries have."""

    sha256: str
    bytes: int
    entries: list[EqualView]


class OrphanView(View):
    """Stored bytes that no entry has."""

    sha256: str
    bytes: int


class DeletedView(View):
    """Entries that were deleted."""

    deleted: list[UUID]


class RemovedView(View):
    """How many stored objects the keeper removes."""

    removed: int


class Shelves:
    """Look after the model folders and the stored bytes over one connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def missing(self) -> Page[MissingView]:
        """Return the first page of entries whose files are away or damaged."""
        return understood(Page[MissingView], self._connection.ask("GET", "/v1/library/missing", params=_PAGE).content)

    def duplicates(self) -> Page[DuplicateView]:
        """Return the first page of contents that several entries have."""
        return understood(
            Page[DuplicateView], self._connection.ask("GET", "/v1/library/duplicates", params=_PAGE).content
        )

    def orphans(self) -> Page[OrphanView]:
        """Return the first page of stored bytes that no entry has."""
        return understood(Page[OrphanView], self._connection.ask("GET", "/v1/library/orphans", params=_PAGE).content)

    def forget(self, entries: Sequence[UUID]) -> DeletedView:
        """Delete those of the entries that are missing and not in use."""
        body = {"ids": [str(each) for each in entries]}
        return understood(
            DeletedView, self._connection.ask("POST", "/v1/library/missing/forget", body=body, repeatable=True).content
        )

    def keep(self, entry: UUID | str) -> DeletedView:
        """Keep one of several equal entries; the others leave it their names."""
        body = {"id": str(entry)}
        return understood(
            DeletedView, self._connection.ask("POST", "/v1/library/duplicates/keep", body=body, repeatable=True).content
        )

    def remove_orphans(self) -> RemovedView:
        """Leave stored bytes that no entry has to the keeper."""
        return understood(RemovedView, self._connection.ask("POST", "/v1/library/orphans/remove").content)
