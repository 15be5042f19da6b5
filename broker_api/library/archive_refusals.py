"""Why archives are refused over HTTP: the registry's reasons, each under its own code."""

from http import HTTPStatus
from typing import Final

from broker_api.refusals import HttpRefused
from models_registry.archives.refusals import REFUSALS, ArchiveRefused, ArchiveTooLarge, ImportRefused, RestoreBlocked

_STATUSES: Final = {
    ArchiveTooLarge: HTTPStatus.REQUEST_ENTITY_TOO_LARGE, ImportRefused: HTTPStatus.CONFLICT, RestoreBlocked: HTTPStatus.CONFLICT,
}  # fmt: skip


def _refusal(reason: type[ArchiveRefused]) -> type[HttpRefused]:
    status = _STATUSES.get(reason, HTTPStatus.UNPROCESSABLE_ENTITY)
    named = {"code": reason.code, "status": int(status), "__doc__": reason.__doc__, "__module__": __name__}
    return type(reason.__name__, (HttpRefused,), named)


_BY_REASON: Final = {reason: _refusal(reason) for reason in REFUSALS}
#: Of every route that reads an archive.
ARCHIVE_ERRORS: Final = tuple(_BY_REASON.values())


def refused(reason: ArchiveRefused) -> HttpRefused:
    """Return the answer to an archive that was refused."""
    message = f"{reason.message.removesuffix('.')}."
    return _BY_REASON[type(reason)](message, field=reason.member)


class BackupRunning(HttpRefused):
    """A backup is being made or restored already."""

    code = "backup_running"
    status = 409
