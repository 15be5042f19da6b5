"""What waits and which models there are: lists that every key may read."""

from pydantic import BaseModel
from starlette.responses import Response

from broker_api.endpoints import Call
from broker_api.http.answers import json_answer
from jobs.reading import QueueView, queues


class QueuePage(BaseModel):
    """All queues in which something waits or runs, or which a worker serves."""

    items: list[QueueView]
    next_cursor: str | None = None


async def list_queues(call: Call) -> Response:
    """Return every queue."""
    async with call.services.pool.connection() as connection:
        return json_answer(QueuePage(items=await queues(connection)))
