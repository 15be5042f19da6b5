"""What `quality` and `size` mean for a model; pure."""

import itertools
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from broker_api.admission.sizes import bounds
from models_registry.entries import ModelEntry
from models_registry.families import FAMILIES, facts_of

MOST_STEPS: Final = 200
#: Times the steps that the model draws with by itself.
STEPS: Final[Mapping[str, float]] = MappingProxyType({"low": 0.5, "medium": 1.0, "high": 1.5, "xhigh": 2.0, "max": 3.0})
_SAME: Final[Mapping[str, str]] = MappingProxyType({"auto": "medium", "standard": "medium", "hd": "high"})
#: Names of OpenAI's own models, which clients have built in; here they mean the default model.
_THEIRS: Final = ("dall-e-", "gpt-image-", "chatgpt-image-")


def is_theirs(model: str) -> bool:
    """Tell whether a name is that of one of OpenAI's own image models."""
    return model.startswith(_THEIRS)


def level_of(quality: str) -> str:
    """Return the level that a quality means: `low`, `medium`, `high`, `xhigh` or `max`."""
    return _SAME.get(quality, quality)


def preset_steps(quality: str, entry: ModelEntry) -> int | None:
    """Return the steps of a quality; None where they are the model's own."""
    times = STEPS[level_of(quality)]
    usual = entry.default_steps or facts_of(entry).steps
    return None if times == 1 else min(MOST_STEPS, max(1, round(usual * times)))


def size_problem(width: int | None, height: int | None, entry: ModelEntry) -> str | None:
    """Return why a model does not draw a size, with the nearest sizes that it does; None when it does."""
    family = FAMILIES[entry.family]
    smallest, largest = bounds(entry)
    sides = [side for side in (width, height) if side is not None]
    if all(side % family.size_step == 0 and smallest <= side <= largest for side in sides):
        return None
    near = itertools.product(*(_near(side, family.size_step, smallest, largest) for side in sides))
    listed = ", ".join(dict.fromkeys("x".join(map(str, each)) for each in near))
    return (
        f"{'x'.join(map(str, sides))} is no size of {family.title}, which draws multiples of {family.size_step} "
        f"from {smallest} to {largest}. Nearest: {listed}."
    )


def _near(side: int, step: int, smallest: int, largest: int) -> list[int]:
    low, high = -(-smallest // step) * step, largest // step * step
    return sorted({min(high, max(low, each)) for each in (side // step * step, -(-side // step) * step)})
