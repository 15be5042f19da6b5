"""`make bench`: take every measurement, print the figures, and keep them as JSON."""

import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks import (
    adapter_switch,
    batches,
    engine_overhead,
    gallery_frames,
    intake,
    library_search,
    model_switch,
    start,
    whole_job,
)
from tests.fleet_process import FleetProcess

RESULTS = Path(__file__).parent / "results"
LIBRARIES = ("torch", "diffusers", "celery", "kombu", "redis", "psycopg", "starlette", "uvicorn")


def _on_a_fleet(measure: Callable[[FleetProcess], dict[str, Any]], **settings: Any) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="imagefleet-bench-") as folder:
        fleet = FleetProcess(Path(folder) / "home", threads=1, **settings)
        fleet.start()
        try:
            return measure(fleet)
        finally:
            fleet.stop()


def _commit() -> str:
    return subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()


def main() -> None:
    """Measure, print, and write one dated file."""
    measurements: dict[str, Callable[[], dict[str, Any]]] = {
        "intake": lambda: _on_a_fleet(intake.measure, workers=0, engine="fake"),
        "batches": lambda: _on_a_fleet(batches.measure, workers=0, engine="fake"),
        "library_search": lambda: _on_a_fleet(library_search.measure, workers=0, engine="fake"),
        "gallery_frames": lambda: _on_a_fleet(gallery_frames.measure, workers=1, engine="fake"),
        "start": lambda: _on_a_fleet(start.measure, workers=2, engine="fake"),
        "whole_job": lambda: _on_a_fleet(whole_job.measure, workers=1),
        "engine_overhead": engine_overhead.measure,
        "adapter_switch": adapter_switch.measure,
        "model_switch": model_switch.measure,
    }
    wanted = sys.argv[1:] or list(measurements)
    figures = {}
    for name in wanted:
        print(f"{name} …", flush=True)
        figures[name] = measurements[name]()
        print(json.dumps(figures[name], indent=2), flush=True)
    now = datetime.now(UTC)
    report = {
        "taken_at": now.isoformat(timespec="seconds"),
        "commit": _commit(),
        "machine": {"processor": platform.machine(), "cores": os.cpu_count(), "python": platform.python_version()},
        "versions": {name: version(name) for name in LIBRARIES},
        "figures": figures,
    }
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{now:%Y-%m-%d-%H%M}-cpu.json"
    path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(f"Written to {path}")


if __name__ == "__main__":
    main()
