"""Where the bytes of models lie in storage: under their SHA-256, once for all entries that have them."""

from pathlib import Path
from typing import Any, Final

import psycopg
from psycopg.types.json import Jsonb

#: What the keys of models' files begin with.
CONTENT: Final = "models"
#: What the path of an entry begins with whose files lie in storage alone: nowhere on any disk.
STORED: Final = "storage:"

# The lock makes an entry that is about to record the same bytes wait until they are gone; it then stores them anew.
_UNUSED: Final = """
select from garbage where key = %(key)s and not exists (
    select from models where stored_at is not null and files @> %(files)s) for update
"""


def content_key(sha256: str) -> str:
    """Return the storage key of a file's bytes."""
    return f"{CONTENT}/{sha256}"


def content_of_key(key: str) -> str | None:
    """Return the SHA-256 of the file whose bytes lie under a key; None for any other key."""
    return key.rpartition("/")[2] if key.startswith(f"{CONTENT}/") else None


def is_stored(path: Path) -> bool:
    """Tell whether an entry with this path lies in storage alone."""
    return path.parts[:1] == (STORED,)


def is_unused_content(connection: "psycopg.Connection[Any]", key: str, sha256: str) -> bool:
    """Tell whether no entry has these bytes in storage, and lock that fact; call it inside a transaction that also removes them."""
    values = {"key": key, "files": Jsonb([{"sha256": sha256}])}
    return connection.execute(_UNUSED, values).fetchone() is not None
