"""Keep what one owns: a lease counts by the database's clock and only for the epoch that took the job."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

import psycopg
from psycopg.rows import tuple_row


@dataclass(frozen=True)
class Beat:
    """One running job and how far it is."""

    job: UUID
    epoch: int
    step: int


_RENEW: Final = """
update jobs set lease_until = clock_timestamp() + make_interval(secs => %(lease)s), step = beat.step
from unnest(%(ids)s::uuid[], %(epochs)s::int[], %(steps)s::int[]) beat (id, epoch, step)
where jobs.id = beat.id and jobs.epoch = beat.epoch and jobs.state = 'running'
returning jobs.id, jobs.cancel_requested_at is not null
"""


def renew(connection: "psycopg.Connection[Any]", beats: Sequence[Beat], lease_seconds: float) -> Mapping[UUID, bool]:
    """Renew leases; return for each job still owned whether its cancel was requested. A job that is missing was lost: stop at once."""
    if not beats:
        return {}
    values = {
        "lease": lease_seconds,
        "ids": [beat.job for beat in beats],
        "epochs": [beat.epoch for beat in beats],
        "steps": [beat.step for beat in beats],
    }
    with connection.cursor(row_factory=tuple_row) as cursor:
        return dict(cursor.execute(_RENEW, values).fetchall())
