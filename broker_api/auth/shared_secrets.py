"""Secrets that every API process of a fleet shares: each lies in the database, drawn by whoever needs it first."""

import secrets
from typing import Final

from infra.database import AsyncPool

_SECRET_BYTES: Final = 32
_MAKE: Final = "insert into secrets (name, value) values (%s, %s) on conflict (name) do nothing"
_READ: Final = "select value from secrets where name = %s"


class SharedSecret:
    """Read one secret once and remember it."""

    def __init__(self, pool: AsyncPool, name: str) -> None:
        self._pool = pool
        self._name = name
        self._value: bytes | None = None

    async def read(self) -> bytes:
        """Return the secret's 32 bytes."""
        if self._value is None:
            async with self._pool.connection() as connection:
                await connection.execute(_MAKE, (self._name, secrets.token_bytes(_SECRET_BYTES)))
                row = await (await connection.execute(_READ, (self._name,))).fetchone()
            self._value = bytes((row or {})["value"])
        return self._value
