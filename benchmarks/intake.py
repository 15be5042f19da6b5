"""How many jobs the API accepts per second, against a bare INSERT and LPUSH on the same servers.

Both sides run eight connections against the same Postgres and Redis, in turn, round by round; the ratio is taken round by round. The bare
side stores the same row without validation, authentication, fairness, idempotency or HTTP: what a system without any of them could reach.
"""

import asyncio
import json
import time
import uuid
from typing import Any

import psycopg
import redis.asyncio

from benchmarks.figures import percentile, summary
from tests.fleet_process import FleetProcess

CONNECTIONS = 8
ROUNDS = 5
PER_ROUND = 400

_BARE = """
insert into bare_jobs (id, owner, queue, priority, state, request) values (%s, 'bench', 'txt2img.cpu', 5, 'queued', %s)
"""
_TABLE = """
create table if not exists bare_jobs (id uuid primary key, owner text, queue text, priority smallint, state text, request jsonb,
    created_at timestamptz default now())
"""
BODY = {"prompt": "a red circle on a blue background", "seed": 7, "steps": 20, "width": 128, "height": 128}


async def _http(host: str, port: int, key: str, count: int, latencies: list[float]) -> None:
    """Send requests over one kept connection, written by hand: a full client would measure itself."""
    reader, writer = await asyncio.open_connection(host, port)
    body = json.dumps(BODY).encode()
    head = (
        f"POST /v1/jobs HTTP/1.1\r\nHost: {host}:{port}\r\nAuthorization: Bearer {key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode()
    for _ in range(count):
        began = time.perf_counter()
        writer.write(head + body)
        answer = await reader.readuntil(b"\r\n\r\n")
        if b" 202 " not in answer.split(b"\r\n", 1)[0]:
            raise RuntimeError(answer.decode())
        length = next(
            int(line.split(b":")[1]) for line in answer.lower().split(b"\r\n") if line.startswith(b"content-length")
        )
        await reader.readexactly(length)
        latencies.append(time.perf_counter() - began)
    writer.close()


async def _bare(services: dict[str, Any], count: int) -> None:
    async with (
        await psycopg.AsyncConnection.connect(services["database_url"], autocommit=True, prepare_threshold=0) as own,
        redis.asyncio.Redis.from_url(services["redis_url"]) as client,
    ):
        body = json.dumps(BODY)
        for _ in range(count):
            job = uuid.uuid4()
            await own.execute(_BARE, (job, body))
            await client.lpush("bare_queue", str(job))


async def _timed(work: list[Any]) -> float:
    began = time.perf_counter()
    await asyncio.gather(*work)
    return PER_ROUND / (time.perf_counter() - began)


async def _measure(fleet: FleetProcess) -> dict[str, Any]:
    services = fleet.services()
    async with await psycopg.AsyncConnection.connect(services["database_url"], autocommit=True) as own:
        await own.execute(_TABLE)
    share = PER_ROUND // CONNECTIONS
    latencies: list[float] = []
    accepted, bare = [], []
    for _ in range(ROUNDS + 1):
        accepted.append(
            await _timed([_http("127.0.0.1", fleet.port, fleet.key, share, latencies) for _ in range(CONNECTIONS)])
        )
        bare.append(await _timed([_bare(services, share) for _ in range(CONNECTIONS)]))
    # The first round warms both up.
    ratios = [one / other for one, other in zip(accepted[1:], bare[1:], strict=True)]
    return {
        "accepted_per_second": summary(accepted[1:], 1),
        "bare_insert_and_lpush_per_second": summary(bare[1:], 1),
        "accepted_over_bare": summary(ratios),
        "accept_p50_ms": round(percentile(latencies, 0.5) * 1000, 2),
        "accept_p99_ms": round(percentile(latencies, 0.99) * 1000, 2),
    }


def measure(fleet: FleetProcess) -> dict[str, Any]:
    """Measure on a running fleet without workers."""
    return asyncio.run(_measure(fleet))
