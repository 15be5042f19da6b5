"""How long a batch of 500 jobs takes to be accepted, against a bare multi-row INSERT of the same rows on the same server."""

import asyncio
import json
import time
import uuid
from typing import Any

import httpx
import psycopg

from benchmarks.figures import summary
from tests.fleet_process import FleetProcess

JOBS = 500
ROUNDS = 7
REQUEST = {"prompt": "a red circle on a blue background", "steps": 20, "width": 128, "height": 128}

_TABLE = """
create table if not exists bare_batch (id uuid primary key, owner text, queue text, priority smallint, state text, request jsonb,
    created_at timestamptz default now())
"""
_BARE = "insert into bare_batch (id, owner, queue, priority, state, request) values (%s, 'bench', 'txt2img.cpu', 5, 'queued', %s)"


async def _accept(client: httpx.AsyncClient, first: int) -> float:
    body = {"request": REQUEST, "matrix": {"seed": list(range(first, first + JOBS))}}
    began = time.perf_counter()
    answer = await client.post("/v1/batches", json=body)
    seconds = time.perf_counter() - began
    answer.raise_for_status()
    return seconds


async def _bare(connection: "psycopg.AsyncConnection[Any]") -> float:
    rows = [(uuid.uuid4(), json.dumps(REQUEST)) for _ in range(JOBS)]
    began = time.perf_counter()
    async with connection.transaction(), connection.cursor() as cursor:
        await cursor.executemany(_BARE, rows)
    return time.perf_counter() - began


async def _measure(fleet: FleetProcess) -> dict[str, Any]:
    accepted, bare = [], []
    async with (
        await psycopg.AsyncConnection.connect(fleet.services()["database_url"], autocommit=True) as connection,
        httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{fleet.port}",
            headers={"authorization": f"Bearer {fleet.key}"},
            timeout=60,
            trust_env=False,
        ) as client,
    ):
        await connection.execute(_TABLE)
        for number in range(ROUNDS + 1):
            accepted.append(await _accept(client, number * JOBS))
            bare.append(await _bare(connection))
    # The first round warms both up.
    ratios = [one / other for one, other in zip(accepted[1:], bare[1:], strict=True)]
    return {
        "jobs": JOBS,
        "accepted_seconds": summary(accepted[1:]),
        "bare_insert_seconds": summary(bare[1:]),
        "accepted_over_bare": summary(ratios, 2),
    }


def measure(fleet: FleetProcess) -> dict[str, Any]:
    """Measure on a running fleet without workers."""
    return asyncio.run(_measure(fleet))
