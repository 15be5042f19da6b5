"""How long a job waits between being accepted and being started on an idle fleet, by the database's clock."""

from typing import Any

import psycopg

from benchmarks.figures import percentile
from tests.fleet_process import FleetProcess

JOBS = 150
_WAITS = "select extract(epoch from started_at - created_at) * 1000 from jobs where id = any (%s::uuid[])"


def measure(fleet: FleetProcess) -> dict[str, Any]:
    """Submit one job after the other to idle workers with the engine that only pretends."""
    with fleet.client() as http:
        jobs = []
        for _ in range(JOBS):
            answer = http.post("/v1/jobs?wait=30", json={"prompt": "x", "steps": 1, "preview_every": 0})
            jobs.append(answer.json()["id"])
    with psycopg.connect(fleet.services()["database_url"]) as own:
        waits = [float(row[0]) for row in own.execute(_WAITS, (jobs,)).fetchall()]
    return {
        "jobs": len(waits),
        "submit_to_start_p50_ms": round(percentile(waits, 0.5), 2),
        "submit_to_start_p99_ms": round(percentile(waits, 0.99), 2),
    }
