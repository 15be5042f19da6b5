"""What composing must know of entries: who has them active, how strong they are meant to be, what triggers them."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple
from uuid import UUID

from infra.database import AsyncConnection
from models_registry.entries import Kind, ModelRef
from models_registry.library import VISIBLE, who
from models_registry.records import Reader

#: Fewer digits of a hash find a file by chance.
SHORTEST_DIGEST: Final = 8


class Mark(NamedTuple):
    """One entry of an owner's active stack."""

    ref: ModelRef
    #: The owner's own choice.
    weight: float | None


@dataclass(frozen=True)
class Facts:
    """What people, and the places it came from, say of an entry."""

    id: UUID
    trigger_words: Sequence[str]
    #: Recommended.
    weight: float | None
    weight_min: float | None
    weight_max: float | None
    tags: Sequence[str]
    sha256: str | None


_ACTIVE: Final = f"""
select models.kind, models.name, model_marks.weight from model_marks join models on models.id = model_marks.model
where model_marks.owner = %(owner)s and model_marks.active and {VISIBLE}
order by model_marks.position nulls last, models.kind, models.name
"""
_FACTS: Final = f"""
select kind, name, id, trigger_words, weight, weight_min, weight_max, tags, sha256 from models
where (kind, name) in (select * from unnest(%(kinds)s::text[], %(names)s::text[])) and {VISIBLE}
"""
_KNOWN: Final = f"""
select id, name, sha256 from models
where kind = %(kind)s and missing_since is null and (lower(name) = any (%(names)s) or sha256 = any (%(digests)s)) and {VISIBLE}
order by name
"""
# The hashes that sites and other programs know files by, each perhaps shortened: of the whole file, of its tensors, the older ones.
_HASHED: Final = f"""
select wanted.digest, models.name from unnest(%(digests)s::text[]) wanted(digest)
join models on models.kind = %(kind)s and models.missing_since is null and (
    starts_with(models.sha256, wanted.digest) or starts_with(models.fingerprint, wanted.digest)
    or exists (select from jsonb_each_text(models.hashes) hashes where starts_with(lower(hashes.value), wanted.digest)))
where {VISIBLE} order by models.name desc
"""


async def active_stack(connection: AsyncConnection, reader: Reader) -> list[Mark]:
    """Return what the reader has active, in the order of the stack."""
    rows = await (await connection.execute(_ACTIVE, who(reader))).fetchall()
    return [Mark(ModelRef(Kind(row["kind"]), row["name"]), row["weight"]) for row in rows]


async def read_facts(
    connection: AsyncConnection, refs: Collection[ModelRef], reader: Reader
) -> Mapping[ModelRef, Facts]:
    """Return the facts of those of the entries that may be used."""
    values = {**who(reader), "kinds": [ref.kind.value for ref in refs], "names": [ref.name for ref in refs]}
    rows = await (await connection.execute(_FACTS, values)).fetchall()
    return {ModelRef(Kind(row.pop("kind")), row.pop("name")): Facts(**row) for row in rows}


class Here(NamedTuple):
    """A file that is here."""

    id: UUID
    name: str
    sha256: str | None


async def find_here(
    connection: AsyncConnection, kind: Kind, names: Collection[str], digests: Collection[str], reader: Reader
) -> list[Here]:
    """Return the usable entries that have one of these names, in any case, or one of these SHA-256."""
    values: dict[str, Any] = {
        **who(reader), "kind": kind.value, "names": [name.lower() for name in names], "digests": list(digests),
    }  # fmt: skip
    rows = await (await connection.execute(_KNOWN, values)).fetchall()
    return [Here(**row) for row in rows]


async def find_by_digest(
    connection: AsyncConnection, kind: Kind, digests: Collection[str], reader: Reader
) -> Mapping[str, str]:
    """Return the name of the usable entry that each hash, or beginning of one, belongs to; unknown ones are missing."""
    wanted = [digest.lower() for digest in digests if len(digest) >= SHORTEST_DIGEST]
    if not wanted:
        return {}
    values = {**who(reader), "kind": kind.value, "digests": wanted}
    rows = await (await connection.execute(_HASHED, values)).fetchall()
    return {row["digest"]: row["name"] for row in rows}
