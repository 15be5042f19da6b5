"""/v1/downloads: let the fleet fetch models, and steer how it does."""

from http import HTTPStatus
from ipaddress import ip_address
from typing import Annotated, Final, cast
from urllib.parse import urlsplit

from pydantic import BaseModel, Field, StringConstraints
from starlette.responses import Response
from uuid_utils.compat import uuid7

from broker_api.endpoints import Call, Query, not_found
from broker_api.http.answers import json_answer
from broker_api.library.following import ProgressStream
from broker_api.library.pull_refusals import AddressRefused, DownloadEnded, SourceInvalid, TooManyDownloads
from infra.guarded_http import Guard
from jobs.cursors import decode_cursor, encode_cursor
from jobs.parts import Strict, Text
from models_registry.entries import Kind
from models_registry.pulls import failures
from models_registry.pulls.model_names import ModelName, ModelVersion
from models_registry.pulls.orders import (
    FROM,
    MOST_OPEN,
    Download,
    Order,
    add_download,
    change_download,
    list_downloads,
    read_download,
)
from models_registry.pulls.sources import UrlSource, parse_source
from models_registry.pulls.states import ENDED, State
from models_registry.records import Visibility

MOST_LISTED: Final = 200
Word = Annotated[Text, StringConstraints(min_length=1, max_length=200)]
Words = Annotated[tuple[Word, ...], Field(max_length=100)]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-fA-F]{64}$")]
Description = Annotated[Text, StringConstraints(max_length=20_000)]


class Described(Strict):
    """What people say of a model; what is left out, its source or its file says."""

    version: ModelVersion = ""
    kind: Kind | None = Field(default=None, strict=False, description="What it must be; refused when it is not.")
    sha256: Sha256 | None = Field(default=None, description="What the one file must hash to.")
    visibility: Visibility = "public"
    description: Description = ""
    licence: Annotated[Text, StringConstraints(max_length=200)] = ""
    base_model: Annotated[Text, StringConstraints(max_length=200)] = ""
    tags: Words = Field(default=(), strict=False)
    trigger_words: Words = Field(default=(), strict=False)
    weight: float | None = Field(default=None, ge=-10, le=10, description="Recommended weight of a LoRA.")


class CreateDownload(Described):
    """A model to fetch."""

    source: Annotated[Text, StringConstraints(min_length=1, max_length=2000)] = Field(
        description="`owner/repo[:file][@revision]` of the Hugging Face hub, `civitai:<model>[@<version>]`, an AIR, or an https address."
    )
    name: ModelName | None = Field(default=None, description="Left out, it is named as at its source.")


class DownloadQuery(Query):
    """Which downloads to list."""

    state: State | None = None
    cursor: str | None = Field(default=None, max_length=200, description="`next_cursor` of the page before.")
    limit: int = Field(default=50, ge=1, le=MOST_LISTED)


class DownloadPage(BaseModel):
    """A page of downloads, newest first."""

    items: list[Download]
    next_cursor: str | None


async def create_download(call: Call) -> Response:
    """Queue a download."""
    sent = call.body(CreateDownload)
    check_source(sent.source, Guard.of(call.services.settings.fetch_allow))
    order = Order.model_validate(sent.model_dump(exclude={"source"}))
    async with call.services.pool.connection() as connection:
        made = await add_download(connection, uuid7(), call.principal.owner, sent.source, order)
    if made is None:
        raise TooManyDownloads(f"{MOST_OPEN} downloads of yours have not ended: wait for some, or cancel them.")
    return json_answer(made, HTTPStatus.ACCEPTED, {"location": f"/v1/downloads/{made.id}"})


async def list_all_downloads(call: Call) -> Response:
    """Return a page of downloads."""
    query = call.query(DownloadQuery)
    async with call.services.pool.connection() as connection:
        found = await list_downloads(
            connection,
            call.principal.sees,
            before=None if query.cursor is None else decode_cursor(query.cursor),
            states=None if query.state is None else [query.state],
            limit=query.limit + 1,
        )
    items = found[: query.limit]
    following = encode_cursor(items[-1].id) if len(found) > query.limit else None
    return json_answer(DownloadPage(items=items, next_cursor=following))


async def read_one_download(call: Call) -> Response:
    """Return a download."""
    return json_answer(await _read(call))


async def pause_download(call: Call) -> Response:
    """Stop fetching for now; what is there stays."""
    return await _change(call, "pause", State.PAUSED)


async def resume_download(call: Call) -> Response:
    """Go on fetching, also after a failure."""
    return await _change(call, "resume", State.QUEUED, State.RUNNING)


async def cancel_download(call: Call) -> Response:
    """Stop fetching for good; what is there is removed."""
    return await _change(call, "cancel", State.CANCELLED)


async def follow_download(call: Call) -> Response:
    """Stream how a download goes."""
    await _read(call)
    identity, sees, pool = call.job(), call.principal.sees, call.services.pool

    async def read() -> BaseModel | None:
        async with pool.connection() as connection:
            return await read_download(connection, sees, identity)

    return ProgressStream(call.services.hub, read, _state)


def check_source(text: str, guard: Guard) -> None:
    """Refuse at once what no keeper would fetch: no source, an address in clear, an address of a network that is not public."""
    try:
        source = parse_source(text)
    except failures.SourceInvalid as problem:
        raise SourceInvalid(problem.message, field="source") from None
    if not isinstance(source, UrlSource):
        return
    parts = urlsplit(source.url)
    host = parts.hostname or ""
    if parts.scheme != "https" and not guard.trusts(host):
        raise AddressRefused("Only https addresses are fetched.", field="source")
    try:
        is_allowed = guard.allows(ip_address(host))
    except ValueError:
        # Where a name leads is looked at when it is connected to.
        return
    if not is_allowed:
        raise AddressRefused("The address is not on the public network.", field="source")


def _state(view: BaseModel) -> tuple[str, bool]:
    state = cast("Download", view).state
    return state.value, state in ENDED


async def _read(call: Call) -> Download:
    async with call.services.pool.connection() as connection:
        found = await read_download(connection, call.principal.sees, call.job())
    if found is None:
        raise not_found()
    return found


async def _change(call: Call, verb: str, *wanted: State) -> Response:
    async with call.services.pool.connection() as connection:
        found = await change_download(connection, call.principal.sees, call.job(), verb)
    if found is None:
        raise not_found()
    if found.state not in wanted:
        states = ", ".join(sorted(FROM[verb]))
        raise DownloadEnded(f"It is {found.state}; one can {verb} what is {states}.")
    return json_answer(found)
