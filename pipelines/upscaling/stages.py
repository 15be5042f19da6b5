"""The parts of an enlargement one after another: passes of an upscaler, then the redrawing of the result. It performs no call itself.

A stage takes a picture and fills a mosaic; the last thing it does is to bring the result to the size that the next one starts from.
"""

from collections.abc import Callable
from dataclasses import dataclass

from jobs.contract import UpscaleParameters
from jobs.geometry import (
    REFINE_OVERLAP,
    UPSCALE_OVERLAP,
    UPSCALE_TILE,
    Size,
    denoising_steps,
    tiles,
    upscale_passes,
    upscaled_size,
)
from pipelines.upscaling.mosaic import Mosaic
from pipelines.upscaling.upscaler import TILE_FADE

#: Redrawn tiles differ in what they show, not only at their edges: nearly the whole overlap is used to pass from one to the other.
REDRAWN_FADE = 0.75


@dataclass(frozen=True)
class Stage:
    """One part of an enlargement."""

    #: Whether a checkpoint redraws the tiles; else the upscaler enlarges them.
    redraws: bool
    #: How many tiles there are, and how many steps each takes.
    tiles: int
    steps_per_tile: int
    #: Makes the mosaic that the tiles go into.
    mosaic: Callable[[], Mosaic]
    #: What the result is resampled to.
    result: Size

    @property
    def steps(self) -> int:
        """Return how many steps it has."""
        return self.tiles * self.steps_per_tile


def stages_of(parameters: UpscaleParameters) -> list[Stage]:
    """Return the stages of a job, in order; their steps are those of `jobs.geometry.upscale_steps`."""
    target = upscaled_size(parameters.source_width, parameters.source_height, parameters.scale)
    sizes = upscale_passes(parameters)
    found = []
    for place, size in enumerate(sizes):
        boxes = tiles(*size, UPSCALE_TILE, UPSCALE_OVERLAP)
        found.append(
            Stage(
                redraws=False,
                tiles=len(boxes),
                steps_per_tile=1,
                mosaic=lambda boxes=boxes: Mosaic(boxes, parameters.upscaler_scale, TILE_FADE),  # type: ignore[misc]
                result=sizes[place + 1] if place + 1 < len(sizes) else target,
            )
        )
    refine = parameters.refine
    if refine is not None:
        boxes = tiles(*target, refine.tile, round(refine.tile * REFINE_OVERLAP))
        found.append(
            Stage(
                redraws=True,
                tiles=len(boxes),
                steps_per_tile=denoising_steps(refine.steps, refine.strength),
                mosaic=lambda: Mosaic(boxes, 1, REDRAWN_FADE),
                result=target,
            )
        )
    return found
