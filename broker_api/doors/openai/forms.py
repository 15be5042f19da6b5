"""Read a form: its files, and its fields with what their brackets say (`loras[][name]`)."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request

from broker_api.doors.openai.refusals import FormInvalid
from broker_api.refusals import MediaTypeUnsupported

MOST_FILES: Final = 18
MOST_FIELDS: Final = 200
LONGEST_FIELD: Final = 256 * 1024
#: Rows of one list of objects.
_MOST_ROWS: Final = 100
_NAME: Final = re.compile(r"(\w{1,100})((?:\[\w{0,100}\]){0,2})")
_BRACKET: Final = re.compile(r"\[(\w*)\]")


@dataclass(frozen=True)
class Form:
    """What a form holds."""

    fields: dict[str, Any]
    #: By the name without brackets, in the order sent.
    files: dict[str, list[bytes]]


async def read_form(request: Request) -> Form:
    """Return a form's fields and files, raising `FormInvalid` or `MediaTypeUnsupported`."""
    given = request.headers.get("content-type", "")
    if given.partition(";")[0].strip().lower() != "multipart/form-data":
        raise MediaTypeUnsupported(
            "This path reads multipart/form-data with the picture as a file.", field="Content-Type"
        )
    fields: list[tuple[str, str]] = []
    files: dict[str, list[bytes]] = {}
    try:
        async with request.form(max_files=MOST_FILES, max_fields=MOST_FIELDS, max_part_size=LONGEST_FIELD) as form:
            for name, value in form.multi_items():
                if isinstance(value, UploadFile):
                    files.setdefault(name.removesuffix("[]"), []).append(await value.read())
                else:
                    fields.append((name, value))
    except HTTPException as problem:
        raise FormInvalid(f"The form cannot be read: {problem.detail}.") from None
    return Form(nested(fields), files)


def nested(items: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """Return fields by name: `a[]` is a list, `a[key]` an object, `a[][key]` and `a[0][key]` lists of objects paired by position.

    An empty text is no value, and a name that cannot be understood is ignored, as unknown fields are.
    """
    found: dict[str, Any] = {}
    rows: dict[str, dict[int, dict[str, str]]] = {}
    for name, value in items:
        parts = _NAME.fullmatch(name)
        if parts is None or not value:
            continue
        base = parts[1]
        match _BRACKET.findall(parts[2]):
            case []:
                found[base] = value
            case [""]:
                found[base] = [*_list(found.get(base)), value]
            case [key]:
                found[base] = {**(found[base] if isinstance(found.get(base), dict) else {}), key: value}
            case [place, key]:
                _put(rows.setdefault(base, {}), place, key, value)
    return found | {base: [row for _, row in sorted(table.items())] for base, table in rows.items()}


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _put(table: dict[int, dict[str, str]], place: str, key: str, value: str) -> None:
    # Without a number, equal names are counted.
    row = int(place) if place.isdecimal() else sum(key in each for each in table.values())
    if row < _MOST_ROWS:
        table.setdefault(row, {})[key] = value
