"""Connect to Redis so that a dead server is noticed in seconds and never waited for without end."""

import socket
from typing import Any

import redis
import redis.asyncio
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import ExponentialBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.maint_notifications import MaintNotificationsConfig
from redis.retry import Retry

CONNECT_SECONDS = 2.0
#: Two quick tries more cover a server that restarts behind a proxy or a connection that went stale in the pool.
RETRIES = 2
_RETRIED = (RedisConnectionError, RedisTimeoutError)


def connect(url: str, *, name: str, size: int = 8, reply_seconds: float = 5.0) -> redis.Redis:
    """Make a client for threads; nothing is sent before its first command.

    `size` is the most connections (callers wait for one); `reply_seconds` must exceed what blocking commands wait.
    """
    pool = redis.BlockingConnectionPool.from_url(
        url,
        max_connections=size,
        timeout=reply_seconds,
        retry=Retry(ExponentialBackoff(cap=0.5, base=0.05), RETRIES, supported_errors=_RETRIED),
        **_options(name, reply_seconds),
    )
    # `from_pool` makes the client close the pool it alone uses.
    return redis.Redis.from_pool(pool)


def connect_async(url: str, *, name: str, size: int = 16, reply_seconds: float = 5.0) -> redis.asyncio.Redis:
    """Make a client for one event loop; the same limits as `connect`. Close it with `aclose`."""
    pool = redis.asyncio.BlockingConnectionPool.from_url(
        url,
        max_connections=size,
        timeout=reply_seconds,
        retry=AsyncRetry(ExponentialBackoff(cap=0.5, base=0.05), RETRIES, supported_errors=_RETRIED),
        **_options(name, reply_seconds),
    )
    return redis.asyncio.Redis.from_pool(pool)


def _options(name: str, reply_seconds: float) -> dict[str, Any]:
    return {
        "client_name": f"imagefleet-{name.replace(' ', '-')}",
        "socket_connect_timeout": CONNECT_SECONDS,
        "socket_timeout": reply_seconds,
        "socket_keepalive": True,
        "socket_keepalive_options": keepalive_options(),
        # A pooled connection that was idle so long (seconds) is tested before it is used.
        "health_check_interval": 10,
        # Neither is understood by every server we accept, and each costs a round trip per connection.
        "driver_info": None,
        "maint_notifications_config": MaintNotificationsConfig(enabled=False),
    }


def keepalive_options() -> dict[int, int]:
    """Return TCP options by which a silent connection is tested after 30 s and given up a minute later."""
    wanted = {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3}
    return {getattr(socket, name): value for name, value in wanted.items() if hasattr(socket, name)}
