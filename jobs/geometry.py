"""Sizes and counts that follow from a job's parameters alone; pure, so that the API, the agent and the engine agree on them."""

import math
from collections.abc import Sequence
from typing import Final, NamedTuple

from jobs.contract import (
    AnalyseParameters,
    DiffusionParameters,
    Img2ImgParameters,
    InpaintParameters,
    JobParameters,
    Txt2ImgParameters,
    UpscaleParameters,
)
from jobs.parts import Hires, Outpaint

#: Pixels of the source that a tile of an upscaler covers, and how far neighbours overlap.
UPSCALE_TILE: Final = 512
UPSCALE_OVERLAP: Final = 32
#: Looking at one file or text costs about as much as so many units of drawing.
ANALYSIS_COST: Final = 64
#: Share of a redrawn tile's side that its neighbour draws as well.
REFINE_OVERLAP: Final = 0.25


class Size(NamedTuple):
    """Width and height, pixels."""

    width: int
    height: int


class Box(NamedTuple):
    """A part of a picture, pixels; right and bottom are the first ones outside."""

    left: int
    top: int
    right: int
    bottom: int


def hires_size(width: int, height: int, scale: float, step: int) -> Size:
    """Return the size of the second pass: multiples of the family's step, nearest to the scaled size."""
    return Size(*(max(step, round(side * scale / step) * step) for side in (width, height)))


def outpainted_size(width: int, height: int, outpaint: Outpaint | None) -> Size:
    """Return the size of a picture that has grown beyond its edges."""
    if outpaint is None:
        return Size(width, height)
    return Size(width + outpaint.left + outpaint.right, height + outpaint.top + outpaint.bottom)


def upscaled_size(width: int, height: int, scale: float) -> Size:
    """Return the size of an enlarged picture."""
    return Size(max(1, round(width * scale)), max(1, round(height * scale)))


def denoising_steps(steps: int, strength: float) -> int:
    """Return how many of `steps` are drawn at a strength: none at 0, else at least one (as diffusers counts them)."""
    if strength <= 0:
        return 0
    return min(steps, max(1, int(steps * strength)))


def spans(length: int, tile: int, overlap: int) -> list[tuple[int, int]]:
    """Cut a length into spans of at most `tile` that share at least `overlap` with their neighbour."""
    if length <= tile:
        return [(0, length)]
    count = math.ceil((length - overlap) / (tile - overlap))
    starts = [round(index * (length - tile) / (count - 1)) for index in range(count)]
    return [(start, start + tile) for start in starts]


def tiles(width: int, height: int, tile: int, overlap: int) -> Sequence[Box]:
    """Cut a picture into overlapping tiles, row by row."""
    return [
        Box(left, top, right, bottom)
        for top, bottom in spans(height, tile, overlap)
        for left, right in spans(width, tile, overlap)
    ]


def upscale_passes(parameters: UpscaleParameters) -> Sequence[Size]:
    """Return the size of the picture before each pass of the upscaler's model; none where no model enlarges."""
    if parameters.upscaler_scale <= 1:
        return []
    sizes, reached = [], 1
    while reached < parameters.scale:
        sizes.append(Size(parameters.source_width * reached, parameters.source_height * reached))
        reached *= parameters.upscaler_scale
    return sizes


def upscale_steps(parameters: UpscaleParameters) -> int:
    """Return how many steps an enlargement has: a tile of the upscaler is one, and each denoising step of a redrawn tile."""
    done = sum(len(tiles(*size, UPSCALE_TILE, UPSCALE_OVERLAP)) for size in upscale_passes(parameters))
    refine = parameters.refine
    if refine is not None:
        size = upscaled_size(parameters.source_width, parameters.source_height, parameters.scale)
        redrawn = len(tiles(*size, refine.tile, round(refine.tile * REFINE_OVERLAP)))
        done += redrawn * denoising_steps(refine.steps, refine.strength)
    return max(1, done)


def picture_count(parameters: JobParameters) -> int:
    """Return how many pictures the job makes."""
    if isinstance(parameters, AnalyseParameters):
        return 0
    return parameters.num_images if isinstance(parameters, DiffusionParameters) else 1


def steps_per_picture(parameters: JobParameters) -> int:
    """Return how many steps each picture takes, as the user counts them; at least one."""
    match parameters:
        case Txt2ImgParameters(hires=Hires() as hires):
            return parameters.steps + denoising_steps(hires.steps or parameters.steps, hires.strength)
        case Txt2ImgParameters():
            return parameters.steps
        case Img2ImgParameters() | InpaintParameters():
            return max(1, denoising_steps(parameters.steps, parameters.strength))
        case UpscaleParameters():
            return upscale_steps(parameters)
        case _:
            return 1


def total_steps(parameters: JobParameters) -> int:
    """Return the steps of all pictures of the job; where it makes none, of everything that is looked at."""
    if isinstance(parameters, AnalyseParameters):
        return max(1, len(parameters.adapters) + len(parameters.texts))
    return steps_per_picture(parameters) * picture_count(parameters)


def drawn_pixels(parameters: JobParameters, step: int = 8) -> int:
    """Return the pixels of the largest picture that is denoised or enlarged to: what memory and limits go by."""
    match parameters:
        case Txt2ImgParameters(hires=Hires() as hires):
            return math.prod(hires_size(parameters.width, parameters.height, hires.scale, step))
        case InpaintParameters():
            return math.prod(outpainted_size(parameters.width, parameters.height, parameters.outpaint))
        case _:
            return parameters.width * parameters.height


def estimated_cost(parameters: JobParameters) -> int:
    """Return the job's share of a device's time: pixels times steps, in units of 4 096."""
    if isinstance(parameters, AnalyseParameters):
        return ANALYSIS_COST * total_steps(parameters)
    return max(1, drawn_pixels(parameters) * total_steps(parameters) // 4096)
