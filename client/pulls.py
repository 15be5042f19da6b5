"""Let a fleet fetch models, follow how it does, and have what is there looked up."""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar
from uuid import UUID

from client.answers import segment, understood
from client.connection import Connection
from client.errors import FleetUnreachable, Unavailable
from client.pull_views import ENDED, DownloadView, LookupView
from client.sse import frames
from client.views import Page

Followed = TypeVar("Followed", DownloadView, LookupView)
_PAUSE = 0.5


class Pulls:
    """Steer downloads and look-ups over one connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def start(self, source: str, **fields: Any) -> DownloadView:
        """Order a model from the hub, from CivitAI or from an address; `fields` are those of `POST /v1/downloads`."""
        body = {"source": source, **fields}
        # Not repeated: an order whose answer was lost would be fetched twice.
        answer = self._connection.ask("POST", "/v1/downloads", body=body, repeatable=False)
        return understood(DownloadView, answer.content)

    def list(self, *, state: str | None = None, cursor: str | None = None) -> Page[DownloadView]:
        """Return one page of downloads, newest first."""
        params = {name: text for name, text in (("state", state), ("cursor", cursor)) if text is not None}
        return understood(Page[DownloadView], self._connection.ask("GET", "/v1/downloads", params=params).content)

    def read(self, download: UUID | str) -> DownloadView:
        """Return a download."""
        return understood(DownloadView, self._connection.ask("GET", f"/v1/downloads/{segment(download)}").content)

    def pause(self, download: UUID | str) -> DownloadView:
        """Stop a download for now; what is there stays."""
        return self._change(download, "pause")

    def resume(self, download: UUID | str) -> DownloadView:
        """Go on with a download that was paused or that failed."""
        return self._change(download, "resume")

    def cancel(self, download: UUID | str) -> DownloadView:
        """Stop a download for good."""
        return self._change(download, "cancel")

    def follow(self, download: UUID | str) -> Iterator[DownloadView]:
        """Yield a download whenever it has changed, until it has ended or is paused; a broken stream is opened again."""
        return self._follow(DownloadView, f"/v1/downloads/{segment(download)}/events", {*ENDED, "paused"})

    def look_up(self, entries: Sequence[UUID | str] | None = None) -> LookupView:
        """Have entries looked up on CivitAI: those named by id, or all that one may change."""
        body = {} if entries is None else {"entries": [str(each) for each in entries]}
        answer = self._connection.ask("POST", "/v1/library/lookups", body=body, repeatable=False)
        return understood(LookupView, answer.content)

    def follow_lookup(self, lookup: UUID | str) -> Iterator[LookupView]:
        """Yield a look-up whenever it has changed, until it has ended."""
        return self._follow(LookupView, f"/v1/library/lookups/{segment(lookup)}/events", ENDED)

    def _change(self, download: UUID | str, verb: str) -> DownloadView:
        return understood(
            DownloadView, self._connection.ask("POST", f"/v1/downloads/{segment(download)}/{verb}").content
        )

    def _follow(
        self,
        kind: type[Followed],
        path: str,
        ends: "frozenset[str] | set[str]",
        sleep: Callable[[float], object] = time.sleep,
    ) -> Iterator[Followed]:
        heard = time.monotonic()
        while True:
            try:
                with self._connection.stream(path, headers={"accept": "text/event-stream"}) as response:
                    for frame in frames(response.iter_bytes()):
                        heard = time.monotonic()
                        if not frame.data:
                            continue
                        found = understood(kind, frame.data)
                        yield found
                        if found.state in ends:
                            return
            except (FleetUnreachable, Unavailable):
                if not self._connection.has_answered or time.monotonic() - heard > self._connection.patience:
                    raise
            sleep(_PAUSE)
