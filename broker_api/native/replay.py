"""Draw again: a job, or what a picture's file says, with other fields where one wants them."""

import base64
import binascii
from typing import Annotated, Any, Final

from pydantic import Field, StringConstraints
from starlette.responses import Response

from broker_api.endpoints import Call, not_found
from broker_api.native.jobs import CreateQuery, accept
from broker_api.pictures.metadata import request_in
from jobs.contract import parse_request
from jobs.errors import PictureRefused
from jobs.history.usage import note
from jobs.parts import MAX_PICTURE_TEXT, Strict, Text
from jobs.reading import read_job
from jobs.replaying import changed, request_of

MOST_CHANGES: Final = 50
Changes = Annotated[
    dict[Annotated[Text, StringConstraints(max_length=100)], Any],
    Field(max_length=MOST_CHANGES, description="Fields of the request to change; null takes the default again."),
]


class ReplayJob(Strict):
    """What to change."""

    changes: Changes = Field(default_factory=dict)


class ReplayPicture(Strict):
    """A picture's file, and what to change."""

    image: Annotated[Text, StringConstraints(min_length=1, max_length=MAX_PICTURE_TEXT)] = Field(
        description="The file, base64 or a `data:` URI: PNG, JPEG or WebP of ours or of A1111."
    )
    changes: Changes = Field(default_factory=dict)


async def replay_job(call: Call) -> Response:
    """Draw what a job drew, the seed included."""
    async with call.services.pool.connection() as connection:
        found = await read_job(connection, call.principal.sees, call.job())
    if found is None:
        raise not_found()
    answer = await _again(call, request_of(found.request), call.body(ReplayJob).changes)
    if not call.query(CreateQuery).dry_run:
        async with call.services.pool.connection() as connection:
            await note(connection, call.principal.sees, found.id, "repeated")
    return answer


async def replay_picture(call: Call) -> Response:
    """Draw what a picture's file says."""
    wanted = call.body(ReplayPicture)
    text = wanted.image.partition(",")[2] if wanted.image.startswith("data:") else wanted.image
    try:
        file = base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error):
        raise PictureRefused("The picture is not base64.", field="image") from None
    return await _again(call, request_in(file), wanted.changes)


async def _again(call: Call, request: dict[str, Any], changes: dict[str, Any]) -> Response:
    return await accept(call, parse_request(changed(request, changes)), call.query(CreateQuery))
