"""Redraw one tile of a picture with a checkpoint's image-to-image: a run inside the run. It does not know where the tile lies."""

import hashlib
import io
from collections.abc import Sequence
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np
from PIL import Image

from jobs.contract import MAX_SEED, Img2ImgParameters, UpscaleParameters
from jobs.errors import DrawingFailed
from jobs.inputs import Inputs
from jobs.pictures import upload_ref
from models_registry.families import FamilyFacts
from pipelines.engine.checkpoint import Checkpoint
from pipelines.engine.engine import StepReport
from pipelines.engine.state import State
from pipelines.pictures import Picture, Pixels


class Redrawer(Protocol):
    """What redraws: a loaded family."""

    @property
    def facts(self) -> FamilyFacts:
        """Return which sizes it draws."""

    def prepare(self, parameters: Any, index: int, inputs: Inputs = ..., *, resume: Checkpoint | None = None) -> State:
        """Start a picture."""

    def step(self, states: Sequence[State]) -> StepReport:
        """Take states through one step."""

    def finish(self, states: Sequence[State]) -> list[Picture]:
        """Decode states past their last step."""


class Redrawing:
    """One tile being redrawn; every method that calls a model may be called again when it failed. `close` must be called."""

    def __init__(
        self, family: Redrawer, parameters: UpscaleParameters, number: int, inputs: Inputs, tile: Pixels
    ) -> None:
        self._family = family
        self._size = tile.shape[:2]
        fitted = _fitted(tile, family.facts)
        file = _png(fitted)
        ref = upload_ref(hashlib.sha256(file).hexdigest())
        self._inputs = Inputs(inputs.models, MappingProxyType({ref: file}))
        self._parameters = _img2img(parameters, number, ref, fitted)
        self._state: State | None = None

    @property
    def step(self) -> int:
        """Return how many steps are done."""
        return 0 if self._state is None else self._state.step

    @property
    def drawn(self) -> bool:
        """Tell whether the last step is done."""
        return self._state is not None and self._state.phase != "denoise"

    @property
    def state(self) -> State | None:
        """Return the run inside; None before it began."""
        return self._state

    def begin(self, resume: Checkpoint | None = None) -> None:
        """Encode the tile, or go on from a checkpoint."""
        self.close()
        self._state = self._family.prepare(self._parameters, 0, self._inputs, resume=resume)

    def advance(self) -> None:
        """Draw one step, raising what went wrong."""
        state = self._begun()
        failure = self._family.step([state]).errors.get(state)
        if failure is not None:
            raise failure

    def finish(self) -> Pixels:
        """Decode the tile and return it at its own size."""
        [picture] = self._family.finish([self._begun()])
        height, width = self._size
        return picture.array[:height, :width]

    def checkpoint(self) -> Checkpoint:
        """Return the run inside as data."""
        return self._begun().checkpoint()

    def close(self) -> None:
        """Stop the run inside; again is harmless."""
        if self._state is not None:
            self._state.close()
            self._state = None

    def _begun(self) -> State:
        if self._state is None:
            raise RuntimeError("the tile has not begun")
        return self._state


def _img2img(parameters: UpscaleParameters, number: int, ref: str, tile: Pixels) -> Img2ImgParameters:
    refine = parameters.refine
    if refine is None:
        raise DrawingFailed("the job does not say how its tiles are redrawn")
    return Img2ImgParameters(
        task="img2img",
        model=parameters.model,
        prompt=refine.prompt,
        negative_prompt=refine.negative_prompt,
        width=tile.shape[1],
        height=tile.shape[0],
        steps=refine.steps,
        guidance_scale=refine.guidance_scale,
        scheduler=refine.scheduler,
        schedule_type=refine.schedule_type,
        # Every tile has noise of its own: the same noise everywhere would show as a pattern.
        seed=(parameters.seed + number) % (MAX_SEED + 1),
        preview_every=0,
        image=ref,
        strength=refine.strength,
        resize_mode="stretch",
    )


def _fitted(tile: Pixels, facts: FamilyFacts) -> Pixels:
    """Continue a tile to the right and downwards, mirrored, to a size that the family draws."""
    wanted = (max(facts.min_side, -(-side // facts.size_step) * facts.size_step) for side in tile.shape[:2])
    margins = [(0, need - side) for side, need in zip(tile.shape[:2], wanted, strict=True)]
    return np.pad(tile, [*margins, (0, 0)], mode="symmetric")


def _png(pixels: Pixels) -> bytes:
    buffer = io.BytesIO()
    # Read back in a moment: the size does not matter.
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=0)
    return buffer.getvalue()
