"""What callers say of recommendations, how they want them, and how far the fleet is."""

import base64
import binascii
from http import HTTPStatus
from uuid import UUID

from pydantic import BaseModel, Field
from starlette.responses import Response

from broker_api.endpoints import Call, Query
from broker_api.http.answers import json_answer
from broker_api.recommendations.asking import ask, find_adapter, grounds_of, reader_of
from broker_api.recommendations.views import Feedback, FeedbackTaken, PreferencesBody, Shares
from jobs.analysing.analyses import AnalysisSource
from jobs.analysing.findings import text_digest
from jobs.analysing.status import EntryStatus, Totals, read_statuses, read_totals
from jobs.cursors import CursorInvalid
from jobs.parts import Name, Strict
from models_registry.likeness.ranking import vector_form
from models_registry.likeness.scores import SOURCES
from models_registry.likeness.tastes import Preferences, read_preferences, say, write_preferences

MOST_LISTED = 200
_FORMS = {"vector": "pgvector", "real[]": "arrays"}


class Statistics(Totals):
    """What recommendations stand on."""

    vectors: str = Field(description="`pgvector` where the database has it, else `arrays`.")
    reads_with: str | None = Field(description="The checkpoint whose text encoder reads.")


class Refresh(Strict):
    """What to look at."""

    adapter: Name | None = Field(default=None, description="Its id or name; left out, everything not known yet.")
    again: bool = Field(default=False, description="Also what failed lately.")


class Refreshed(BaseModel):
    """What the fleet was asked."""

    jobs: int = Field(description="New jobs; entries known already, or asked about already, make none.")


class StatusQuery(Query):
    """Which entries' status to list."""

    adapter: Name | None = None
    cursor: str | None = Field(default=None, max_length=200, description="`next_cursor` of the page before.")
    limit: int = Field(default=50, ge=1, le=MOST_LISTED)


class StatusPage(BaseModel):
    """A page of entries and what is known of them."""

    items: list[EntryStatus]
    next_cursor: str | None


async def read_statistics(call: Call) -> Response:
    """Return what recommendations stand on."""
    grounds = await grounds_of(call)
    async with call.services.pool.connection() as line:
        totals = await read_totals(line, reader_of(call))
        form = await vector_form(line)
    reads = None if grounds.reads is None else grounds.reads.name
    return json_answer(Statistics(**totals.model_dump(), vectors=_FORMS[form], reads_with=reads))


async def refresh(call: Call) -> Response:
    """Have the fleet look at what is not known, or has changed."""
    wanted = call.body(Refresh)
    entry = None if wanted.adapter is None else await find_adapter(call, wanted.adapter)
    first = None if entry is None else entry.id
    grounds = await grounds_of(call, entry)
    sources: tuple[AnalysisSource, ...] = ("weights", "text")
    changes = await ask(call, grounds, sources, first=first, again=wanted.again, alone=first is not None)
    return json_answer(Refreshed(jobs=len(changes)), HTTPStatus.ACCEPTED)


async def list_status(call: Call) -> Response:
    """Return how far the fleet is with entries."""
    query = call.query(StatusQuery)
    only = None if query.adapter is None else (await find_adapter(call, query.adapter)).id
    after = None if query.cursor is None else _after(query.cursor)
    async with call.services.pool.connection() as line:
        found = await read_statuses(line, reader_of(call), after=after, only=only, limit=query.limit + 1)
    more = len(found) > query.limit
    items = list(found[: query.limit])
    following = base64.urlsafe_b64encode(items[-1].id.bytes).decode() if more else None
    return json_answer(StatusPage(items=items, next_cursor=following))


def _after(cursor: str) -> UUID:
    try:
        return UUID(bytes=base64.urlsafe_b64decode(cursor))
    except (ValueError, binascii.Error):
        raise CursorInvalid("The cursor is not one of this list.", field="cursor") from None


async def take_feedback(call: Call) -> Response:
    """Keep whether a recommendation helped."""
    said = call.body(Feedback)
    entry = await find_adapter(call, said.adapter)
    about = said.about
    async with call.services.pool.connection() as line:
        await say(line, call.principal.owner, entry.id, text_digest(about) if about else "", helpful=said.helpful)
    return json_answer(FeedbackTaken(adapter=entry.id, helpful=said.helpful))


async def show_preferences(call: Call) -> Response:
    """Return how the caller wants to be advised."""
    async with call.services.pool.connection() as line:
        return json_answer(_shown(await read_preferences(line, call.principal.owner)))


async def set_preferences(call: Call) -> Response:
    """Keep how the caller wants to be advised."""
    wanted = call.body(PreferencesBody)
    preferences = Preferences({source: getattr(wanted.sources, source) for source in SOURCES}, frozenset(wanted.hidden))
    async with call.services.pool.connection() as line:
        await write_preferences(line, call.principal.owner, preferences)
    return json_answer(_shown(preferences))


def _shown(preferences: Preferences) -> PreferencesBody:
    return PreferencesBody(sources=Shares.model_validate(dict(preferences.shares)), hidden=sorted(preferences.hidden))
