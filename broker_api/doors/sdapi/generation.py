"""POST /sdapi/v1/txt2img and img2img: synchronous, as their clients expect."""

import asyncio
from collections.abc import Mapping

from starlette.responses import Response

from broker_api.admission.admission import draw_seed
from broker_api.doors.sdapi.answers import generation_answer
from broker_api.doors.sdapi.choices import Choices
from broker_api.doors.sdapi.dialect import answer
from broker_api.doors.sdapi.drawing import draw
from broker_api.doors.sdapi.models import checkpoint_of
from broker_api.doors.sdapi.options import read_choices
from broker_api.doors.sdapi.payloads import Generation, Img2Img, Txt2Img
from broker_api.doors.sdapi.pictures import mask_of
from broker_api.doors.sdapi.translation import KEY_LABEL, TASK_LABEL, Translated, choices_of, img2img, txt2img
from broker_api.endpoints import Call
from broker_api.version import version
from models_registry.entries import ModelEntry
from models_registry.offers import Catalogue


async def draw_from_text(call: Call) -> Response:
    """Draw pictures from a prompt."""
    payload = call.body(Txt2Img)
    usual = await read_choices(call)
    translated = txt2img(payload, usual, labels_of(call, payload.force_task_id), _entry(call, payload, usual))
    return await _answered(call, payload, translated)


async def draw_from_pictures(call: Call) -> Response:
    """Draw pictures from a prompt and pictures."""
    payload = call.body(Img2Img)
    usual = await read_choices(call)
    if payload.mask:
        limit = call.services.settings.max_pixels
        inverted = bool(payload.inpainting_mask_invert)
        mask = await asyncio.to_thread(mask_of, payload.mask, inverted=inverted, max_pixels=limit)
        payload = payload.model_copy(update={"mask": mask})
    labels = labels_of(call, payload.force_task_id)
    translated = img2img(payload, usual, labels, seed=draw_seed(), entry=_entry(call, payload, usual))
    return await _answered(call, payload, translated)


def labels_of(call: Call, task: str | None = None) -> Mapping[str, str]:
    """Return the labels by which the caller's key finds its jobs again."""
    return {KEY_LABEL: call.principal.key_id, **({TASK_LABEL: task} if task else {})}


def _catalogue(call: Call) -> Catalogue:
    return call.services.snapshots.now.catalogue.seen_by(call.principal.reader)


def _entry(call: Call, payload: Generation, usual: Choices) -> ModelEntry | None:
    return checkpoint_of(_catalogue(call), choices_of(payload, usual).sd_model_checkpoint)


async def _answered(call: Call, payload: Generation, translated: Translated) -> Response:
    drawn = await draw(call, translated.requests, task=payload.force_task_id or None, pictures=payload.send_images)
    entry = checkpoint_of(_catalogue(call), drawn[0].view.model)

    def written() -> Response:
        fingerprint = "" if entry is None else entry.fingerprint
        return answer(generation_answer(payload, drawn, translated.notes, fingerprint=fingerprint, version=version()))

    # Megabytes of base64 are written beside the event loop.
    return await asyncio.to_thread(written)
