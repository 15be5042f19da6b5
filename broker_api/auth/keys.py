"""API keys: created, listed and revoked by statements here, looked up for every request by `KeyRing`."""

import asyncio
import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final, Literal

from pydantic import BaseModel, Field

from broker_api.auth.key_format import NewKey, draw_key, hash_of, key_id_of
from broker_api.http.background import repeat
from broker_api.problems import DATABASE_ERRORS
from broker_api.refusals import KeyInvalid
from infra.advisory_locks import FIRST_KEY
from infra.clock import Clock
from infra.database import AsyncConnection, AsyncPool, Connection
from infra.files import make_private_folder, write_private
from infra.logging import get_logger
from models_registry.records import Reader

log = get_logger(__name__)

Scope = Literal["user", "admin"]

#: A revoked key must stop everywhere within 1 s: what a process remembers of a key is younger than this.
REMEMBERED_SECONDS: Final = 0.75
#: `last_used_at` is written so often at most.
LAST_USED_SECONDS: Final = 60.0
#: Keys remembered at once; the oldest are forgotten first.
REMEMBERED_KEYS: Final = 10_000

FIRST_OWNER: Final = "admin"
KEY_FILE: Final = "api-key"

LAST_USED_FAILED: Final = "key_last_used_not_written"


class KeyView(BaseModel):
    """An API key as its list shows it."""

    id: str
    owner: str
    name: str
    scopes: list[Scope]
    created_at: datetime
    last_used_at: datetime | None
    revoked_at: datetime | None
    retention_days: float | None = Field(
        default=None, description="How long its jobs are kept once they have ended; null as long as the fleet's."
    )


class CreatedKey(KeyView):
    """A new API key: the only time it is shown."""

    key: str = Field(description="Send it as `Authorization: Bearer <key>`. It is shown once.")


@dataclass(frozen=True)
class Principal:
    """Who calls, and what they may."""

    key_id: str
    owner: str
    scopes: frozenset[str]
    #: How long what they submit is kept once it has ended; None as long as the fleet's.
    retention_days: float | None = None

    @property
    def is_admin(self) -> bool:
        """Tell whether everything of everyone is theirs to see."""
        return "admin" in self.scopes

    @property
    def sees(self) -> str | None:
        """Return the owner whose things they see; None for everyone's."""
        return None if self.is_admin else self.owner

    @property
    def reader(self) -> Reader:
        """Return who they are for the library."""
        return Reader(self.owner, self.key_id, is_admin=self.is_admin)


_COLUMNS: Final = "id, owner, name, scopes, created_at, last_used_at, revoked_at, retention_days"
_CREATE: Final = (
    "insert into api_keys (id, hash, owner, name, scopes, retention_days) values (%s, %s, %s, %s, %s, %s) "
    f"returning {_COLUMNS}"
)
_LIST: Final = f"select {_COLUMNS} from api_keys order by created_at, id"
_REVOKE: Final = "update api_keys set revoked_at = coalesce(revoked_at, now()) where id = %s returning id"
_CHANGE: Final = f"update api_keys set retention_days = %s where id = %s returning {_COLUMNS}"
_FIND: Final = "select hash, owner, scopes, revoked_at, retention_days from api_keys where id = %s"
_TOUCH: Final = "update api_keys set last_used_at = now() where id = any (%s)"


def _new_row(
    key: NewKey, owner: str, name: str, scopes: Sequence[Scope], retention_days: float | None
) -> tuple[str, str, str, str, list[str], float | None]:
    return (key.id, key.hash, owner, name, sorted(set(scopes)), retention_days)


def create_key(
    connection: Connection,
    *,
    owner: str,
    name: str,
    scopes: Sequence[Scope] = ("user",),
    retention_days: float | None = None,
) -> CreatedKey:
    """Store a new key and return it with its text, which is shown this once."""
    key = draw_key()
    row = connection.execute(_CREATE, _new_row(key, owner, name, scopes, retention_days)).fetchone()
    return CreatedKey.model_validate({**(row or {}), "key": key.text})


def list_keys(connection: Connection) -> list[KeyView]:
    """Return all keys, revoked ones too, oldest first."""
    return [KeyView.model_validate(row) for row in connection.execute(_LIST).fetchall()]


def revoke_key(connection: Connection, key_id: str) -> bool:
    """Revoke a key for good and return whether there was one; within 1 s no process takes it any more."""
    return connection.execute(_REVOKE, (key_id,)).fetchone() is not None


async def create_key_async(
    connection: AsyncConnection, *, owner: str, name: str, scopes: Sequence[Scope], retention_days: float | None = None
) -> CreatedKey:
    """Do what `create_key` does on an event loop."""
    key = draw_key()
    row = await (await connection.execute(_CREATE, _new_row(key, owner, name, scopes, retention_days))).fetchone()
    return CreatedKey.model_validate({**(row or {}), "key": key.text})


async def change_key_async(connection: AsyncConnection, key_id: str, *, retention_days: float | None) -> KeyView | None:
    """Set how long the jobs are kept that a key submits from now on, and return the key; None when there is none."""
    row = await (await connection.execute(_CHANGE, (retention_days, key_id))).fetchone()
    return None if row is None else KeyView.model_validate(row)


async def list_keys_async(connection: AsyncConnection) -> list[KeyView]:
    """Do what `list_keys` does on an event loop."""
    return [KeyView.model_validate(row) for row in await (await connection.execute(_LIST)).fetchall()]


async def revoke_key_async(connection: AsyncConnection, key_id: str) -> bool:
    """Do what `revoke_key` does on an event loop."""
    return await (await connection.execute(_REVOKE, (key_id,))).fetchone() is not None


def ensure_first_key(connection: Connection, home: Path) -> Path:
    """Write an admin key to `<home>/api-key` unless a valid one is there, and return the path.

    A file whose key was revoked or belongs to another database is replaced: the person at the machine is its admin.
    """
    path = make_private_folder(home) / KEY_FILE
    with connection.transaction():
        connection.execute("select pg_advisory_xact_lock(%s)", (FIRST_KEY,))
        if not _is_valid_admin(connection, path):
            created = create_key(connection, owner=FIRST_OWNER, name="first key", scopes=("user", "admin"))
            # Inside the transaction: a key that could not be written down is not kept.
            write_private(path, created.key + "\n")
    return path


def _is_valid_admin(connection: Connection, path: Path) -> bool:
    try:
        text = path.read_text(encoding="utf-8").strip()
    except (FileNotFoundError, UnicodeDecodeError):
        return False
    key_id = key_id_of(text)
    if key_id is None:
        return False
    row = connection.execute(_FIND, (key_id,)).fetchone()
    return (
        row is not None
        and row["revoked_at"] is None
        and "admin" in row["scopes"]
        and hmac.compare_digest(hash_of(text), row["hash"])
    )


@dataclass(frozen=True)
class _Remembered:
    hash: str
    principal: Principal
    revoked: bool
    #: Monotonic time before the database was asked.
    asked: float


class KeyRing:
    """Say whose a key is, asking the database about each key at most about once a second."""

    def __init__(self, pool: AsyncPool, clock: Clock) -> None:
        self._pool = pool
        self._clock = clock
        self._remembered: dict[str, _Remembered] = {}
        self._asking: dict[str, asyncio.Task[_Remembered | None]] = {}
        self._used: set[str] = set()

    async def find(self, text: str) -> Principal:
        """Return who a key belongs to; raise `KeyInvalid`, alike for an unknown, a mistyped and a revoked one."""
        key_id = key_id_of(text)
        found = None if key_id is None else await self._find(key_id)
        if found is None or not hmac.compare_digest(hash_of(text), found.hash) or found.revoked:
            raise KeyInvalid("The API key is unknown or revoked.", headers={"www-authenticate": "Bearer"})
        self._used.add(found.principal.key_id)
        return found.principal

    async def find_by_id(self, key_id: str) -> Principal:
        """Return who a key belongs to whose text was checked before; raise `KeyInvalid` once it is revoked."""
        found = await self._find(key_id)
        if found is None or found.revoked:
            raise KeyInvalid("The API key is unknown or revoked.", headers={"www-authenticate": "Bearer"})
        self._used.add(key_id)
        return found.principal

    async def _find(self, key_id: str) -> _Remembered | None:
        known = self._remembered.get(key_id)
        if known is not None and self._clock.monotonic() - known.asked < REMEMBERED_SECONDS:
            return known
        task = self._asking.get(key_id)
        if task is None:
            # One question for all requests that wait for the same answer; none of them may cancel it for the others.
            task = asyncio.create_task(self._ask(key_id))
            self._asking[key_id] = task
            task.add_done_callback(lambda _: self._asking.pop(key_id, None))
        return await asyncio.shield(task)

    async def _ask(self, key_id: str) -> _Remembered | None:
        asked = self._clock.monotonic()
        async with self._pool.connection() as connection:
            row = await (await connection.execute(_FIND, (key_id,))).fetchone()
        self._remembered.pop(key_id, None)
        if row is None:
            return None
        principal = Principal(key_id, row["owner"], frozenset(row["scopes"]), row["retention_days"])
        found = _Remembered(row["hash"], principal, row["revoked_at"] is not None, asked)
        while len(self._remembered) >= REMEMBERED_KEYS:
            del self._remembered[next(iter(self._remembered))]
        self._remembered[key_id] = found
        return found

    async def write_last_used(self) -> None:
        """Write when the keys used since the last call were used, in one statement."""
        used, self._used = sorted(self._used), set()
        if not used:
            return
        try:
            async with self._pool.connection() as connection:
                await connection.execute(_TOUCH, (used,))
        except DATABASE_ERRORS as error:
            self._used.update(used)
            log.warning(LAST_USED_FAILED, reason=str(error))

    async def keep_last_used(self) -> None:
        """Write the times of use once a minute, for ever."""
        await repeat(self._write_after_a_while, name="key_last_used")

    async def _write_after_a_while(self) -> None:
        await asyncio.sleep(LAST_USED_SECONDS)
        await self.write_last_used()
