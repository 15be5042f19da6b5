"""Upscalers that spandrel loads, told by the names of their tensors; how much one pass enlarges follows from the shapes."""

import math
import re
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from models_registry.entries import ANY_FAMILY, Kind
from models_registry.findings import Findings, component, of_one_file
from models_registry.reading.bounded_files import Reads
from models_registry.reading.safetensors_header import Header
from models_registry.refusals import Unrecognised, WeightsMismatch

Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]

#: Folders of other programs in which everything is an upscaler, its architecture known to spandrel alone.
FOLDERS: Final = frozenset({"upscalers", "upscale_models", "esrgan", "realesrgan", "swinir", "dat", "hat"})
#: What training tools put around the tensors.
_WRAPPINGS: Final = ("params_ema.", "params.", "module.")
_IMAGE: Final = 4
_MOST: Final = 16
_NUMBERED: Final = re.compile(r"(?:model|body)\.(\d+)\.weight", re.ASCII)


class _Architecture(NamedTuple):
    name: str
    #: All of these names are there.
    marks: tuple[str, ...]
    scale: Callable[[Shapes], int | None]


def from_file(header: Header, _: Reads) -> Findings | None:
    """Read one upscaler, raising a `ModelRefused` for one that cannot be used; None for what is none."""
    shapes = _unwrapped({name: tensor.shape for name, tensor in header.tensors.items()})
    known = next((each for each in _ARCHITECTURES if all(mark in shapes for mark in each.marks)), None)
    if known is None:
        is_among_them = header.path.parent.name.casefold() in FOLDERS
        if not is_among_them or not any(len(shape) == _IMAGE for shape in shapes.values()):
            return None
    scale = None if known is None else _scale(header, known, shapes)
    return Findings(
        kind=Kind.UPSCALER,
        family=ANY_FAMILY,
        weights=of_one_file(header),
        components=(component("upscaler", header.tensors.values()),),
        variant="base" if known is None else known.name,
        scale=scale,
    )


def _scale(header: Header, known: _Architecture, shapes: Shapes) -> int | None:
    try:
        scale = known.scale(shapes)
    except (KeyError, IndexError, ZeroDivisionError) as error:
        raise WeightsMismatch(header.path, f"looks like {known.name} and is not whole: {error}") from None
    if scale is not None and not 1 <= scale <= _MOST:
        raise Unrecognised(header.path, f"enlarges {scale} times by its shapes, which no upscaler does")
    return scale


def _unwrapped(shapes: Shapes) -> Shapes:
    wrapping = next((each for each in _WRAPPINGS if all(name.startswith(each) for name in shapes)), "")
    return {name.removeprefix(wrapping): shape for name, shape in shapes.items()}


def _shuffled(rows: int, inputs: int) -> int | None:
    """Return the enlargement of a layer that gives each pixel's square as channels; None when none fits."""
    # As many colours as are read, else colours, grey, or colours with transparency.
    for colours in (inputs, 3, 1, 4):
        scale = math.isqrt(rows // colours)
        if scale > 0 and scale * scale * colours == rows:
            return scale
    return None


def _unshuffled(inputs: int, outputs: int) -> int:
    """Return how much the picture is folded before the first layer: RealESRGAN's x2 and x1 have 12 and 48 channels."""
    return math.isqrt(inputs // outputs) if inputs in (outputs * 4, outputs * 16) else 1


def _old_esrgan(shapes: Shapes) -> int:
    # `model.0` is the first layer, `model.1` the body; each layer between it and the last two doubles.
    layers = sorted(int(found[1]) for name in shapes if (found := _NUMBERED.fullmatch(name)))
    doubling = [layer for layer in layers if layer > 1][:-2]
    first, last = shapes["model.0.weight"], shapes[f"model.{layers[-1]}.weight"]
    return int(2 ** len(doubling)) // _unshuffled(first[1], last[0])


def _new_esrgan(shapes: Shapes) -> int:
    doubling = sum(f"conv_up{n}.weight" in shapes or f"upconv{n}.weight" in shapes for n in (1, 2, 3))
    first, last = shapes["conv_first.weight"], shapes["conv_last.weight"]
    return int(2**doubling) // _unshuffled(first[1], last[0])


def _compact(shapes: Shapes) -> int | None:
    last = max(int(found[1]) for name in shapes if (found := _NUMBERED.fullmatch(name)))
    return _shuffled(shapes[f"body.{last}.weight"][0], shapes["body.0.weight"][1])


def _span(shapes: Shapes) -> int | None:
    return _shuffled(shapes["upsampler.0.weight"][0], shapes["conv_1.sk.weight"][1])


def _transformer(shapes: Shapes) -> int | None:
    """Return the enlargement of SwinIR and its descendants, which share their last layers."""
    first = shapes.get("conv_first.1.weight") or shapes["conv_first.weight"]
    # Behind a pixel unshuffle the first layer reads folded pictures.
    folded = math.isqrt(first[1] // 3) if "conv_first.1.weight" in shapes else 1
    scale: int | None = 1
    if "conv_up1.weight" in shapes:
        scale = int(2 ** sum(f"conv_up{n}.weight" in shapes for n in (1, 2, 3)))
    elif "conv_before_upsample.0.weight" in shapes:
        stages = [shapes[name] for n in range(0, 10, 2) if (name := f"upsample.{n}.weight") in shapes]
        scale = math.prod(math.isqrt(stage[0] // stage[1]) for stage in stages)
    elif "upsample.0.weight" in shapes:
        scale = _shuffled(shapes["upsample.0.weight"][0], first[1] // folded**2)
    return None if scale is None else scale // folded


_SWIN: Final = "layers.0.residual_group.blocks.0"
#: Where marks of one are a part of another's, the other comes first.
_ARCHITECTURES: Final = (
    _Architecture("esrgan", ("model.0.weight", "model.1.sub.0.RDB1.conv1.0.weight"), _old_esrgan),
    _Architecture("esrgan", ("model.0.weight", "model.1.sub.0.RDB1.conv1x1.weight"), _old_esrgan),
    _Architecture("esrgan", ("conv_first.weight", "body.0.rdb1.conv1.weight", "conv_last.weight"), _new_esrgan),
    _Architecture("esrgan", ("conv_first.weight", "RRDB_trunk.0.RDB1.conv1.weight", "conv_last.weight"), _new_esrgan),
    _Architecture("compact", ("body.0.weight", "body.1.weight", "body.2.weight"), _compact),
    _Architecture("span", ("conv_1.sk.weight", "block_1.c1_r.sk.weight", "upsampler.0.weight"), _span),
    _Architecture("hat", ("relative_position_index_SA", f"{_SWIN}.conv_block.cab.0.weight"), _transformer),
    _Architecture("dat", ("before_RG.1.weight", "layers.0.blocks.0.attn.qkv.weight"), _transformer),
    _Architecture("swinir", (f"{_SWIN}.norm1.weight", f"{_SWIN}.attn.relative_position_index"), _transformer),
)
