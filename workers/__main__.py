"""Run one worker: `python -m workers`, told everything by IMAGEFLEET_* variables."""

import sys

from infra.embedded.services import ServiceUrls, discover
from infra.logging import configure_logging
from infra.settings import Settings
from workers.celery_worker import run_worker
from workers.devices import DeviceUnknown
from workers.enrolment import WorkerNotStarted


def main() -> int:
    """Find the services and run; return the exit status."""
    settings = Settings()
    configure_logging(level=settings.log_level, form=settings.log_format, process="worker")
    found = None
    if settings.database_url is None or settings.redis_url is None:
        found = discover(settings.home)
    database_url = settings.database_url or (found and found.database_url)
    redis_url = settings.redis_url or (found and found.redis_url)
    if not database_url or not redis_url:
        sys.stderr.write(
            f"No fleet runs in {settings.home}: start it with `imagefleet up`, or name its servers by IMAGEFLEET_DATABASE_URL and "
            "IMAGEFLEET_REDIS_URL.\n"
        )
        return 2
    try:
        return run_worker(settings, ServiceUrls(database_url, redis_url))
    except (WorkerNotStarted, DeviceUnknown) as problem:
        sys.stderr.write(f"{problem}\n")
        return 2


if __name__ == "__main__":
    raise SystemExit(main())
