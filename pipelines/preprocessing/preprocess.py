"""From a picture to a control picture of the same size, by a preprocessor's name."""

from collections.abc import Callable, Mapping

import torch

from jobs.errors import DrawingFailed
from jobs.geometry import Size
from jobs.inputs import Inputs
from models_registry.entries import Kind, ModelEntry
from models_registry.preprocessors import PREPROCESSORS
from pipelines.pictures import Pixels
from pipelines.preprocessing.annotator import Annotator
from pipelines.preprocessing.networks import NETWORKS, call, quiet
from pipelines.preprocessing.weightless import WEIGHTLESS
from pipelines.resizing import resample

#: Detectors round sides to multiples of this, pixels.
_MULTIPLE = 64
#: So many times longer than its other side a picture may be for a network; what is longer is seen squeezed.
_MOST_SLENDER = 4


def preprocess(
    name: str,
    pixels: Pixels,
    options: Mapping[str, float],
    weights: ModelEntry | None = None,
    take: Callable[[ModelEntry], Annotator] | None = None,
) -> Pixels:
    """Return what a preprocessor makes of a picture (height x width x 3), of the same size; options left out take their defaults.

    `weights` is the entry of the preprocessor's network, where it needs one, and `take` lends it loaded: `Shelf.take`. Raises `JobFailure`.
    """
    facts = PREPROCESSORS.get(name)
    if facts is None:
        raise DrawingFailed(f"there is no preprocessor {name!r}")
    chosen = {option: each.default for option, each in facts.options.items()} | dict(options)
    if unknown := sorted(chosen.keys() - facts.options.keys()):
        raise DrawingFailed(f"{name} has no option {unknown[0]!r}")
    if not facts.needs_weights:
        return WEIGHTLESS[name](pixels, chosen)
    if weights is None or take is None:
        raise DrawingFailed(f"the weights of the preprocessor {name} were not handed over")
    return _by_network(name, take(weights), pixels, chosen)


def weights_of(name: str, inputs: Inputs) -> ModelEntry | None:
    """Return the weights of a preprocessor, raising `ModelMissing` when they were not handed over; None for one that needs none."""
    facts = PREPROCESSORS.get(name)
    return inputs.model(Kind.PREPROCESSOR, name) if facts is not None and facts.needs_weights else None


def _by_network(name: str, annotator: Annotator, pixels: Pixels, options: Mapping[str, float]) -> Pixels:
    size = Size(pixels.shape[1], pixels.shape[0])
    seen = resample(pixels, _seen_size(size, int(options["resolution"]))).copy()
    with quiet(), torch.no_grad():
        made = call(NETWORKS[name], annotator.detector, seen, options)
    return resample(made, size)


def _seen_size(size: Size, resolution: int) -> Size:
    """Return the size that a network sees: the shorter side at the resolution, both whole multiples."""
    ratio = resolution / min(size)
    sides = (min(side * ratio, resolution * _MOST_SLENDER) for side in size)
    return Size(*(max(_MULTIPLE, round(side / _MULTIPLE) * _MULTIPLE) for side in sides))
