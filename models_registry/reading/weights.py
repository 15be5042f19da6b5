"""Find the weights of one component's folder, whole or in several files, and hold them against its configuration."""

import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final, NamedTuple, Protocol

from models_registry.reading.bounded_files import Reads
from models_registry.reading.configs import read_config
from models_registry.reading.safetensors_header import Header, Tensor, read_header
from models_registry.refusals import ConfigInvalid, PickleRefused, Unrecognised, WeightsMismatch, WeightsMissing

PICKLE_SUFFIXES: Final = frozenset({".bin", ".ckpt", ".pt", ".pth", ".pkl", ".pickle"})
#: An index names every tensor; the largest text encoders have some hundreds, transformers some thousands.
MAX_INDEX_BYTES: Final = 2 * 1024 * 1024
MAX_SHARDS: Final = 64
#: Bytes of a whole component, which an index tells.
MAX_SIZE: Final = 2**62
_SUFFIX: Final = ".safetensors"


class Tensors(Protocol):
    """Anything that tells the shapes of tensors by their names, and where they lie."""

    @property
    def path(self) -> Path:
        """Return the file that is named where something is wrong."""

    @property
    def tensors(self) -> Mapping[str, Tensor]:
        """Return the tensors by name."""


class Weights(NamedTuple):
    """Hold what the headers of a component's weights say."""

    #: The one file, or the index of several.
    path: Path
    tensors: Mapping[str, Tensor]
    #: By part of the name: empty for the one file, else the number of each.
    headers: Mapping[str, Header]

    @property
    def listing(self) -> Path | None:
        """Return the file that says which tensor lies in which file; None where there is one file."""
        return None if "" in self.headers else self.path

    def named(self, component: str) -> Mapping[str, Header]:
        """Return the headers by names that do not depend on where the files lie."""
        return {f"{component}{number}": header for number, header in self.headers.items()}


def read_weights(place: Path, file: str, reads: Reads) -> Weights:
    """Read the headers of a component's weights, raising a `ModelRefused` that says what lies there instead."""
    path, index = place / file, place / f"{file}.index.json"
    if path.exists() and index.exists():
        # The libraries differ in which one they take.
        raise ConfigInvalid(index, f"lies beside {file}: a component has either one file or several")
    if path.exists():
        return _whole(read_header(path, reads))
    if index.exists():
        return _read_shards(index, file.removesuffix(_SUFFIX), reads)
    half = place / f"{file.removesuffix(_SUFFIX)}.fp16{_SUFFIX}"
    if half.exists():
        return _whole(read_header(half, reads))
    raise _what_lies_there(place, file)


def check_shape(weights: Tensors, names: tuple[str, ...], expected: tuple[int, int]) -> None:
    """Raise `WeightsMismatch` unless the first tensor of these names begins with these dimensions."""
    tensor = next((weights.tensors[name] for name in names if name in weights.tensors), None)
    if tensor is None:
        raise WeightsMismatch(weights.path, f"has no tensor {names[0]}")
    if tensor.shape[:2] != expected:
        raise WeightsMismatch(
            weights.path, f"has {names[0]} of shape {list(tensor.shape)}; its configuration says {list(expected)} …"
        )


def dimension(weights: Tensors, name: str, place: int) -> int:
    """Return one dimension of a tensor, raising `WeightsMismatch` when the file has no such tensor or it no such dimension."""
    tensor = weights.tensors.get(name)
    if tensor is None:
        raise WeightsMismatch(weights.path, f"has no tensor {name}")
    if len(tensor.shape) <= place:
        raise WeightsMismatch(
            weights.path, f"has {name[:80]} of shape {list(tensor.shape)}, which has too few dimensions"
        )
    return tensor.shape[place]


def _whole(header: Header) -> Weights:
    return Weights(header.path, header.tensors, MappingProxyType({"": header}))


def _read_shards(index: Path, stem: str, reads: Reads) -> Weights:
    places = read_config(index, reads, largest=MAX_SIZE, most_bytes=MAX_INDEX_BYTES).values.get("weight_map")
    if not isinstance(places, dict) or not places:
        raise ConfigInvalid(index, "says of no tensor in which file it lies")
    pattern = re.compile(rf"{re.escape(stem)}-(\d{{5}})-of-(\d{{5}}){re.escape(_SUFFIX)}", re.ASCII)
    files = {str(name) for name in places.values()}
    found = {name: match for name in files if (match := pattern.fullmatch(name))}
    # Any other name could lead out of the folder.
    if len(found) < len(files):
        raise ConfigInvalid(index, f"names files that are not called {stem}-00001-of-…{_SUFFIX}")
    totals = {int(match[2]) for match in found.values()}
    if totals != {len(files)} or len(files) > MAX_SHARDS:
        raise ConfigInvalid(index, f"names {len(files)} files, which is not as many as they say there are")
    tensors: dict[str, Tensor] = {}
    headers: dict[str, Header] = {}
    for name, match in sorted(found.items()):
        if not (index.parent / name).exists():
            raise WeightsMissing(index.parent / name, "is not there")
        header = read_header(index.parent / name, reads)
        if {tensor for tensor, place in places.items() if place == name} != header.tensors.keys():
            raise WeightsMismatch(header.path, f"does not hold the tensors that {index.name} says")
        headers[f"-{match[1]}"] = header
        tensors |= header.tensors
    return Weights(index, MappingProxyType(tensors), MappingProxyType(headers))


def _what_lies_there(place: Path, file: str) -> Unrecognised | PickleRefused | WeightsMissing:
    others = sorted(other.name for other in place.iterdir() if other.is_file()) if place.is_dir() else []
    pickles = [other for other in others if Path(other).suffix.lower() in PICKLE_SUFFIXES]
    safe = [other for other in others if other.endswith(_SUFFIX)]
    if safe:
        return Unrecognised(
            place / safe[0], f"is a variant or a part of the weights; {file} is read, or the files that its index names"
        )
    if pickles:
        reason = f"is a pickle, which can run code when it is opened; save the model with safetensors, as {file}"
        return PickleRefused(place / pickles[0], reason)
    return WeightsMissing(place / file, "is not there")
