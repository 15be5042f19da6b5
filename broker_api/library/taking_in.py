"""Make a file that lies on this server's disk an entry of its owner."""

import asyncio
import contextlib
import secrets
import shutil
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final
from uuid import UUID

from pydantic import BaseModel, Field

from broker_api.library.file_refusals import refused
from broker_api.problems import RETRY_SECONDS
from broker_api.refusals import StorageUnavailable
from broker_api.services import Services
from infra.settings import Settings
from infra.storage import StorageError
from models_registry.contents.shelving import Wanted, take_in_async
from models_registry.entries import Kind
from models_registry.pulls.fetching import Room
from models_registry.records import Entry, Facts, Visibility
from models_registry.refusals import ModelRefused

#: Where files lie while they arrive; what a killed server left there is removed after a while.
FOLDER: Final = "incoming"


class TakenIn(BaseModel):
    """The entry that a file became."""

    id: UUID
    name: str
    version: str
    ref: str = Field(description="What a job names it by.")
    kind: Kind
    family: str
    variant: str
    base_model: str
    owner: str | None
    visibility: Visibility
    tags: tuple[str, ...]
    trigger_words: tuple[str, ...]
    description: str
    licence: str
    sha256: str | None
    bytes: int


def view_of(entry: Entry) -> TakenIn:
    """Return what is said of an entry that was taken in."""
    return TakenIn.model_validate(entry, from_attributes=True)


def room_of(settings: Settings) -> Room:
    """Return how much may be taken in."""
    return Room(settings.max_model_bytes, settings.disk_headroom_bytes)


@contextlib.asynccontextmanager
async def incoming(settings: Settings) -> AsyncIterator[Path]:
    """Yield a place for a file, in a folder of its own that is removed afterwards."""
    folder = settings.home.absolute() / FOLDER

    def make() -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        old = time.time() - settings.upload_hours * 3600
        for left in folder.iterdir():
            with contextlib.suppress(OSError):
                if left.stat().st_mtime < old:
                    shutil.rmtree(left, ignore_errors=True)
        made = folder / secrets.token_hex(8)
        made.mkdir(mode=0o700)
        return made

    made = await asyncio.to_thread(make)
    try:
        yield made / "file"
    finally:
        await asyncio.to_thread(shutil.rmtree, made, ignore_errors=True)


async def take_in_file(services: Services, place: Path, wanted: Wanted, facts: Facts) -> UUID:
    """Check, hash and store a file, and return the entry's id; refusals are the API's own, and nothing is left of what was refused."""
    try:
        # A large file is read for a while, with a connection held: a few at once, so that requests find theirs.
        async with services.taking_in, services.pool.connection() as connection:
            shelved = await take_in_async(connection, place, wanted, facts, storage=services.storage)
    except ModelRefused as refusal:
        raise refused(refusal) from None
    except StorageError as problem:
        raise StorageUnavailable(
            f"The storage does not take the file: {problem}.", headers={"retry-after": str(RETRY_SECONDS)}
        ) from None
    return shelved.id
