"""Where the bytes of preview pictures lie in storage: under their SHA-256, once for all entries and recipes that show them."""

from typing import Any, Final

import psycopg

#: What the keys of previews begin with.
PREVIEWS: Final = "previews"

# The lock makes a row that is about to record the same bytes wait until they are gone; its writer then stores them anew.
_UNUSED: Final = """
select from garbage where key = %(key)s and not exists (select from model_previews where sha256 = %(sha256)s)
    and not exists (select from recipes where preview is not null and preview ->> 'sha256' = %(sha256)s) for update
"""


def preview_key(sha256: str) -> str:
    """Return the storage key of a preview's bytes."""
    return f"{PREVIEWS}/{sha256}"


def preview_of_key(key: str) -> str | None:
    """Return the SHA-256 of the preview whose bytes lie under a key; None for any other key."""
    return key.rpartition("/")[2] if key.startswith(f"{PREVIEWS}/") else None


def is_unused_preview(connection: "psycopg.Connection[Any]", key: str, sha256: str) -> bool:
    """Tell whether no row shows this picture any more, and lock that fact; call it inside a transaction that also removes the bytes."""
    return connection.execute(_UNUSED, {"key": key, "sha256": sha256}).fetchone() is not None
