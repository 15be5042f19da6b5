"""GET /v1/results: an owner's pictures, searched; one of them with its parameters; deleting them."""

from http import HTTPStatus
from typing import Final
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, Field
from starlette.responses import Response

from broker_api.endpoints import Call, Query, not_found
from broker_api.http.answers import json_answer
from broker_api.pictures.images import picture_index
from jobs.contract import MAX_SEED, Task
from jobs.labels import Labels, parse_labels
from jobs.parts import Name, Strict, Text
from jobs.results import ResultView, Search, delete_results, read_result, search_results

MOST_LISTED: Final = 200
MOST_DELETED: Final = 1000


class ResultQuery(Query):
    """Which pictures to list."""

    q: Text | None = Field(
        default=None,
        min_length=1,
        max_length=500,
        description='Words of the prompt: all of them, a "phrase", `or`, `-without`.',
    )
    model: Name | None = None
    task: Task | None = None
    labels: Labels | None = None
    since: AwareDatetime | None = Field(default=None, description="Ended then or later, RFC 3339.")
    until: AwareDatetime | None = Field(default=None, description="Ended before then, RFC 3339.")
    seed: int | None = Field(default=None, ge=0, le=MAX_SEED, description="The picture's own.")
    batch: UUID | None = None
    mine: bool = Field(default=False, description="For admins: only one's own.")
    cursor: str | None = Field(default=None, max_length=200, description="`next_cursor` of the page before.")
    limit: int = Field(default=50, ge=1, le=MOST_LISTED)


class ResultPage(BaseModel):
    """A page of pictures, those of the newest job first."""

    items: list[ResultView]
    next_cursor: str | None


class PictureRef(Strict):
    """One picture."""

    job: UUID
    index: int = Field(ge=0, lt=2**15)


class DeleteResults(Strict):
    """Pictures to delete."""

    pictures: list[PictureRef] = Field(min_length=1, max_length=MOST_DELETED)


class Deleted(BaseModel):
    """What was deleted; what is missing here was not there, or not yours."""

    pictures: list[PictureRef]


async def list_results(call: Call) -> Response:
    """Return a page of pictures."""
    query = call.query(ResultQuery)
    wanted = Search(
        text=query.q,
        model=query.model,
        task=query.task,
        labels=None if query.labels is None else parse_labels(query.labels),
        since=query.since,
        until=query.until,
        seed=query.seed,
        batch=query.batch,
    )
    owner = call.principal.owner if query.mine else call.principal.sees
    async with call.services.pool.connection() as connection:
        items, following = await search_results(connection, owner, wanted, cursor=query.cursor, limit=query.limit)
    return json_answer(ResultPage(items=items, next_cursor=following))


async def read_one_result(call: Call) -> Response:
    """Return a picture's parameters."""
    async with call.services.pool.connection() as connection:
        found = await read_result(connection, call.principal.sees, call.job(), picture_index(call))
    if found is None:
        raise not_found()
    return json_answer(found)


async def delete_one_result(call: Call) -> Response:
    """Delete one picture and leave its job."""
    async with call.services.pool.connection() as connection:
        if not await delete_results(connection, call.principal.sees, [(call.job(), picture_index(call))]):
            raise not_found()
    return Response(status_code=HTTPStatus.NO_CONTENT)


async def delete_many_results(call: Call) -> Response:
    """Delete pictures and leave their jobs."""
    wanted = [(each.job, each.index) for each in call.body(DeleteResults).pictures]
    async with call.services.pool.connection() as connection:
        gone = await delete_results(connection, call.principal.sees, wanted)
    return json_answer(Deleted(pictures=[PictureRef(job=job, index=index) for job, index in sorted(gone)]))
