"""Enlarge pictures, read what they say of themselves, and refuse to describe them."""

import asyncio
import base64
from collections.abc import Sequence
from typing import Any, Final

from starlette.responses import Response

from broker_api.doors.sdapi.choices import NOTHING
from broker_api.doors.sdapi.dialect import answer
from broker_api.doors.sdapi.drawing import draw
from broker_api.doors.sdapi.generation import labels_of
from broker_api.doors.sdapi.payloads import ExtraBatch, Extras, ExtraSingle, Interrogate, PngInfo
from broker_api.doors.sdapi.pictures import cropped, open_picture, size_of, texts_of
from broker_api.doors.sdapi.refusals import ThingNotFound
from broker_api.doors.sdapi.translation import request_of, upscaler_of
from broker_api.endpoints import Call
from broker_api.pictures.files import decode_text
from jobs.contract import JobRequest
from jobs.errors import PictureRefused
from jobs.prompts.infotext import parse_infotext

_TO_SIZE: Final = 1


async def extra_single(call: Call) -> Response:
    """Enlarge one picture."""
    payload = call.body(ExtraSingle)
    if not payload.image:
        raise ThingNotFound("Image not found")
    [picture], text = await _enlarged(call, payload, [payload.image], "image")
    return answer({"html_info": text, "image": picture})


async def extra_batch(call: Call) -> Response:
    """Enlarge several pictures, each as a job of its own."""
    payload = call.body(ExtraBatch)
    given = [image.data for image in payload.imageList]
    pictures, text = await _enlarged(call, payload, given, "imageList")
    return answer({"html_info": text, "images": pictures})


async def _enlarged(call: Call, payload: Extras, given: Sequence[str], field: str) -> tuple[list[str], str]:
    notes = _notes(payload)
    fields = [field if field == "image" else f"{field}.{place}.data" for place in range(len(given))]
    limit = call.services.settings.max_pixels
    sizes = [size_of(text, limit, name) for text, name in zip(given, fields, strict=True)]
    if payload.upscaler_1.strip().lower() in NOTHING:
        # The originals give a picture back as it is when no upscaler is chosen.
        unchanged = [
            base64.b64encode(decode_text(text, name)).decode() for text, name in zip(given, fields, strict=True)
        ]
        return unchanged, _html(["no upscaler was chosen", *notes])
    labels = labels_of(call)
    requests = [
        _request(payload, text, size, name, labels) for text, size, name in zip(given, sizes, fields, strict=True)
    ]
    drawn = await draw(call, requests)
    pictures = [picture for each in drawn for picture in each.pictures]
    if payload.resize_mode == _TO_SIZE and payload.upscaling_crop:
        width, height = payload.upscaling_resize_w, payload.upscaling_resize_h
        pictures = [await asyncio.to_thread(cropped, picture, width, height) for picture in pictures]
    return [base64.b64encode(picture).decode() for picture in pictures], _html(notes)


def _request(payload: Extras, text: str, size: tuple[int, int], field: str, labels: Any) -> JobRequest:
    scale = payload.upscaling_resize
    if payload.resize_mode == _TO_SIZE:
        scale = max(payload.upscaling_resize_w / size[0], payload.upscaling_resize_h / size[1])
    name = "upscaling_resize_w" if payload.resize_mode == _TO_SIZE else "upscaling_resize"
    asked = {
        "task": "upscale",
        "image": text,
        "upscaler": upscaler_of(payload.upscaler_1),
        "scale": scale,
        "labels": dict(labels),
    }
    return request_of(asked, {"image": field, "scale": name, "upscaler": "upscaler_1"})


def _notes(payload: Extras) -> list[str]:
    second = payload.upscaler_2.strip().lower() not in NOTHING and payload.extras_upscaler_2_visibility > 0
    asked = {
        "upscaler_2": second,
        "gfpgan_visibility": payload.gfpgan_visibility > 0,
        "codeformer_visibility": payload.codeformer_visibility > 0,
    }
    return [f"{name} is ignored" for name, wanted in asked.items() if wanted]


def _html(notes: Sequence[str]) -> str:
    return "".join(f"<p>{note}</p>" for note in notes)


async def png_info(call: Call) -> Response:
    """Return the parameters that a picture carries."""
    text = call.body(PngInfo).image
    if not text:
        raise ThingNotFound("Image not found")
    limit = call.services.settings.max_pixels

    def read() -> dict[str, str]:
        with open_picture(text, limit, "image") as picture:
            return texts_of(picture)

    try:
        texts = await asyncio.to_thread(read)
    except (OSError, ValueError, SyntaxError):
        raise PictureRefused("Invalid encoded image", field="image") from None
    said = texts.get("parameters", "")
    return answer({"info": said, "items": texts, "parameters": _parameters(said)})


def _parameters(text: str) -> dict[str, Any]:
    if not text:
        return {}
    said = parse_infotext(text)
    found: dict[str, Any] = {"Prompt": said.prompt, "Negative prompt": said.negative_prompt, **said.fields}
    width, mark, height = said.fields.get("Size", "").partition("x")
    if mark:
        found |= {"Size-1": width, "Size-2": height}
    usual = {"Clip skip": "1", "Schedule type": "Automatic", "RNG": "CPU"} if said.fields else {}
    return {**usual, **found}


async def interrogate(call: Call) -> Response:
    """Refuse: no worker describes pictures."""
    asked = call.body(Interrogate)
    raise ThingNotFound("Image not found" if not asked.image else "Model not found")
