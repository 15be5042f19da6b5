"""The processes of a fleet on one machine, as a supervisor starts them."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from infra.embedded.services import ServiceUrls
from infra.processes import ChildSpec
from infra.settings import Settings
from workers.devices import find_gpus

#: What a worker may need beyond its drain time, with a slow database, to record, sign off and stop its engine, seconds.
WORKER_MARGIN = 30.0


def choose_devices(settings: Settings, workers: int | None) -> list[str]:
    """Return the devices of this machine to start workers on, as `worker --device` takes them."""
    if settings.device == "cpu":
        return _cpus(settings, workers)
    if settings.device != "auto":
        return [settings.device][:workers]
    gpus = [f"{gpu.kind}:{gpu.index}" for gpu in find_gpus()]
    if gpus:
        return gpus[:workers]
    return _cpus(settings, workers)


def _cpus(settings: Settings, workers: int | None) -> list[str]:
    return [f"cpu:{number}" for number in range(settings.cpu_workers if workers is None else workers)]


class Parts:
    """Describe each process: all get the same settings, the servers' addresses and a log file of their own."""

    def __init__(
        self, settings: Settings, services: ServiceUrls, environment: Mapping[str, str], devices: Sequence[str]
    ) -> None:
        self._settings = settings
        self._logs = settings.home.absolute() / "logs"
        own = {
            "IMAGEFLEET_HOME": str(settings.home.absolute()),
            "IMAGEFLEET_DATABASE_URL": services.database_url,
            "IMAGEFLEET_REDIS_URL": services.redis_url,
            "IMAGEFLEET_STORAGE_URL": settings.storage,
            # CPU workers share the cores by it.
            "IMAGEFLEET_CPU_WORKERS": str(max(1, len(devices))),
        }
        for name in ("flower_url", "flower_password"):
            if getattr(settings, name):
                own[f"IMAGEFLEET_{name.upper()}"] = getattr(settings, name)
        self._environment = {**environment, **own}

    def api(self) -> ChildSpec:
        """Describe the HTTP process."""
        return self._part("api", ["api"], grace=10.0)

    def keeper(self) -> ChildSpec:
        """Describe the caretaker."""
        return self._part("keeper", ["keeper"], grace=5.0)

    def worker(self, device: str) -> ChildSpec:
        """Describe the worker of one device, e.g. `cuda:0` or `cpu:1`."""
        # Workers stop together: each may take its whole drain time.
        return self._part(
            f"worker {device}",
            ["worker", "--device", device],
            grace=self._settings.drain_seconds + WORKER_MARGIN,
            group="workers",
        )

    def _part(self, name: str, arguments: Sequence[str], *, grace: float, group: str | None = None) -> ChildSpec:
        return ChildSpec(
            name=name,
            argv=(sys.executable, "-m", "cli.main", *arguments),
            env=self._environment,
            log=self.log(name),
            grace=grace,
            group=group,
        )

    def log(self, name: str) -> Path:
        """Return the log file of a part."""
        return self._logs / f"{name.replace(' ', '-').replace(':', '')}.log"
