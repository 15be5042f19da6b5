"""What the files of one model say, before it has a name and a fingerprint."""

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from models_registry.entries import Component, Kind
from models_registry.reading.safetensors_header import Header, Tensor

_NO_FILES: Mapping[str, Path] = MappingProxyType({})


class Findings(NamedTuple):
    """Hold the facts of one entry (see `entries.ModelEntry`), and the files that its fingerprint is made of."""

    kind: Kind
    family: str
    #: By names that do not depend on where the files lie.
    weights: Mapping[str, Header]
    components: tuple[Component, ...]
    #: Files beside the weights that change pictures as well.
    others: Mapping[str, Path] = _NO_FILES
    variant: str = "base"
    native_size: int = 0
    latent_factor: int = 0
    latent_channels: int = 0
    text_width: int | None = None
    text_layers: int | None = None
    width: int | None = None
    scale: int | None = None
    rank: int | None = None
    vectors: int | None = None
    default_steps: int | None = None
    default_guidance_scale: float | None = None
    default_scheduler: str | None = None


def component(name: str, tensors: Iterable[Tensor]) -> Component:
    """Describe the tensors of one component; there must be at least one."""
    sizes: Counter[str] = Counter()
    parameters = 0
    for tensor in tensors:
        sizes[tensor.dtype] += tensor.end - tensor.start
        parameters += tensor.parameters
    dtype = max(sizes, key=lambda each: (sizes[each], each))
    return Component(name=name, bytes=sizes.total(), parameters=parameters, dtype=dtype)


def of_one_file(header: Header) -> Mapping[str, Header]:
    """Return the weights of a model that is one file, whatever it is called."""
    return {"weights": header}
