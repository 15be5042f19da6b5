"""Make a backup every so many hours, and keep the newest of those."""

from datetime import datetime
from typing import Final

from pydantic import BaseModel

from infra.database import Connection
from infra.storage import Storage
from models_registry.archives.backups import Backup, create_backup, delete_backup
from models_registry.archives.manifest import Files

_COLUMNS: Final = "every_hours, keep, files, next_at, failure"
_READ: Final = f"select {_COLUMNS} from backup_schedule"
_SET: Final = f"""
update backup_schedule set every_hours = %(every_hours)s::float8, keep = %(keep)s, files = %(files)s, failure = null,
    next_at = now() + make_interval(secs => %(every_hours)s::float8 * 3600) returning {_COLUMNS}
"""
# Set ahead before the work begins: another keeper finds nothing due, and one that is killed tries again at the next time.
_TAKE: Final = f"""
update backup_schedule set next_at = now() + make_interval(secs => every_hours * 3600)
where next_at <= now() and every_hours is not null returning {_COLUMNS}
"""
_FAILED: Final = "update backup_schedule set failure = %s"
_OLD: Final = "select id from backups where made_by is null order by made_at desc, id desc offset %s"


class Schedule(BaseModel):
    """When backups are made by themselves."""

    every_hours: float | None
    keep: int
    files: Files
    next_at: datetime | None
    failure: str | None


def read_schedule(connection: Connection) -> Schedule:
    """Return the schedule."""
    return Schedule.model_validate(connection.execute(_READ).fetchone())


def set_schedule(connection: Connection, *, every_hours: float | None, keep: int, files: Files) -> Schedule:
    """Set the schedule; the first backup is made after its hours have passed, and none without hours."""
    values = {"every_hours": every_hours, "keep": keep, "files": files}
    return Schedule.model_validate(connection.execute(_SET, values).fetchone())


def make_what_is_due(connection: Connection, storage: Storage) -> Backup | None:
    """Make a backup where one is due, delete those beyond what is kept, and return it; what fails is recorded and raised."""
    row = connection.execute(_TAKE).fetchone()
    if row is None:
        return None
    schedule = Schedule.model_validate(row)
    try:
        made = create_backup(connection, storage, schedule.files, None)
        for old in connection.execute(_OLD, (schedule.keep,)).fetchall():
            delete_backup(connection, storage, old["id"])
    except Exception as problem:
        connection.execute(_FAILED, (f"{type(problem).__name__}: {problem}"[:1000],))
        raise
    connection.execute(_FAILED, (None,))
    return made
