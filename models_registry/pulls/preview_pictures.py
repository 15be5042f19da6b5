"""Fetch the pictures that a source shows of a model, and keep small ones of our own making.

Nothing of a foreign file is kept: each is decoded inside limits and encoded anew.
"""

import hashlib
import io
from collections.abc import Sequence
from typing import Any, Final, NamedTuple
from uuid import UUID

from PIL import Image, ImageOps
from psycopg import Connection

from infra.logging import get_logger
from infra.storage import Storage, StorageError
from models_registry.pulls.failures import PullError
from models_registry.pulls.web import Web

log = get_logger(__name__)

PREVIEW_REFUSED: Final = "preview_refused"

MOST: Final = 4
MOST_BYTES: Final = 16 * 1024 * 1024
MOST_PIXELS: Final = 32 * 1024 * 1024
#: Longer side, pixels.
SIDE: Final = 1024
_FORMATS: Final = ("PNG", "JPEG", "WEBP")
_MIME: Final = "image/webp"
_QUALITY: Final = 82

# Where people, or an earlier look-up, gave pictures, these stay.
_ADD: Final = """
with wanted_again as (
    delete from garbage where key = any (%(keys)s)
)
insert into model_previews (model, index, sha256, mime, width, height, bytes, key)
select models.id, sent.index - 1, sent.sha256, %(mime)s, sent.width, sent.height, sent.bytes, sent.key
from models, unnest(%(digests)s::text[], %(widths)s::int[], %(heights)s::int[], %(sizes)s::bigint[], %(keys)s::text[])
    with ordinality sent (sha256, width, height, bytes, key, index)
where models.id = %(model)s and not exists (select from model_previews where model = models.id)
on conflict do nothing returning key
"""
_ABANDON: Final = "insert into garbage (key) select unnest(%(keys)s::text[]) on conflict do nothing"


class _Preview(NamedTuple):
    sha256: str
    width: int
    height: int
    data: bytes

    @property
    def key(self) -> str:
        return f"previews/{self.sha256}"


def add_previews(connection: "Connection[Any]", storage: Storage, web: Web, model: UUID, urls: Sequence[str]) -> int:
    """Give an entry without pictures those at the addresses, and return how many; one that cannot be had is left out."""
    found = {preview.sha256: preview for url in urls[:MOST] if (preview := _fetch(web, url)) is not None}
    if not found:
        return 0
    previews = list(found.values())
    values = {
        "model": model,
        "mime": _MIME,
        "digests": [each.sha256 for each in previews],
        "widths": [each.width for each in previews],
        "heights": [each.height for each in previews],
        "sizes": [len(each.data) for each in previews],
        "keys": [each.key for each in previews],
    }
    try:
        _store(storage, previews)
        added = len(connection.execute(_ADD, values).fetchall())
        if not added:
            # Others may have the same bytes: the keeper looks before it removes them.
            connection.execute(_ABANDON, values)
            return 0
        # What the keeper was about to remove is gone now.
        _store(storage, previews)
    except StorageError as problem:
        log.warning(PREVIEW_REFUSED, model=str(model), problem=str(problem))
        return 0
    return added


def _store(storage: Storage, previews: Sequence[_Preview]) -> None:
    for preview in previews:
        storage.put(preview.key, preview.data)


def _fetch(web: Web, url: str) -> _Preview | None:
    try:
        return _encoded(web.get_bytes(url, MOST_BYTES))
    except (PullError, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as problem:
        log.info(PREVIEW_REFUSED, url=url.partition("?")[0], problem=str(problem)[:200])
        return None


def _encoded(data: bytes) -> _Preview:
    with Image.open(io.BytesIO(data), formats=_FORMATS) as opened:
        if opened.width * opened.height > MOST_PIXELS:
            raise ValueError("the picture has more pixels than a preview needs")
        opened.draft("RGB", (SIDE, SIDE))
        picture = ImageOps.exif_transpose(opened).convert("RGB")
    picture.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    # Without what the file says of itself.
    picture.info = {}
    file = io.BytesIO()
    picture.save(file, "WEBP", quality=_QUALITY, method=2)
    encoded = file.getvalue()
    return _Preview(hashlib.sha256(encoded).hexdigest(), picture.width, picture.height, encoded)
