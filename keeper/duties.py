"""What the leader does each round, one function a duty; each is harmless when repeated or cut short."""

import time
from collections.abc import Sequence
from typing import Any, Final

import celery
import psycopg
import redis
from kombu.exceptions import KombuError

from infra.logging import get_logger
from infra.storage import Storage, StorageUnavailable
from jobs import sweeps
from jobs.changes import Change
from jobs.dispatch import wake
from jobs.events import EventWriter
from jobs.fleet import Fleet
from jobs.history import rollups
from jobs.history.usage import count_usage
from jobs.roster import fleet_now
from jobs.strays import is_unused_picture
from jobs.uploads import upload_of_key
from models_registry import pins
from models_registry.content import content_of_key, is_unused_content
from models_registry.following import forget_deletions
from models_registry.preview_bytes import is_unused_preview, preview_of_key

log = get_logger(__name__)

JOB_TAKEN_BACK: Final = "job_taken_back"
JOB_EXPIRED: Final = "job_expired"
JOBS_REROUTED: Final = "jobs_rerouted"
JOBS_RETIRED: Final = "jobs_retired"
UPLOADS_RETIRED: Final = "uploads_retired"
REDIS_AWAY: Final = "redis_away"
STORAGE_AWAY: Final = "storage_away"

#: Deleting objects may hold up the next round for so long: leases are swept in between.
TIDY_SECONDS: Final = 2.0


def take_back(connection: "psycopg.Connection[Any]") -> list[Change]:
    """Requeue what dead workers held, and fail what waited past its deadline."""
    lost = sweeps.expire_leases(connection)
    late = sweeps.expire_deadlines(connection)
    for change in lost:
        log.warning(JOB_TAKEN_BACK, job=str(change.job), epoch=change.epoch, outcome=change.type)
    for change in late:
        log.info(JOB_EXPIRED, job=str(change.job))
    return [*lost, *late]


def reroute(connection: "psycopg.Connection[Any]") -> Fleet:
    """Move waiting jobs to where the present workers would take them, and return who is there."""
    fleet = fleet_now(connection)
    moved = sweeps.reroute(connection, fleet)
    if moved:
        log.info(JOBS_REROUTED, queues=moved)
    return fleet


def announce(writer: EventWriter, changes: Sequence[Change]) -> None:
    """Tell watchers; what Redis does not take, they learn from the database."""
    try:
        writer.publish([change.event for change in changes])
    except redis.RedisError as problem:
        log.warning(REDIS_AWAY, problem=str(problem))


def wake_workers(
    connection: "psycopg.Connection[Any]", application: "celery.Celery", client: "redis.Redis", fleet: Fleet
) -> list[str]:
    """Send a wake-up to every queue where a job could start and a worker listens; return those queues."""
    served = sorted({queue for worker in fleet.online() for queue in worker.queues})
    woken = []
    try:
        for queue in sweeps.waiting_queues(connection, served):
            # As many as may wait there: the first to be woken may not be the one whose memory holds the job.
            workers = fleet.serving(queue)
            if sum(wake(application, client, queue, workers) for _ in range(workers)):
                woken.append(queue)
    except (redis.RedisError, KombuError, OSError) as problem:
        log.warning(REDIS_AWAY, problem=str(problem))
    return woken


def count_uses(connection: "psycopg.Connection[Any]") -> None:
    """Count what ended since the last round, for as long as a round may take."""
    end = time.monotonic() + TIDY_SECONDS
    while count_usage(connection) and time.monotonic() < end:
        pass


def tidy(connection: "psycopg.Connection[Any]", storage: Storage, retention_days: float) -> None:
    """Count what ended, delete what was kept long enough, and the objects no row refers to."""
    rollups.roll_up(connection)
    retired = sweeps.retire(connection, retention_days)
    if retired:
        log.info(JOBS_RETIRED, jobs=retired)
    unused = sweeps.retire_uploads(connection, retention_days)
    if unused:
        log.info(UPLOADS_RETIRED, uploads=unused)
    sweeps.forget(connection)
    pins.expire(connection)
    forget_deletions(connection)
    end = time.monotonic() + TIDY_SECONDS
    for key in sweeps.garbage_keys(connection):
        try:
            _remove(connection, storage, key)
        except StorageUnavailable as problem:
            # This one waits at the end of the line, so that it does not keep the others from being tried.
            log.warning(STORAGE_AWAY, key=key, problem=str(problem))
            sweeps.garbage_postponed(connection, key)
        if time.monotonic() > end:
            return


def _remove(connection: "psycopg.Connection[Any]", storage: Storage, key: str) -> None:
    """Remove an object no row refers to; what lies under its content is shared, and may have come again since."""
    with connection.transaction():
        if _is_unused(connection, key):
            storage.delete(key)
        sweeps.garbage_removed(connection, key)


def _is_unused(connection: "psycopg.Connection[Any]", key: str) -> bool:
    """Tell whether no row shares an object, and lock that fact."""
    if (upload := upload_of_key(key)) is not None:
        return sweeps.is_unused_upload(connection, key, upload)
    if (preview := preview_of_key(key)) is not None:
        return is_unused_preview(connection, key, preview)
    if (content := content_of_key(key)) is not None:
        return is_unused_content(connection, key, content)
    return is_unused_picture(connection, key)
