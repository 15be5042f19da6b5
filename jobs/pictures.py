"""Where a request names pictures, and how it names them; pure.

Inline pictures become uploads before a job is stored: rows hold `upload:<sha256>` and never a picture.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar
from uuid import UUID

from jobs.contract import JobParameters, Request
from jobs.parts import Control

UPLOAD: Final = "upload:"
JOB: Final = "job:"
_UPLOAD: Final = re.compile(r"upload:([0-9a-f]{64})")
_JOB: Final = re.compile(r"job:([0-9a-fA-F-]{32,36})/(\d{1,5})")
#: Fields of their own; `controls` hold further ones.
_FIELDS: Final = ("image", "mask")

Asked = TypeVar("Asked", bound=Request)


def upload_ref(sha256: str) -> str:
    """Return how stored parameters name an upload."""
    return f"{UPLOAD}{sha256}"


def upload_of(text: str) -> str | None:
    """Return the SHA-256 that `upload:<sha256>` names; None for anything else."""
    found = _UPLOAD.fullmatch(text)
    return found[1] if found else None


def job_picture_of(text: str) -> tuple[UUID, int] | None:
    """Return the job and the index that `job:<id>/<n>` names; None for anything else."""
    found = _JOB.fullmatch(text)
    if found is None:
        return None
    try:
        return UUID(found[1]), int(found[2])
    except ValueError:
        return None


def pictures_of(asked: Request) -> Mapping[str, str]:
    """Return every picture a request names, by the dotted path of its field."""
    found: dict[str, str] = {}
    for field in _FIELDS:
        value = getattr(asked, field, None)
        if value is not None:
            found[field] = value
    for place, control in enumerate(_controls(asked)):
        found[f"controls.{place}.image"] = control.image
    return found


def with_pictures(asked: Asked, change: Callable[[str, str], str]) -> Asked:
    """Return the request with each picture replaced by what `change` makes of its field's path and its text."""
    update: dict[str, Any] = {
        field: change(field, value) for field in _FIELDS if (value := getattr(asked, field, None)) is not None
    }
    controls = _controls(asked)
    if controls:
        update["controls"] = [
            control.model_copy(update={"image": change(f"controls.{place}.image", control.image)})
            for place, control in enumerate(controls)
        ]
    return asked.model_copy(update=update)


def uploads_of(parameters: JobParameters) -> list[str]:
    """Return the SHA-256 of every upload that stored parameters name, each once."""
    found = (upload_of(text) for text in pictures_of(parameters).values())
    return sorted({sha256 for sha256 in found if sha256 is not None})


def _controls(asked: Request) -> list[Control]:
    return list(getattr(asked, "controls", ()))
