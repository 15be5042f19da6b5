"""Which sizes of the usual shapes a checkpoint draws well: about as many pixels as it was trained at; pure."""

import math
from typing import Final, NamedTuple

from models_registry.entries import ModelEntry
from models_registry.families import FAMILIES

#: Width to height, upright ones as well.
SHAPES: Final = ((1, 1), (4, 3), (3, 2), (16, 9), (21, 9))
#: Models are trained at multiples of so many pixels where their pictures are large enough for it.
_UNIT: Final = 64
_LARGE: Final = 512


class Aspect(NamedTuple):
    """Name one shape with the size it is drawn at, pixels."""

    name: str
    width: int
    height: int


def aspects_of(entry: ModelEntry) -> list[Aspect]:
    """Return the sizes of a checkpoint, the square first, then each shape lying and upright."""
    family = FAMILIES[entry.family]
    unit = math.lcm(_UNIT, family.size_step) if entry.native_size >= _LARGE else family.size_step
    smallest = min(family.min_side, entry.native_size)

    def side(length: float) -> int:
        return min(family.max_side // unit * unit, max(-(-smallest // unit) * unit, round(length / unit) * unit))

    found = []
    for long, short in SHAPES:
        stretch = math.sqrt(long / short)
        width, height = side(entry.native_size * stretch), side(entry.native_size / stretch)
        found.append(Aspect(f"{long}:{short}", width, height))
        if long != short:
            found.append(Aspect(f"{short}:{long}", height, width))
    return found
