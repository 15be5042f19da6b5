"""The library over HTTP: entries are listed, shown, changed, marked and deleted, one or many at once."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal
from urllib.parse import quote

from client.answers import Answer, understood
from client.connection import Connection
from client.views import Page, View

#: The list of checkpoints, and that of everything else.
Shelf = Literal["models", "adapters"]


class Marks(View):
    """What the caller thinks of an entry."""

    favourite: bool = False
    rating: int | None = None
    active: bool = False
    position: int | None = None
    weight: float | None = None


class Uses(View):
    """What all jobs did with an entry."""

    uses: int = 0
    last_used_at: datetime | None = None
    typical_weight: float | None = None
    mean_seconds: float | None = None
    failure_share: float = 0.0


class EntryView(View):
    """One entry, whatever its kind."""

    #: In lists; a checkpoint that is read alone has its name here, and this in `entry_id`.
    id: str
    entry_id: str | None = None
    #: What a job names.
    ref: str
    name: str
    version: str
    kind: str
    family: str
    variant: str
    bytes: int
    owner: str | None
    visibility: str
    description: str
    licence: str
    source: str
    base_model: str
    tags: list[str]
    trigger_words: list[str]
    weight: float | None
    aliases: list[str]
    sha256: str | None
    marks: Marks
    usage: Uses = Uses()
    created_at: datetime
    updated_at: datetime
    missing_since: datetime | None


class TagCount(View):
    """One tag, and how many entries have it."""

    tag: str
    count: int


class Done(View):
    """What was done to many entries."""

    action: str
    ids: list[str]


class Library:
    """Speak of the entries of one shelf."""

    def __init__(self, connection: Connection, shelf: Shelf) -> None:
        self._connection = connection
        self._path = f"/v1/{shelf}"

    def page(self, **query: object) -> Page[EntryView]:
        """Return one page of entries; `query` is that of the list: `q`, `tag`, `kind`, `sort`, `limit`."""
        params = {name: _written(value) for name, value in query.items() if value is not None}
        return self._ask("GET", self._path, Page[EntryView], params=params)

    def entries(self, **query: object) -> Iterator[EntryView]:
        """Yield every entry that the query finds, page by page."""
        cursor: str | None = None
        while True:
            page = self.page(**{**query, "cursor": cursor})
            yield from page.items
            cursor = page.next_cursor
            if cursor is None:
                return

    def read(self, which: str) -> EntryView:
        """Return the entry of this id or name: `name@version`, `name` for the newest version, an alias."""
        return self._ask("GET", self._one(which), EntryView)

    def versions(self, which: str) -> Page[EntryView]:
        """Return all versions of one model, the newest first."""
        return self._ask("GET", f"{self._one(which)}/versions", Page[EntryView])

    def change(self, which: str, changes: Mapping[str, object]) -> EntryView:
        """Change what is said of an entry, and return it; what is left out stays."""
        return self._ask("PATCH", self._one(which), EntryView, body=dict(changes))

    def mark(self, which: str, **marks: object) -> Marks:
        """Set what the caller thinks of an entry: `favourite`, `rating`, `active`, `position`, `weight`."""
        return self._ask("PUT", f"{self._one(which)}/marks", Marks, body=marks)

    def delete(self, which: str) -> None:
        """Delete an entry that nobody needs any more."""
        self._connection.ask("DELETE", self._one(which), repeatable=False)

    def tags(self, **query: object) -> Page[TagCount]:
        """Return the adapters' tags, the most frequent first."""
        params = {name: _written(value) for name, value in query.items() if value is not None}
        return self._ask("GET", "/v1/adapters/tags", Page[TagCount], params=params)

    def bulk(
        self,
        action: str,
        *,
        ids: Sequence[str] | None = None,
        finding: Mapping[str, object] | None = None,
        tags: Sequence[str] = (),
    ) -> Done:
        """Do one thing to all of the entries, given by ids or by what finds them, or to none."""
        body: dict[str, object] = {"action": action, "tags": list(tags)}
        body |= {"ids": list(ids)} if ids is not None else {"filter": dict(finding or {})}
        return self._ask("POST", f"{self._path}/bulk", Done, body=body)

    def _one(self, which: str) -> str:
        return f"{self._path}/{quote(which, safe='')}"

    def _ask(self, method: str, path: str, kind: type[Answer], **asked: Any) -> Answer:
        repeatable = method == "GET"
        return understood(kind, self._connection.ask(method, path, repeatable=repeatable, **asked).content)


def _written(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
