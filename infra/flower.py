"""Run Flower for ourselves alone: on the loopback address, behind a password, under `/flower`.

`python -m infra.flower --port=N` is what the supervisor starts; the broker and the password come by the environment,
which other users of the machine cannot read.
"""

import base64
import os
import sys
from pathlib import Path

from infra.celery_app import make_celery
from infra.ports import LOOPBACK
from infra.processes import ChildSpec, set_title
from infra.settings import Settings

NAME = "flower"
URL_PREFIX = "flower"
USER = "imagefleet"


def flower_child(redis_url: str, port: int, password: str, *, log: Path | None = None) -> ChildSpec:
    """Describe the Flower process for a supervisor.

    The password keeps web pages in a browser of this machine out: Flower without one answers every origin.
    """
    return ChildSpec(
        name=NAME,
        argv=(sys.executable, "-m", "infra.flower", f"--port={port}"),
        env={
            "PATH": "/usr/bin:/bin",
            "PYTHONPATH": ":".join(path for path in sys.path if path),
            "IMAGEFLEET_REDIS_URL": redis_url,
            "FLOWER_BASIC_AUTH": f"{USER}:{password}",
        },
        log=log,
    )


def flower_url(port: int) -> str:
    """Return where the proxy finds Flower's pages, without a slash at the end."""
    return f"http://{LOOPBACK}:{port}/{URL_PREFIX}"


def authorization(password: str) -> str:
    """Return the Authorization header the proxy sends."""
    return "Basic " + base64.b64encode(f"{USER}:{password}".encode()).decode("ascii")


def arguments(port: int) -> list[str]:
    """Return Flower's command line."""
    return [
        NAME,
        f"--address={LOOPBACK}",
        f"--port={port}",
        f"--url_prefix={URL_PREFIX}",
        # Revoking and pool control go through our own API.
        "--enable_events=True",
        "--max_tasks=10000",
        # A user's own flowerconfig.py must not change ours.
        f"--conf={os.devnull}",
        "--logging=warning",
    ]


def main() -> None:
    """Serve Flower until stopped."""
    settings = Settings()
    if settings.redis_url is None:
        raise SystemExit("IMAGEFLEET_REDIS_URL is not set")
    set_title(NAME)
    make_celery(settings.redis_url).start(argv=[*arguments(int(sys.argv[1].partition("=")[2]))])


if __name__ == "__main__":
    main()
