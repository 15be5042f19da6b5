"""Put a picture's file where everyone can read it, under a name that only this writer of the job uses."""

from collections.abc import Callable
from typing import Final
from uuid import UUID

import stamina

from infra.storage import Storage, StorageUnavailable
from jobs.store import StoredPicture
from workers.encoding import Encoded, encode
from workers.engines.interface import Pictured
from workers.held import Held

#: Pauses between tries begin and end with these, seconds.
FIRST_PAUSE: Final = 0.1
LONGEST_PAUSE: Final = 2.0


def picture_folder(job: UUID) -> str:
    """Return what the keys of a job's pictures begin with."""
    return f"jobs/{job}"


def epoch_of(key: str) -> int:
    """Return the epoch under which a picture was stored."""
    return int(key.rpartition("/")[2].partition("-")[0])


def picture_key(job: UUID, epoch: int, index: int, encoded: Encoded) -> str:
    """Return the storage key of a picture."""
    return f"{picture_folder(job)}/{epoch}-{index}-{encoded.sha256}.{encoded.extension}"


def store_picture(
    storage: Storage, held: Held, report: Pictured, limit: float, in_vain: Callable[[], bool]
) -> StoredPicture:
    """Encode a picture and put it into storage, trying for `limit` seconds unless that is in vain.

    Raises StorageUnavailable when it cannot be stored.
    """
    encoded = encode(report, held.job.parameters, held.inputs.main(held.job.parameters))
    key = picture_key(held.job.id, held.job.epoch, report.index, encoded)

    def worth_another_try(problem: Exception) -> bool:
        return isinstance(problem, StorageUnavailable) and not in_vain()

    for attempt in stamina.retry_context(
        on=worth_another_try, attempts=None, timeout=limit, wait_initial=FIRST_PAUSE, wait_max=LONGEST_PAUSE
    ):
        with attempt:
            storage.put(key, encoded.data)
    return StoredPicture(
        index=report.index,
        seed=report.seed,
        width=report.width,
        height=report.height,
        mime=encoded.mime,
        bytes=len(encoded.data),
        sha256=encoded.sha256,
        key=key,
    )
