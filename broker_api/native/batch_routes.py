"""The part of the route table about batches."""

from typing import Final

from broker_api.admission.submit_errors import IDEMPOTENCY, SUBMIT_ERRORS
from broker_api.endpoints import Answer, Body, Endpoint
from broker_api.native.batches import (
    BatchCreated,
    BatchPage,
    BatchQuery,
    BatchView,
    CreateBatch,
    ListBatchesQuery,
    cancel_one_batch,
    create_batch,
    list_batch_page,
    read_one_batch,
)
from broker_api.refusals import NotFound
from broker_api.streaming.batch_events import read_batch_events
from jobs.batches import BatchSummary
from jobs.cursors import CursorInvalid
from jobs.matrix import MatrixInvalid

_EXAMPLE: Final = {
    "request": {"prompt": "a red circle on a blue background", "width": 128, "height": 128},
    "matrix": {"seed": [1, 2, 3], "steps": [10, 20], "output.format": ["webp"]},
}

BATCH_ENDPOINTS: Final = (
    Endpoint(
        "POST", "/v1/batches", "createBatch", "Draw many at once", "batches", create_batch,
        description=(
            "All jobs or none: each is admitted first, and the path of what is wrong begins with `jobs.<place>`. They are stored in one "
            "transaction, at most 1000."
        ),
        body=Body(models=(CreateBatch,), parse=CreateBatch.model_validate, example=_EXAMPLE),
        headers=IDEMPOTENCY, answers=(Answer(202, "Accepted.", BatchCreated, headers={"Location": "Path of the batch."}),),
        errors=(*SUBMIT_ERRORS, MatrixInvalid),
    ),
    Endpoint(
        "GET", "/v1/batches", "listBatches", "List batches, newest first", "batches", list_batch_page,
        query=ListBatchesQuery, answers=(Answer(200, "A page of batches.", BatchPage),), errors=(CursorInvalid,),
    ),
    Endpoint(
        "GET", "/v1/batches/{id}", "readBatch", "Read a batch", "batches", read_one_batch,
        query=BatchQuery, answers=(Answer(200, "The batch and a page of its jobs.", BatchView),), errors=(NotFound, CursorInvalid),
    ),
    Endpoint(
        "POST", "/v1/batches/{id}/cancel", "cancelBatch", "Cancel a batch", "batches", cancel_one_batch,
        description="Waiting jobs are cancelled at once, running ones within a step; those that have ended stay as they are.",
        answers=(Answer(200, "All have ended.", BatchSummary), Answer(202, "Some run still and will stop.", BatchSummary)),
        errors=(NotFound,),
    ),
    Endpoint(
        "GET", "/v1/batches/{id}/events", "readBatchEvents", "Follow a batch as it happens", "batches", read_batch_events,
        description=(
            "Server-sent events: `batch` says how far the whole is, first of all and after each change; the jobs' changes of state come as "
            "those of a job do, without ids. A reader that comes back begins with the whole. Ends with the last job."
        ),
        answers=(Answer(200, "The events.", media_type="text/event-stream"),), errors=(NotFound,),
    ),
)  # fmt: skip
