"""The pictures an owner has: searched, read, deleted."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import psycopg
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb
from pydantic import BaseModel, Field

from jobs.contract import DiffusionParameters, JobParameters, Task, image_seed, parse_parameters
from jobs.cursors import decode_picture_cursor, encode_cursor
from jobs.reading import image_url


class ResultView(BaseModel):
    """One picture, as the gallery shows it."""

    job: UUID
    index: int
    task: Task
    model: str
    prompt: str
    labels: dict[str, str]
    seed: int
    width: int
    height: int
    mime: str
    bytes: int
    sha256: str
    url: str
    thumbnail_url: str = Field(description="The same picture, its longer side 256 pixels.")
    batch: UUID | None
    created_at: datetime
    finished_at: datetime


class ResultDetail(ResultView):
    """One picture, with everything needed to draw it again."""

    worker: str | None
    seconds: float | None
    request: JobParameters = Field(description="Of this picture alone: its own seed, one picture.")


@dataclass(frozen=True)
class Search:
    """Which pictures to look for."""

    text: str | None = None
    model: str | None = None
    task: str | None = None
    labels: Mapping[str, str] | None = None
    since: datetime | None = None
    until: datetime | None = None
    seed: int | None = None
    batch: UUID | None = None


_COLUMNS: Final = """images.job, images.index, images.seed, images.width, images.height, images.mime, images.bytes, images.sha256,
    jobs.task, jobs.request, jobs.batch, jobs.created_at, jobs.finished_at, jobs.worker, jobs.seconds"""
_MINE: Final = "jobs.state = 'succeeded' and (%(owner)s::text is null or jobs.owner = %(owner)s)"

#: Only what is asked for is part of the statement, so that the indexes serve it.
_FILTERS: Final[Mapping[str, str]] = {
    "text": "to_tsvector('simple', jobs.request ->> 'prompt') @@ websearch_to_tsquery('simple', %(text)s)",
    "model": "jobs.request ->> 'model' = %(model)s",
    "task": "jobs.task = %(task)s",
    "labels": "jobs.request -> 'labels' <> '{}' and jobs.request -> 'labels' @> %(labels)s",
    "since": "jobs.finished_at >= %(since)s",
    "until": "jobs.finished_at < %(until)s",
    "seed": "images.seed = %(seed)s::numeric",
    "batch": "jobs.batch = %(batch)s",
}
_BEFORE: Final = (
    "(images.job < %(before_job)s or (images.job = %(before_job)s and images.index > %(before_index)s))"
    " and images.job <= %(before_job)s"
)
_ONE: Final = f"""select {_COLUMNS} from images join jobs on jobs.id = images.job
where {_MINE} and images.job = %(job)s and images.index = %(index)s"""

_DELETE: Final = f"""
with gone as (
    delete from images using jobs where jobs.id = images.job and {_MINE}
        and (images.job, images.index) in (select * from unnest(%(jobs)s::uuid[], %(indexes)s::int[]))
    returning images.job, images.index, images.key
), noted as (
    insert into usage_notes (owner, what, pictures, used)
    select jobs.owner, 'deleted', lost.pictures, job_uses(jobs.task, jobs.request)
    from (select job, count(*)::int as pictures from gone group by job) lost join jobs on jobs.id = lost.job
), swept as (
    insert into garbage (key) select key from gone on conflict do nothing
)
select job, index from gone
"""


async def search_results(
    connection: "psycopg.AsyncConnection[Any]", owner: str | None, wanted: Search, *, cursor: str | None, limit: int
) -> tuple[list[ResultView], str | None]:
    """Return a page of pictures, newest job first, and the cursor of the next page; raise `CursorInvalid`."""
    values = {name: getattr(wanted, name) for name in _FILTERS if getattr(wanted, name) is not None}
    conditions = [_MINE, *(_FILTERS[name] for name in values)]
    if "labels" in values:
        values["labels"] = Jsonb(dict(values["labels"]))
    if cursor is not None:
        values["before_job"], values["before_index"] = decode_picture_cursor(cursor)
        conditions.append(_BEFORE)
    statement = (
        f"select {_COLUMNS} from images join jobs on jobs.id = images.job where {' and '.join(conditions)} "
        "order by images.job desc, images.index limit %(limit)s"
    )
    async with connection.cursor(row_factory=dict_row) as opened:
        await opened.execute(statement, {**values, "owner": owner, "limit": limit + 1})
        rows = await opened.fetchall()
    last = rows[limit - 1] if len(rows) > limit else None
    return [_view(row) for row in rows[:limit]], None if last is None else encode_cursor(last["job"], last["index"])


async def read_result(
    connection: "psycopg.AsyncConnection[Any]", owner: str | None, job: UUID, index: int
) -> ResultDetail | None:
    """Return one picture with its full parameters, or None."""
    if not 0 <= index < 2**15:
        return None
    async with connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(_ONE, {"owner": owner, "job": job, "index": index})
        row = await cursor.fetchone()
    if row is None:
        return None
    parameters = parse_parameters(row["request"])
    alone: dict[str, Any] = {"seed": image_seed(parameters, index)}
    if isinstance(parameters, DiffusionParameters):
        alone["num_images"] = 1
    return ResultDetail(
        **_view(row).model_dump(),
        worker=row["worker"],
        seconds=row["seconds"],
        request=parameters.model_copy(update=alone),
    )


async def delete_results(
    connection: "psycopg.AsyncConnection[Any]", owner: str | None, pictures: Sequence[tuple[UUID, int]]
) -> set[tuple[UUID, int]]:
    """Delete pictures, leaving their files to `garbage` and their jobs as they are; return those there were."""
    values = {"owner": owner, "jobs": [job for job, _ in pictures], "indexes": [index for _, index in pictures]}
    async with connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(_DELETE, values)
        return {(row["job"], row["index"]) for row in await cursor.fetchall()}


def _view(row: Mapping[str, Any]) -> ResultView:
    request = row["request"]
    url = image_url(row["job"], row["index"])
    shown = {
        name: row[name]
        for name in (
            "job", "index", "task", "seed", "width", "height", "mime", "bytes", "sha256", "batch", "created_at", "finished_at",
        )
    }  # fmt: skip
    return ResultView(
        **shown,
        model=request["model"],
        prompt=request.get("prompt") or "",
        labels=request.get("labels") or {},
        url=url,
        thumbnail_url=f"{url}?thumbnail=256",
    )
