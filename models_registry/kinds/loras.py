"""LoRAs and their relatives (LoCon, LoHa, LoKr), in the layouts of kohya, LyCORIS, diffusers and peft.

Only names and shapes are looked at: whether the layers exist in a checkpoint shows when it is loaded.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from models_registry.entries import Kind
from models_registry.findings import Findings, component, of_one_file
from models_registry.kinds.lora_families import Shape, tell_family
from models_registry.lora_parts import read_part
from models_registry.reading.bounded_files import Reads
from models_registry.reading.safetensors_header import Header
from models_registry.refusals import Unrecognised, WeightsMismatch

#: Names that only LoRAs have, so that those of unknown kinds are called LoRAs as well.
_KOHYA: Final = ("lora_unet_", "lora_te")
_CONVOLUTION: Final = 4
#: What trainers write about the model they trained on.
_SAID: Final = ("modelspec.architecture", "ss_base_model_version", "modelspec.title", "base_model")


def from_file(header: Header, _: Reads) -> Findings | None:
    """Read one LoRA, raising a `ModelRefused` for another family's or a damaged one; None for what is none."""
    layers, others = _layers(header)
    if not any(parts.keys() - {"alpha"} for parts in layers.values()):
        if not any(name.startswith(_KOHYA) for name in header.tensors):
            return None
        raise Unrecognised(header.path, f"is a LoRA of an unknown kind: {min(header.tensors)[:80]!r}")
    if others:
        raise Unrecognised(header.path, f"is a LoRA with parts of an unknown kind: {others[0][:80]!r}")
    for layer, parts in layers.items():
        _check_layer(header.path, layer, parts)
    made = tell_family(header.path, layers, " ".join(header.metadata.get(key, "") for key in _SAID))
    return Findings(
        kind=Kind.LORA,
        weights=of_one_file(header),
        components=(component("lora", header.tensors.values()),),
        variant=_variant(layers),
        rank=max((rank for parts in layers.values() for rank in _ranks(parts)), default=None),
        **made._asdict(),
    )


def _layers(header: Header) -> tuple[dict[str, dict[str, Shape]], list[str]]:
    """Return the shapes of each layer's parts, and the names that are no part of any."""
    layers: dict[str, dict[str, Shape]] = defaultdict(dict)
    others = []
    for name, tensor in header.tensors.items():
        named = read_part(name)
        if named is None:
            others.append(name)
        else:
            layers[named.layer][named.part] = tensor.shape
    return layers, others


def _check_layer(path: Path, layer: str, parts: Mapping[str, Shape]) -> None:
    if "dora" in parts:
        raise Unrecognised(path, "is a DoRA, which rescales the weights themselves: that is not supported yet")
    held = parts.keys() - {"alpha"}
    whole = (
        {"down", "up"} <= held
        or {"hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"} <= held
        or all(f"lokr_{w}" in held or {f"lokr_{w}_a", f"lokr_{w}_b"} <= held for w in ("w1", "w2"))
    )
    if not whole:
        raise WeightsMismatch(path, f"has only {', '.join(sorted(held)) or 'alpha'} of {layer[:80]!r}")
    if any(len(shape) < 2 for part, shape in parts.items() if part != "alpha"):  # noqa: PLR2004 - matrices
        raise WeightsMismatch(path, f"has parts of {layer[:80]!r} that are no matrices")
    if "down" in held and parts["down"][0] != parts["up"][1]:
        raise WeightsMismatch(
            path, f"has halves of {layer[:80]!r} that do not fit: {list(parts['down'])} and {list(parts['up'])}"
        )


def _ranks(parts: Mapping[str, Shape]) -> Iterator[int]:
    for part in ("down", "hada_w1_b", "lokr_w1_b", "lokr_w2_b"):
        if part in parts:
            yield parts[part][0]


def _variant(layers: Mapping[str, Mapping[str, Shape]]) -> str:
    for start, variant in (("lokr_", "lokr"), ("hada_", "loha")):
        if any(part.startswith(start) for parts in layers.values() for part in parts):
            return variant
    return "locon" if any(_is_convolution(parts) for parts in layers.values()) else "lora"


def _is_convolution(parts: Mapping[str, Shape]) -> bool:
    """Tell whether a layer sees neighbours; plain LoRAs have 1 x 1 convolutions too."""
    down = parts["down"]
    return "mid" in parts or (len(down) == _CONVOLUTION and max(down[2:]) > 1)
