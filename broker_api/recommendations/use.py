"""What the fleet's jobs and people's word say of entries; pure."""

import math
from collections.abc import Mapping
from typing import Final
from uuid import UUID

from jobs.history.usage import UNUSED, Counted
from models_registry.likeness.scores import Opinion
from models_registry.likeness.tastes import Said

#: What one word of a person weighs beside a picture that was kept.
_FAVOURITE, _RATED, _HELPFUL, _DOWNLOADED, _REPEATED = 5, 3, 5, 2, 2
_MIDDLE_RATING: Final = 3
#: How well known an entry counts at least of which somebody said something.
_SPOKEN_OF: Final = 0.2
_NOTHING: Final = Said()


def approval(counted: Counted, said: Said) -> float:
    """Return which share of what happened speaks for an entry: kept, downloaded, repeated, praised against deleted, failed, dispraised.

    One word for and one against are always there, so that a single picture proves little.
    """
    usage = counted.usage
    above = max(0.0, (said.rating or _MIDDLE_RATING) - _MIDDLE_RATING) * said.ratings
    below = max(0.0, _MIDDLE_RATING - (said.rating or _MIDDLE_RATING)) * said.ratings
    speaks_for = (
        max(0, usage.pictures - usage.deleted)
        + _DOWNLOADED * usage.downloaded
        + _REPEATED * usage.repeated
        + _FAVOURITE * said.favourites
        + _HELPFUL * said.helpful
        + _RATED * above
    )
    against = usage.deleted + usage.failures + _HELPFUL * said.unhelpful + _RATED * below
    return (speaks_for + 1) / (speaks_for + against + 2)


def popularity(counted: Counted, said: Said, most: int) -> float:
    """Return how much an entry is used, 1 for the one that is used most."""
    known = math.log1p(counted.usage.uses) / math.log1p(most) if most else 0.0
    return max(known, _SPOKEN_OF) if said != _NOTHING else known


def use_opinions(usage: Mapping[UUID, Counted], said: Mapping[UUID, Said]) -> dict[UUID, Opinion]:
    """Return what use says of each entry that was used or spoken of."""
    most = max((counted.usage.uses for counted in usage.values()), default=0)
    found = {}
    for entry in {*usage, *said}:
        counted, word = usage.get(entry, UNUSED), said.get(entry, _NOTHING)
        if counted.usage.uses or word != _NOTHING:
            score = approval(counted, word) * popularity(counted, word, most)
            found[entry] = Opinion(score, sentence(counted, word))
    return found


def sentence(counted: Counted, said: Said) -> str:
    """Say what happened with an entry."""
    usage, parts = counted.usage, []
    if usage.uses:
        parts.append(f"used by {usage.uses} job{'s' if usage.uses > 1 else ''}")
    if usage.pictures:
        kept = max(0, usage.pictures - usage.deleted) / usage.pictures
        parts.append(f"{kept:.0%} of its pictures kept")
    if usage.failures:
        parts.append(f"{usage.failure_share:.0%} of its jobs failed")
    if said.rating is not None:
        parts.append(f"rated {said.rating:.1f}")
    if said.favourites:
        parts.append(f"a favourite of {said.favourites}")
    if said.helpful or said.unhelpful:
        parts.append(f"recommended {said.helpful + said.unhelpful} times, helpful {said.helpful} times")
    told = ", ".join(parts) or "never used"
    return f"{told[0].upper()}{told[1:]}."


def pair_opinions(uses: int, together: Mapping[UUID, int], usage: Mapping[UUID, Counted]) -> dict[UUID, Opinion]:
    """Return how often each entry was used together with one, beside how often either was used at all."""
    found = {}
    for entry, count in together.items():
        other = usage.get(entry, UNUSED).usage.uses
        # Uses also count jobs that failed, pairs do not.
        score = min(1.0, count / math.sqrt(max(1, uses) * max(1, other)))
        times = "once" if count == 1 else f"{count} times"
        found[entry] = Opinion(score, f"Used together {times}; the two were used {uses} and {other} times.")
    return found
