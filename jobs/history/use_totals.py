"""How much each entry was used by all owners together: what lists show and are sorted by; triggers keep the sums."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any, Final
from uuid import UUID

import psycopg
from psycopg.rows import dict_row
from pydantic import BaseModel, Field, TypeAdapter

from models_registry.listing import Ordering

#: The entries that were used most first. Each entry has a row, so that an index gives a page of them.
BY_USES: Final = Ordering(
    "uses", "model_use_totals.uses", "bigint", TypeAdapter(Annotated[int, Field(ge=0, le=2**62)]), falls=True,
    join="join model_use_totals on model_use_totals.model = models.id", id="model_use_totals.model",
)  # fmt: skip

_USES: Final = """
select model, uses, failures, seconds, last_at, (
    select weight::float8 from (
        select weight, sum(sum(uses)) over (order by weight) as passed, sum(sum(uses)) over () as whole
        from model_usage_weights where model_usage_weights.model = model_use_totals.model group by weight) weighed
    where 2 * passed >= whole order by weight limit 1) as typical_weight
from model_use_totals where model = any (%(models)s) and uses > 0
"""


class Uses(BaseModel):
    """What all jobs did with an entry, in short."""

    uses: int = Field(default=0, description="Jobs that have ended with it, failed ones too.")
    last_used_at: datetime | None = None
    typical_weight: float | None = Field(default=None, description="Half of its uses had no more.")
    mean_seconds: float | None = Field(default=None, description="Of the jobs that succeeded.")
    failure_share: float = Field(default=0.0, description="Of its uses, 0 to 1.")


UNUSED: Final = Uses()


async def read_uses(connection: "psycopg.AsyncConnection[Any]", models: Sequence[UUID]) -> Mapping[UUID, Uses]:
    """Return the uses of those entries that were used, in one statement."""
    async with connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(_USES, {"models": list(models)})
        return {row["model"]: _uses(row) for row in await cursor.fetchall()}


def _uses(row: Mapping[str, Any]) -> Uses:
    succeeded = row["uses"] - row["failures"]
    return Uses(
        uses=row["uses"],
        last_used_at=row["last_at"],
        typical_weight=row["typical_weight"],
        mean_seconds=row["seconds"] / succeeded if succeeded else None,
        failure_share=row["failures"] / row["uses"],
    )
