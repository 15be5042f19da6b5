"""Understand what a fleet answers, and name things in paths."""

import re
from typing import TypeVar
from uuid import UUID

from pydantic import BaseModel, ValidationError

from client.errors import AnswerUnusable, RequestUnusable

Answer = TypeVar("Answer", bound=BaseModel)


def understood(kind: type[Answer], data: str | bytes) -> Answer:
    """Return an answer as what it should be, raising `AnswerUnusable`."""
    try:
        return kind.model_validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise AnswerUnusable(
            f"the fleet's answer has no usable {where}: {first['msg']}; is it of another version?"
        ) from None


def segment(text: UUID | str) -> str:
    """Return a part of a path that cannot become several."""
    found = str(text)
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,200}", found, re.ASCII):
        raise RequestUnusable(f"{found[:100]!r} is no id")
    return found
