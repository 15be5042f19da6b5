"""Find the weights of one component's folder, and hold them against its configuration."""

from pathlib import Path

from models_registry.bounded_files import Reads
from models_registry.refusals import PickleRefused, Unrecognised, WeightsMismatch, WeightsMissing
from models_registry.safetensors_header import Header, read_header

DIFFUSERS_WEIGHTS = "diffusion_pytorch_model.safetensors"
PICKLE_SUFFIXES = frozenset({".bin", ".ckpt", ".pt", ".pth", ".pkl", ".pickle"})


def read_weights(place: Path, file: str, reads: Reads) -> Header:
    """Read the header of a component's weights, raising a `ModelRefused` that says what lies there instead."""
    path = place / file
    if path.exists():
        return read_header(path, reads)
    others = sorted(other.name for other in place.iterdir() if other.is_file()) if place.is_dir() else []
    pickles = [other for other in others if Path(other).suffix.lower() in PICKLE_SUFFIXES]
    safe = [other for other in others if other.endswith((".safetensors", ".safetensors.index.json"))]
    if safe:
        raise Unrecognised(
            place / safe[0], f"is a variant or a part of the weights; only a whole {file} is supported yet"
        )
    if pickles:
        reason = f"is a pickle, which can run code when it is opened; save the model with safetensors, as {file}"
        raise PickleRefused(place / pickles[0], reason)
    raise WeightsMissing(path, "is not there")


def check_shape(header: Header, names: tuple[str, ...], expected: tuple[int, int]) -> None:
    """Raise `WeightsMismatch` unless the first tensor of these names begins with these dimensions."""
    tensor = next((header.tensors[name] for name in names if name in header.tensors), None)
    if tensor is None:
        raise WeightsMismatch(header.path, f"has no tensor {names[0]}")
    if tensor.shape[:2] != expected:
        raise WeightsMismatch(
            header.path, f"has {names[0]} of shape {list(tensor.shape)}; its configuration says {list(expected)} …"
        )


def dimension(header: Header, name: str, place: int) -> int:
    """Return one dimension of a tensor, raising `WeightsMismatch` when the file has no such tensor or it no such dimension."""
    tensor = header.tensors.get(name)
    if tensor is None:
        raise WeightsMismatch(header.path, f"has no tensor {name}")
    if len(tensor.shape) <= place:
        raise WeightsMismatch(
            header.path, f"has {name[:80]} of shape {list(tensor.shape)}, which has too few dimensions"
        )
    return tensor.shape[place]
