"""Read out of a picture's file how it was made: our own metadata, or the text that A1111 and its relatives write."""

import io
import json
import re
from typing import Any, Final
from xml.sax.saxutils import unescape

from PIL import Image
from PIL.ExifTags import IFD, Base

from broker_api.refusals import MetadataMissing
from jobs.errors import PictureRefused
from jobs.prompts.infotext import parse_infotext
from jobs.replaying import request_of_infotext, without_foreign

_FORMATS: Final = ("PNG", "JPEG", "WEBP")
_XMP: Final = re.compile(r"<imagefleet:parameters>(.*?)</imagefleet:parameters>", re.DOTALL)
#: As EXIF says how a comment is written.
_UNICODE: Final = b"UNICODE\0"
_ASCII: Final = b"ASCII\0\0\0"
#: A text longer than this is no metadata of a picture.
_LONGEST: Final = 1024 * 1024


def request_in(file: bytes, *, field: str = "image") -> dict[str, Any]:
    """Return the request that a picture's file describes, raising `PictureRefused` or `MetadataMissing`."""
    ours, infotext = texts_in(file, field)
    if ours:
        try:
            data = json.loads(ours)
        except (ValueError, RecursionError):
            data = None
        if isinstance(data, dict):
            return without_foreign(data)
    if infotext:
        return request_of_infotext(parse_infotext(infotext))
    raise MetadataMissing("The picture's file does not say how it was made.", field=field)


def texts_in(file: bytes, field: str) -> tuple[str, str]:
    """Return our JSON and the infotext, empty where there is none; no pixel is decoded."""
    try:
        with Image.open(io.BytesIO(file), formats=_FORMATS) as picture:
            ours = picture.info.get("imagefleet") or _from_xmp(picture.info.get("xmp"))
            infotext = picture.info.get("parameters") or _from_exif(picture)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise PictureRefused(f"The picture cannot be opened: {error}.", field=field) from None
    return _bounded(ours), _bounded(infotext)


def _bounded(text: object) -> str:
    return text if isinstance(text, str) and len(text) <= _LONGEST else ""


def _from_xmp(xmp: object) -> str:
    if not isinstance(xmp, bytes):
        return ""
    found = _XMP.search(xmp[:_LONGEST].decode("utf-8", "replace"))
    return unescape(found[1]) if found else ""


def _from_exif(picture: Image.Image) -> str:
    comment = picture.getexif().get_ifd(IFD.Exif).get(Base.UserComment)
    if isinstance(comment, str):
        return comment
    if not isinstance(comment, bytes):
        return ""
    if comment.startswith(_UNICODE):
        return comment.removeprefix(_UNICODE).decode("utf-16-be", "replace")
    return comment.removeprefix(_ASCII).decode("utf-8", "replace")
