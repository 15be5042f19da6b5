"""Look for entries that are near to something: by sketches of their weights, by vectors of their texts, by words.

Vectors lie in pgvector's type where the server had it when the tables were made, in plain arrays elsewhere; either way the database
multiplies them, and the answers are the same. Every function returns only what its reader may know of.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal
from uuid import UUID

from psycopg import AsyncConnection
from psycopg.rows import dict_row

from models_registry.library import VISIBLE, who
from models_registry.records import Reader

Form = Literal["vector", "real[]"]
_FORM: Final = """
select format_type(atttypid, atttypmod) as form from pg_attribute where attrelid = 'likeness_texts'::regclass and attname = 'vector'
"""
#: Inner products: what is compared has length 1, or a sketch's own scale.
_PRODUCTS: Final[dict[str, str]] = {
    "vector": "(- ({0} <#> %(vector)s::real[]::vector))",
    "real[]": "(select sum(a * b) from unnest({0}, %(vector)s::real[]) as both_vectors (a, b))",
}
_OFFERED: Final = f"models.missing_since is null and {VISIBLE}"
_WANTED: Final = f"{_OFFERED} and models.kind = any (%(kinds)s) and (%(families)s::text[] is null or models.family = any (%(families)s))"

_SKETCH: Final = "select sketch::real[] as sketch from likeness_signatures where fingerprint = %(fingerprint)s"
_BY_WEIGHTS: Final = """
select models.id, {product} as near from likeness_signatures join models using (fingerprint)
where models.kind = 'lora' and models.family = %(family)s and models.fingerprint <> %(fingerprint)s and {offered}
order by near desc, models.id limit %(limit)s
"""
_COMPARED: Final = """
select case when one = %(fingerprint)s then other else one end as fingerprint, cosine, layers from likeness_comparisons
where one = %(fingerprint)s or other = %(fingerprint)s
"""
_TEXT: Final = """
update likeness_texts set used_at = now() where encoder = %(encoder)s and digest = %(digest)s returning vector::real[] as vector
"""
_BY_TEXT: Final = """
select models.id, likeness_texts.vector::real[] as vector, {product} as near
from analyses join models on models.id = analyses.model
join likeness_texts on likeness_texts.encoder = %(encoder)s and likeness_texts.digest = analyses.content
where analyses.source = 'text' and {wanted} order by near desc, models.id limit %(limit)s
"""
_BY_WORDS: Final = f"""
with asked as (
    select array_agg(lexeme) filter (where length(lexeme) > 2) as words
    from unnest(to_tsvector('simple', models_words(array[%(text)s]))) lexeme
), sought as (
    select words, (select string_agg(quote_literal(word), ' | ') from unnest(words) word)::tsquery as sought from asked
)
select models.id, array(select unnest(tsvector_to_array(models.search)) intersect select unnest(words)) as words
from sought join models on models.search @@ sought.sought
where {_WANTED} order by ts_rank(models.search, sought.sought) desc, models.id limit %(limit)s
"""


@dataclass(frozen=True)
class Wanted:
    """Which entries to look among."""

    kinds: tuple[str, ...]
    #: None for every family.
    families: tuple[str, ...] | None
    limit: int

    @property
    def values(self) -> dict[str, Any]:
        """Return what the statements need."""
        families = None if self.families is None else list(self.families)
        return {"kinds": list(self.kinds), "families": families, "limit": self.limit}


@dataclass(frozen=True)
class Compared:
    """The exact cosine of two updates, and the layers both change."""

    cosine: float
    layers: int


async def vector_form(connection: "AsyncConnection[Any]") -> Form:
    """Return what vectors are kept as on this server."""
    found = await _rows(connection, _FORM, {})
    return "vector" if found[0]["form"] == "vector" else "real[]"


async def near_by_weights(
    connection: "AsyncConnection[Any]", reader: Reader, fingerprint: str, family: str, limit: int
) -> dict[UUID, float] | None:
    """Return the estimated cosine of the LoRAs whose updates lie nearest; None while the one asked for has no sketch."""
    own = await _rows(connection, _SKETCH, {"fingerprint": fingerprint})
    if not own:
        return None
    statement = _BY_WEIGHTS.format(
        product=_PRODUCTS[await vector_form(connection)].format("likeness_signatures.sketch"), offered=_OFFERED
    )
    values = {"vector": own[0]["sketch"], "fingerprint": fingerprint, "family": family, "limit": limit}
    return {row["id"]: float(row["near"]) for row in await _rows(connection, statement, values | who(reader))}


async def compared_with(connection: "AsyncConnection[Any]", fingerprint: str) -> dict[str, Compared]:
    """Return every exact comparison of a LoRA, by the other's fingerprint."""
    rows = await _rows(connection, _COMPARED, {"fingerprint": fingerprint})
    return {row["fingerprint"]: Compared(row["cosine"], row["layers"]) for row in rows}


async def read_vector(connection: "AsyncConnection[Any]", encoder: str, digest: str) -> list[float] | None:
    """Return where a text lies, and remember that it was asked for; None where that is not known."""
    rows = await _rows(connection, _TEXT, {"encoder": encoder, "digest": digest})
    return list(rows[0]["vector"]) if rows else None


async def near_by_text(
    connection: "AsyncConnection[Any]", reader: Reader, encoder: str, vector: Sequence[float], wanted: Wanted
) -> dict[UUID, list[float]]:
    """Return the vectors of the entries whose texts lie nearest, the nearest first."""
    statement = _BY_TEXT.format(
        product=_PRODUCTS[await vector_form(connection)].format("likeness_texts.vector"), wanted=_WANTED
    )
    values = {"encoder": encoder, "vector": list(vector)} | wanted.values | who(reader)
    return {row["id"]: list(row["vector"]) for row in await _rows(connection, statement, values)}


async def near_by_words(
    connection: "AsyncConnection[Any]", reader: Reader, text: str, wanted: Wanted
) -> dict[UUID, frozenset[str]]:
    """Return the words of a text that entries have, for those that have most of them."""
    rows = await _rows(connection, _BY_WORDS, {"text": text} | wanted.values | who(reader))
    return {row["id"]: frozenset(row["words"]) for row in rows}


async def _rows(connection: "AsyncConnection[Any]", statement: str, values: dict[str, Any]) -> list[dict[str, Any]]:
    async with connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(statement, values)
        return await cursor.fetchall()
