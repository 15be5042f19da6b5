"""Expand one request into many: every combination of the values that fields are to take; pure."""

import copy
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

from jobs.errors import RequestRefused

MOST_JOBS: Final = 1000


class MatrixInvalid(RequestRefused):
    """The matrix names a field that cannot be set, or makes too many jobs."""

    code = "matrix_invalid"


def combinations(matrix: Mapping[str, Sequence[Any]]) -> int:
    """Return how many jobs a matrix makes."""
    return math.prod(len(values) for values in matrix.values())


def expand(request: Mapping[str, Any], matrix: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """Return the request once per combination, the last field of the matrix changing fastest; raise `MatrixInvalid`.

    A field inside another is named by its path: `output.format`, `loras.0.weight`.
    """
    if combinations(matrix) > MOST_JOBS:
        raise MatrixInvalid(f"The matrix makes {combinations(matrix)} jobs; a batch holds {MOST_JOBS}.", field="matrix")
    expanded = []
    for values in itertools.product(*matrix.values()):
        one = copy.deepcopy(dict(request)) if any("." in path for path in matrix) else dict(request)
        for path, value in zip(matrix, values, strict=True):
            _set(one, path, value)
        expanded.append(one)
    return expanded


def _set(request: dict[str, Any], path: str, value: object) -> None:
    *above, last = path.split(".")
    place: Any = request
    try:
        for part in above:
            place = place[int(part)] if isinstance(place, list) else place.setdefault(part, {})
        if isinstance(place, list):
            place[int(last)] = value
        else:
            place[last] = value
    except (AttributeError, IndexError, TypeError, ValueError):
        raise MatrixInvalid(f"There is no field {path[:100]!r} in the request to set.", field="matrix") from None
