"""Batches over HTTP: many jobs in one transaction, watched, read and cancelled as one."""

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Annotated, Any, Final, Self
from uuid import UUID

from pydantic import BaseModel, Field, StringConstraints, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError, to_json
from starlette.responses import Response

from broker_api.endpoints import Call, Query, not_found
from broker_api.http.answers import json_answer
from broker_api.native.jobs import MOST_LISTED, idempotency_key
from broker_api.pictures.sources import Pictures
from broker_api.submission import decide
from jobs.batches import BatchSummary, cancel_batch, last_waiting, list_batches, read_batch, submit_batch
from jobs.contract import JobRequest, JobView, parse_request
from jobs.errors import RequestRefused
from jobs.intake import NewJob
from jobs.matrix import MOST_JOBS, expand
from jobs.parts import Strict, Text
from jobs.pictures import pictures_of
from jobs.reading import JobSearch, list_jobs, read_job

#: Other requests are answered after so many of a batch have been admitted.
ADMITTED_AT_ONCE: Final = 20
Path = Annotated[Text, StringConstraints(min_length=1, max_length=200)]


class CreateBatch(Strict):
    """Jobs to make: a list of requests, or one request and the values that its fields are to take."""

    jobs: list[dict[str, Any]] = Field(
        default_factory=list, max_length=MOST_JOBS, description="Requests, as of one job."
    )
    request: dict[str, Any] | None = Field(default=None, description="What all jobs of the matrix have in common.")
    matrix: dict[Path, Annotated[list[Any], Field(min_length=1, max_length=MOST_JOBS)]] = Field(
        default_factory=dict,
        max_length=10,
        description="Field to values; each combination becomes a job, the last field changing fastest. `output.format` names an inner one.",
    )

    @model_validator(mode="after")
    def _makes_something(self) -> Self:
        if bool(self.jobs) == (self.request is not None):
            raise PydanticCustomError("batch_shape", "A batch needs `jobs`, or `request` with a `matrix`")
        if self.request is not None and not self.matrix:
            raise PydanticCustomError("batch_shape", "A `request` needs a `matrix` of values")
        if self.jobs and self.matrix:
            raise PydanticCustomError("batch_shape", "A `matrix` belongs to a `request`, not to `jobs`")
        return self


class BatchCreated(BatchSummary):
    """A batch and the ids of its jobs, in the order of the request."""

    jobs: list[UUID]


class BatchQuery(Query):
    """Which of its jobs to show."""

    cursor: str | None = Field(default=None, max_length=200, description="`next_cursor` of the page before.")
    limit: int = Field(default=50, ge=0, le=MOST_LISTED, description="0 shows no jobs.")


class BatchView(BatchSummary):
    """A batch and a page of its jobs, in their order."""

    items: list[JobView]
    next_cursor: str | None


class BatchPage(BaseModel):
    """A page of batches, newest first."""

    items: list[BatchSummary]
    next_cursor: str | None


class ListBatchesQuery(Query):
    """Which batches to list."""

    cursor: str | None = Field(default=None, max_length=200, description="`next_cursor` of the page before.")
    mine: bool = Field(default=False, description="For admins: only one's own.")
    limit: int = Field(default=50, ge=1, le=MOST_LISTED)


async def create_batch(call: Call) -> Response:
    """Admit every job, then store them all in one transaction."""
    wanted = call.body(CreateBatch)
    requests = wanted.jobs if wanted.request is None else expand(wanted.request, wanted.matrix)
    owner = call.principal.owner
    jobs, pictures = await _admit_all(call, _parse_all(requests))
    # Only what is admitted is kept.
    for each in pictures:
        await call.services.pictures.keep(owner, each)
    async with call.services.pool.connection() as connection:
        accepted = await submit_batch(
            connection,
            owner,
            jobs,
            idempotency_key=idempotency_key(call.request),
            request_hash=hashlib.sha256(to_json(wanted)).hexdigest(),
        )
        found = await read_batch(connection, owner, accepted.batch)
    if found is None:
        raise not_found()
    headers = {"location": f"/v1/batches/{accepted.batch}"}
    if accepted.changes is None:
        headers["idempotent-replayed"] = "true"
    for change in accepted.changes or ():
        call.services.relay.announce(change)
    for job in jobs if accepted.changes else ():
        call.services.metrics.accepted.labels(job.parameters.task).inc()
    return json_answer(BatchCreated(**found.model_dump(), jobs=list(accepted.jobs)), HTTPStatus.ACCEPTED, headers)


async def list_batch_page(call: Call) -> Response:
    """Return a page of batches."""
    query = call.query(ListBatchesQuery)
    async with call.services.pool.connection() as connection:
        items, following = await list_batches(
            connection,
            call.principal.owner if query.mine else call.principal.sees,
            cursor=query.cursor,
            limit=query.limit,
        )
    return json_answer(BatchPage(items=items, next_cursor=following))


async def read_one_batch(call: Call) -> Response:
    """Return a batch and a page of its jobs."""
    query = call.query(BatchQuery)
    items: list[JobView] = []
    following = None
    pace = call.services.snapshots.pace
    async with call.services.pool.connection() as connection:
        found = await read_batch(connection, call.principal.sees, call.job())
        if found is None:
            raise not_found()
        last = await last_waiting(connection, found)
        view = None if last is None else await read_job(connection, None, last, pace)
        if view is not None:
            found = found.model_copy(update={"eta_s": view.eta_s})
        if query.limit:
            items, following = await list_jobs(
                connection,
                call.principal.sees,
                JobSearch(batch=found.id),
                cursor=query.cursor,
                limit=query.limit,
                oldest_first=True,
                pace=pace,
            )
    return json_answer(BatchView(**found.model_dump(), items=items, next_cursor=following))


async def cancel_one_batch(call: Call) -> Response:
    """Cancel every job of a batch that has not ended."""
    async with call.services.pool.connection() as connection:
        done = await cancel_batch(connection, call.principal.sees, call.job())
    if done is None:
        raise not_found()
    found, changes = done
    for change in changes:
        call.services.relay.announce(change)
    return json_answer(found, HTTPStatus.ACCEPTED if found.state == "active" else HTTPStatus.OK)


def _parse_all(requests: Sequence[Mapping[str, Any]]) -> list[JobRequest]:
    parsed = []
    for place, request in enumerate(requests):
        try:
            parsed.append(parse_request(request))
        except ValidationError as error:
            raise _in_batch(error, place) from None
    return parsed


async def _admit_all(call: Call, requests: Sequence[JobRequest]) -> tuple[list[NewJob], list[Pictures]]:
    """Return the jobs to store and the pictures they name; pictures that many of them share are looked at once."""
    admitted: list[NewJob] = []
    taken: dict[frozenset[tuple[str, str]], Pictures] = {}
    for place, request in enumerate(requests):
        if place % ADMITTED_AT_ONCE == 0:
            await asyncio.sleep(0)
        named = frozenset(pictures_of(request).items())
        try:
            if named not in taken:
                taken[named] = await call.services.pictures.take(call.principal.owner, request)
            admitted.append(await decide(call.services, call.principal, request, taken[named]))
        except RequestRefused as error:
            error.message = f"Job {place}: {error.message}"
            error.field = f"jobs.{place}" if error.field is None else f"jobs.{place}.{error.field}"
            raise
    return admitted, list(taken.values())


def _in_batch(error: ValidationError, place: int) -> ValidationError:
    """Return the error of one request as that of the batch: with the request's place in every path."""
    details = [
        InitErrorDetails(
            type=PydanticCustomError(detail["type"], "{said}", {"said": detail["msg"]}),
            loc=("jobs", place, *detail["loc"]),
            input=None,
        )
        for detail in error.errors(include_url=False, include_context=False, include_input=False)
    ]
    return ValidationError.from_exception_data("CreateBatch", details)
