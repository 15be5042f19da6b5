"""Read the JSON files of a diffusers folder as plain data, and refuse what is not on the list."""

import json
import math
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from models_registry.reading.bounded_files import Reads, read_small
from models_registry.refusals import ClassRefused, ConfigInvalid, ConfigKeyRefused

MAX_CONFIG_BYTES = 256 * 1024
#: Configurations size networks: no real one has a figure above this.
MAX_NUMBER = 2**31
MAX_DEPTH = 4


class Config:
    """Hold one configuration and say which file is at fault when a value is not what it should be."""

    def __init__(self, path: Path, values: Mapping[str, Any]) -> None:
        self.path = path
        self.values = values

    def only(self, keys: Collection[str]) -> "Config":
        """Return itself, raising `ConfigKeyRefused` when it has a key outside `keys`."""
        unknown = sorted(self.values.keys() - set(keys))
        if unknown:
            raise ConfigKeyRefused(
                self.path,
                f"has keys that are not on the list of known ones: {', '.join(key[:60] for key in unknown[:5])}",
            )
        return self

    def of_class(self, *names: str, key: str = "_class_name") -> "Config":
        """Return itself, raising `ClassRefused` when its class is none of `names`."""
        if self.values.get(key) not in names:
            raise ClassRefused(
                self.path, f"names the class {str(self.values.get(key))[:60]!r} instead of {' or '.join(names)}"
            )
        return self

    def part(self, key: str) -> "Config":
        """Return the configuration inside of it; an empty one where there is none."""
        value = self.values.get(key)
        if value is not None and not isinstance(value, dict):
            raise ConfigInvalid(self.path, f"should have an object as {key}, not {str(value)[:60]!r}")
        return Config(self.path, value or {})

    def whole(self, key: str, default: int | None = None) -> int:
        """Return a whole number above zero."""
        value = self.values.get(key, default)
        if type(value) is not int or value < 1:
            raise ConfigInvalid(self.path, f"should have a whole number above 0 as {key}, not {str(value)[:60]!r}")
        return value

    def maybe(self, key: str) -> int | None:
        """Return a whole number above zero; None where there is none."""
        return None if self.values.get(key) is None else self.whole(key)

    def wholes(self, key: str) -> tuple[int, ...]:
        """Return a list of whole numbers above zero."""
        value = self.values.get(key)
        if not isinstance(value, list) or not value or any(type(item) is not int or item < 1 for item in value):
            raise ConfigInvalid(
                self.path, f"should have a list of whole numbers above 0 as {key}, not {str(value)[:60]!r}"
            )
        return tuple(value)

    def side(self, key: str) -> int | None:
        """Return the side of a square, given as one number or two equal ones; None when the two differ."""
        value = self.values.get(key)
        if isinstance(value, list):
            sides = set(self.wholes(key))
            return sides.pop() if len(sides) == 1 else None
        return self.whole(key)


def read_config(path: Path, reads: Reads, *, largest: float = MAX_NUMBER, most_bytes: int = MAX_CONFIG_BYTES) -> Config:
    """Read one JSON object of bounded size, depth and figures, raising `ConfigInvalid`."""
    raw = read_small(path, most_bytes, reads)
    try:
        values = json.loads(raw.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_infinity)
    except (ValueError, RecursionError) as error:
        raise ConfigInvalid(path, f"is not valid JSON: {str(error)[:200]}") from None
    if not isinstance(values, dict):
        raise ConfigInvalid(path, "is not a JSON object")
    _check(path, values, MAX_DEPTH, largest)
    return Config(path, values)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    decoded = dict(pairs)
    if len(decoded) < len(pairs):
        # Two parsers may keep different ones: the one checked would not be the one used.
        raise ValueError("a key appears twice")
    return decoded


def _infinity(name: str) -> float:
    # Not JSON, but diffusers writes it: `lambda_min_clipped` of a scheduler without clipping.
    if name == "NaN":
        raise ValueError("NaN is no value")
    return float(name)


def _check(path: Path, value: object, depth: int, largest: float) -> None:
    if isinstance(value, dict | list):
        if depth == 0:
            raise ConfigInvalid(path, f"is nested deeper than {MAX_DEPTH} levels")
        for item in value.values() if isinstance(value, dict) else value:
            _check(path, item, depth - 1, largest)
    elif isinstance(value, int | float) and largest < abs(value) < math.inf:
        raise ConfigInvalid(path, "has a figure that no model has")
