"""Which loaded checkpoints leave a device when room lacks: those that free many bytes, were not used for long, and are soon back.

Bytes are counted by storage and once, however many checkpoints have it: what two have in common, neither frees alone. Knows no torch: a
storage is a number that tells it from the others.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Generic, TypeVar

Model = TypeVar("Model")

#: What nothing comes back faster than, seconds: a clock that stood still must not make a reload free.
_LEAST_SECONDS: Final = 0.001


@dataclass
class _Resident(Generic[Model]):
    model: Model
    #: By storage: its bytes.
    weights: Mapping[int, int]
    #: What loading it took.
    seconds: float
    #: The number of the last use.
    used: int


class Residency(Generic[Model]):
    """Keep loaded checkpoints by their keys; `close` gives back what one held."""

    def __init__(self, close: Callable[[Model], None]) -> None:
        self._close = close
        self._held: dict[str, _Resident[Model]] = {}
        self._uses = 0

    def __contains__(self, key: str) -> bool:
        return key in self._held

    @property
    def keys(self) -> tuple[str, ...]:
        """Return what is here, the most recently used last."""
        return tuple(sorted(self._held, key=lambda key: self._held[key].used))

    @property
    def models(self) -> tuple[Model, ...]:
        """Return what is here, the most recently used last."""
        return tuple(self._held[key].model for key in self.keys)

    @property
    def bytes(self) -> int:
        """Return what everything here weighs together."""
        return sum(self.weights.values())

    @property
    def weights(self) -> Mapping[int, int]:
        """Return the bytes of each storage of everything here."""
        return {storage: size for each in self._held.values() for storage, size in each.weights.items()}

    def put(self, key: str, model: Model, weights: Mapping[int, int], seconds: float) -> None:
        """Keep a checkpoint that has just been loaded, in so many seconds."""
        self._held[key] = _Resident(model, weights, seconds, 0)
        self.take(key)

    def take(self, key: str) -> Model:
        """Return a checkpoint that is here, and count the use."""
        self._uses += 1
        self._held[key].used = self._uses
        return self._held[key].model

    def shrink(self, allowed: int, keep: str | None = None, pinned: Mapping[int, int] = MappingProxyType({})) -> bool:
        """Drop checkpoints, but `keep`, until all that is left weighs at most `allowed` bytes; return whether some left.

        Storages that are `pinned` stay whoever leaves.
        """
        left = False
        while self._bytes(pinned) > allowed and self._bytes(pinned) > self._bytes(pinned, self._only(keep)):
            leaving = self._least_worth(keep, pinned)
            self._close(self._held.pop(leaving).model)
            left = True
        return left

    def clear(self, keep: str | None = None) -> bool:
        """Drop everything but `keep`; return whether something left."""
        leaving = [key for key in self._held if key != keep]
        for key in leaving:
            self._close(self._held.pop(key).model)
        return bool(leaving)

    def _least_worth(self, keep: str | None, pinned: Mapping[int, int]) -> str:
        gains = {key: self._gain(key, pinned) for key in self._held if key != keep}
        # Where none frees anything alone, those that share it must leave together: the one used longest ago begins.
        return max(gains, key=lambda key: (gains[key], -self._held[key].used))

    def _gain(self, key: str, pinned: Mapping[int, int]) -> float:
        """Return the bytes that a checkpoint frees by leaving, times the uses of others since its own, by the seconds of its way back."""
        resident = self._held[key]
        freed = self._bytes(pinned) - self._bytes(pinned, self._held.keys() - {key})
        return freed * (self._uses - resident.used) / max(resident.seconds, _LEAST_SECONDS)

    def _only(self, key: str | None) -> Collection[str]:
        return [each for each in self._held if each == key]

    def _bytes(self, pinned: Mapping[int, int], keys: Collection[str] | None = None) -> int:
        """Return what is pinned and what some of the checkpoints are made of, or all of them, weigh together."""
        storages = dict(pinned)
        for key in self._held if keys is None else keys:
            storages.update(self._held[key].weights)
        return sum(storages.values())
