"""POST /v1/images/generations, edits and variations: synchronous or streamed, as OpenAI's clients expect."""

import asyncio
import json
from collections.abc import Sequence
from typing import Any, Final
from uuid import UUID

from starlette.responses import Response

from broker_api.doors.openai.answers import Facts, facts_of, with_bytes, with_urls
from broker_api.doors.openai.drawing import Taken, finished, submit, take, unfinished, wait
from broker_api.doors.openai.forms import Form, read_form
from broker_api.doors.openai.payloads import Drawing, Edit, Generation, Streamed, Variation
from broker_api.doors.openai.refusals import FieldRefused, FormInvalid, JobGone
from broker_api.doors.openai.streaming import ImageStream, Plan
from broker_api.endpoints import Call
from broker_api.pictures.images import pictures_of, signed_url
from jobs.contract import JobView
from jobs.reading import read_job

#: How long the URLs of an answer are good, as OpenAI's are.
URL_SECONDS: Final = 3600
#: So many pictures OpenAI takes; of one alone the fleet makes another.
MOST_IMAGES: Final = 16


async def generate(call: Call) -> Response:
    """Draw pictures from a prompt."""
    return await _answered(call, call.body(Generation), Taken(), "image_generation")


async def edit(call: Call) -> Response:
    """Draw a picture anew by a prompt: its masked part, or all of it."""
    form = await read_form(call.request)
    payload = Edit.model_validate(form.fields)
    masks = form.files.get("mask", [])
    taken = await take(call, _one_image(form), masks[0] if masks else None)
    return await _answered(call, payload, taken, "image_edit")


async def vary(call: Call) -> Response:
    """Draw pictures like another."""
    form = await read_form(call.request)
    payload = Variation.model_validate(form.fields)
    taken = await take(call, _one_image(form), None, masked=False)
    return await _answered(call, payload, taken, "image_generation")


def _one_image(form: Form) -> bytes:
    images = form.files.get("image", [])
    if not images:
        raise FormInvalid("The form has no file in the field `image`.", field="image")
    if len(images) > MOST_IMAGES:
        raise FieldRefused(f"At most {MOST_IMAGES} pictures.", field="image")
    if len(images) > 1:
        raise FieldRefused("These models make a picture of one picture: send one.", field="image")
    return images[0]


async def _answered(call: Call, payload: Drawing, taken: Taken, kind: str) -> Response:
    job = await submit(call, payload, taken)
    if isinstance(payload, Streamed) and payload.stream:
        return await _streamed(call, payload, taken, job, kind)
    view = await wait(call, job)
    facts = facts_of(view, payload, taken.tokens)
    if payload.response_format == "url":
        return await _json(with_urls(facts, await _urls(call, view)), job)
    pictures = await _pictures(call, view)

    def written() -> bytes:
        return json.dumps(with_bytes(facts, pictures)).encode()

    # Megabytes of base64 are written beside the event loop.
    return _rendered(await asyncio.to_thread(written), job)


async def _streamed(call: Call, payload: Streamed, taken: Taken, job: UUID, kind: str) -> Response:
    async with call.services.pool.connection() as connection:
        begun = await read_job(connection, call.principal.owner, job)
    if begun is None:
        raise JobGone("The job was deleted before its pictures were fetched.")

    async def fetch() -> tuple[Facts, Sequence[bytes]]:
        view = await finished(call, job)
        return facts_of(view, payload, taken.tokens), await _pictures(call, view)

    facts = facts_of(begun, payload, taken.tokens)
    plan = Plan(job, kind, payload.partial_images, begun.request, facts, fetch, unfinished())
    return ImageStream(call.services, plan)


async def _pictures(call: Call, view: JobView) -> list[bytes]:
    found = await pictures_of(call.services, call.principal.owner, view)
    if found is None:
        raise JobGone("The job was deleted before its pictures were fetched.")
    return found


async def _urls(call: Call, view: JobView) -> list[str]:
    # As the client itself reaches this server, unless its operator says how everyone does.
    request = call.request
    base = call.services.settings.url or f"{request.url.scheme}://{request.headers.get('host', request.url.netloc)}"
    signed = [await signed_url(call.services, view.id, image.index, URL_SECONDS) for image in view.images]
    return [f"{base.rstrip('/')}{each.url}" for each in signed]


async def _json(content: dict[str, Any], job: UUID) -> Response:
    return _rendered(json.dumps(content).encode(), job)


def _rendered(content: bytes, job: UUID) -> Response:
    headers = {"cache-control": "no-store", "imagefleet-job": str(job)}
    return Response(content, headers=headers, media_type="application/json")
