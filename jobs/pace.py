"""How fast jobs are drawn, learnt from those that ended lately: what estimates of waiting stand on.

A step's time is kept per model, task, class of size and device; one that was never measured is judged by its nearest kin.
"""

import math
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import psycopg
from psycopg.rows import dict_row

#: Finished jobs that are looked at, the newest.
MOST_JOBS: Final = 2000
#: Pixels in one unit of cost.
_COST_PIXELS: Final = 4096


class Measured(NamedTuple):
    """Jobs that are alike, and what they took."""

    queue: str
    task: str
    model: str
    #: As `size_class` counts.
    size: int
    device: str
    seconds: float
    steps: int
    cost: int
    jobs: int


_RECENT: Final = f"""
select recent.queue, recent.task, recent.request ->> 'model' as model,
    round(log(2, greatest(1, recent.cost * {_COST_PIXELS}.0 / greatest(1, recent.steps))))::int as size,
    coalesce(workers.device_name, '') as device, sum(recent.seconds) as seconds, sum(recent.steps)::bigint as steps,
    sum(recent.cost)::bigint as cost, count(*) as jobs
from (select * from jobs where finished_at is not null order by finished_at desc limit {MOST_JOBS}) recent
left join workers on workers.name = recent.worker
where recent.state = 'succeeded' and recent.seconds > 0 group by 1, 2, 3, 4, 5
"""


def size_class(cost: int, steps: int) -> int:
    """Return the class of a job's size: the exponent of the power of two that its pixels are nearest to."""
    return round(math.log2(max(1.0, cost * _COST_PIXELS / max(1, steps))))


@dataclass(frozen=True)
class Pace:
    """Estimate how long jobs take."""

    measured: tuple[Measured, ...] = ()
    _per_step: dict[Hashable, float] = field(init=False, repr=False)
    _per_cost: dict[str, float] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        per_step: dict[Hashable, float] = {}
        for key in (
            lambda each: (each.queue, each.task, each.model, each.size),
            lambda each: (each.task, each.model, each.size),
            lambda each: (each.queue, each.task, each.size),
        ):
            per_step |= _ratios(self.measured, key, lambda each: each.steps)
        per_cost = _ratios(self.measured, lambda each: each.queue, lambda each: each.cost)
        object.__setattr__(self, "_per_step", per_step)
        object.__setattr__(self, "_per_cost", per_cost)

    def seconds(self, *, queue: str, task: str, model: str, cost: int, steps: int) -> float | None:
        """Return how long one job is drawn; None while nothing like it was measured."""
        size = size_class(cost, steps)
        for key in ((queue, task, model, size), (task, model, size), (queue, task, size)):
            found = self._per_step.get(key)
            if found is not None:
                return found * steps
        return self.seconds_for(queue, cost)

    def seconds_for(self, queue: str, cost: float) -> float | None:
        """Return how long one worker takes for so much work of a queue; None while nothing of it was measured."""
        found = self._per_cost.get(queue)
        return None if found is None else found * cost


def _ratios(
    measured: Iterable[Measured], key: Callable[[Measured], Any], amount: Callable[[Measured], int]
) -> dict[Any, float]:
    sums: dict[Any, list[float]] = {}
    for each in measured:
        found = sums.setdefault(key(each), [0.0, 0.0])
        found[0] += each.seconds
        found[1] += amount(each)
    return {name: seconds / max(1.0, count) for name, (seconds, count) in sums.items()}


UNKNOWN_PACE: Final = Pace()


async def read_pace(connection: "psycopg.AsyncConnection[Any]") -> Pace:
    """Learn from the jobs that ended last."""
    async with connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(_RECENT)
        return Pace(tuple(Measured(**row) for row in await cursor.fetchall()))
