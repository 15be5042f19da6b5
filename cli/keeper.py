"""`imagefleet keeper`: run the caretaker; of several, one acts and the others stand by."""

import contextlib
import signal
import threading
from collections.abc import Iterator

from cli.failure import CommandFailed
from cli.running.folders import model_folders
from cli.running.services import find_services
from infra.celery_app import make_celery
from infra.guarded_http import AllowListInvalid
from infra.logging import configure_logging
from infra.processes import set_title
from infra.redis import connect
from infra.settings import Settings
from infra.storage import Storage, open_storage
from keeper.backing_up import backing_up
from keeper.keeper import Keeper
from keeper.librarian import librarian
from keeper.pulling import pulling

#: Longer silence of Redis must not hold up the sweeping of leases.
REDIS_SECONDS = 1.0


def keeper() -> None:
    """Run the caretaker: dead workers' jobs, lost wake-ups, deadlines, retention, downloads, model folders, backups."""
    settings = Settings()
    configure_logging(process="keeper", level=settings.log_level, form=settings.log_format)
    set_title("keeper")
    services = find_services(settings)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    storage = open_storage(settings.storage, endpoint=settings.storage_endpoint)
    with (
        _fetching(settings, services.database_url, storage, stop),
        librarian(services.database_url, storage, model_folders(settings), settings.watch_seconds, stop),
        backing_up(services.database_url, storage, stop),
        connect(services.redis_url, name="keeper", reply_seconds=REDIS_SECONDS) as client,
    ):
        Keeper(
            database_url=services.database_url,
            application=make_celery(services.redis_url),
            redis=client,
            storage=storage,
            pause_seconds=settings.keeper_seconds,
            retention_days=settings.retention_days,
        ).run(stop)


@contextlib.contextmanager
def _fetching(settings: Settings, database_url: str, storage: Storage, stop: threading.Event) -> Iterator[None]:
    try:
        with pulling(settings, database_url, storage, stop):
            yield
    except AllowListInvalid as problem:
        raise CommandFailed(f"IMAGEFLEET_FETCH_ALLOW cannot be used: {problem}.") from None
