"""Say what was drawn as OpenAI says it; pure."""

import base64
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from broker_api.doors.openai.payloads import Drawing
from broker_api.doors.openai.presets import level_of
from jobs.contract import DiffusionParameters, JobView

#: Side of the square of pixels that counts as one token of a picture.
TOKEN_SIDE: Final = 32
#: A word or a mark counts as one token of a text.
_WORDS: Final = re.compile(r"\w+|[^\w\s]")


@dataclass(frozen=True)
class Facts:
    """What every answer and every event says of the pictures."""

    created: int
    size: str
    quality: str
    output_format: str
    usage: dict[str, Any]

    def members(self, created: str) -> dict[str, Any]:
        """Return the members; `created` is the name of the time, which differs between answers and events."""
        return {
            created: self.created,
            "size": self.size,
            "quality": self.quality,
            "background": "opaque",
            "output_format": self.output_format,
        }


def facts_of(view: JobView, payload: Drawing, source_tokens: int) -> Facts:
    """Return the facts of a job; `source_tokens` are those of the pictures that it began with."""
    request = view.request
    size = f"{request.width}x{request.height}"
    if view.images:
        size = f"{view.images[0].width}x{view.images[0].height}"
    return Facts(
        created=int(view.created_at.timestamp()),
        size=size,
        quality=level_of(payload.quality),
        output_format=payload.output_format,
        usage=_usage(view, source_tokens),
    )


def picture_tokens(width: int, height: int) -> int:
    """Return the tokens a picture counts as."""
    return math.ceil(width / TOKEN_SIDE) * math.ceil(height / TOKEN_SIDE)


def with_bytes(facts: Facts, pictures: Sequence[bytes]) -> dict[str, Any]:
    """Return the answer that carries the pictures themselves."""
    return _answer(facts, [{"b64_json": encoded(picture)} for picture in pictures])


def with_urls(facts: Facts, urls: Sequence[str]) -> dict[str, Any]:
    """Return the answer that says where the pictures are."""
    return _answer(facts, [{"url": url} for url in urls])


def encoded(picture: bytes) -> str:
    """Return a picture as JSON carries it."""
    return base64.b64encode(picture).decode()


def _answer(facts: Facts, data: list[dict[str, str]]) -> dict[str, Any]:
    return {**facts.members("created"), "data": data, "usage": facts.usage}


def _usage(view: JobView, source_tokens: int) -> dict[str, Any]:
    request = view.request
    prompts = (request.prompt, request.negative_prompt) if isinstance(request, DiffusionParameters) else ()
    text = sum(len(_WORDS.findall(prompt)) for prompt in prompts)
    output = sum(picture_tokens(image.width, image.height) for image in view.images)
    return {
        "input_tokens": text + source_tokens,
        "input_tokens_details": {"text_tokens": text, "image_tokens": source_tokens},
        "output_tokens": output,
        "output_tokens_details": {"text_tokens": 0, "image_tokens": output},
        "total_tokens": text + source_tokens + output,
    }
