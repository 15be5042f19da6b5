"""The HTTP client through which Flower is reached."""

from typing import Final

import httpx

from infra.flower import authorization

TIMEOUT: Final = httpx.Timeout(30.0, connect=2.0)


def make_flower_client(url: str, password: str) -> httpx.AsyncClient:
    """Make the client, blind to any proxy of the environment."""
    return httpx.AsyncClient(
        base_url=url, headers={"authorization": authorization(password)}, timeout=TIMEOUT, trust_env=False
    )
