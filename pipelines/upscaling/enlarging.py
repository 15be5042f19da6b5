"""One enlargement as a stream of steps: a tile of the upscaler is one, and each denoising step of a redrawn tile."""

from typing import Any

import numpy as np
import torch

from jobs.contract import UpscaleParameters
from jobs.geometry import Size, upscaled_size
from jobs.inputs import Inputs
from models_registry.builtins import is_resampler
from pipelines.engine.asks import Ask
from pipelines.engine.checkpoint import Checkpoint, CheckpointMismatchError
from pipelines.engine.work import Asks, Work
from pipelines.pictures import Pixels
from pipelines.resizing import resample
from pipelines.upscaling.mosaic import Mosaic, shrunk
from pipelines.upscaling.redrawing import Redrawer, Redrawing
from pipelines.upscaling.stages import Stage, stages_of
from pipelines.upscaling.upscaler import Upscaler


class Enlarging(Work):
    """Enlarge one picture."""

    def __init__(
        self,
        parameters: UpscaleParameters,
        inputs: Inputs,
        source: Pixels,
        upscaler: Upscaler | None,
        family: Redrawer | None,
    ) -> None:
        self._parameters = parameters
        self._inputs = inputs
        self._upscaler = upscaler
        self._family = family
        self._stages = stages_of(parameters)
        super().__init__(max(1, sum(stage.steps for stage in self._stages)))
        #: What the present stage starts from; at the end the finished picture.
        self._base = source
        self._place = 0
        self._mosaic: Mosaic | None = None
        self._redrawing: Redrawing | None = None
        self._resumed: Checkpoint | None = None
        self._waking = False

    def asks(self) -> Asks:
        """Yield each tile and each step of a tile, with a `step` after each; return the picture."""
        if not self._waking and all(stage.redraws for stage in self._stages):
            yield from self._resample_source()
        if self._waking:
            yield from self._wake()
        while self._place < len(self._stages):
            stage = self._stages[self._place]
            yield from self._fill(stage)
        return self._base

    def preview(self) -> Pixels:
        """Return a small picture of what is there: tiles in place, over the picture that they are made from."""
        return shrunk(self._base) if self._mosaic is None else self._mosaic.preview(self._base)

    def keep(self) -> dict[str, Any]:
        """Return copies of the picture so far, and of the tile that is being redrawn."""
        kept: dict[str, Any] = {"place": self._place, "base": torch.from_numpy(self._base.copy()), "done": 0}
        if self._mosaic is not None:
            kept["done"] = self._mosaic.done
            kept |= {name: torch.from_numpy(array) for name, array in self._mosaic.keep().items()}
        if self._redrawing is not None:
            inside = bytearray(self._redrawing.checkpoint().to_bytes())
            kept["inside"] = torch.frombuffer(inside, dtype=torch.uint8)
        return kept

    def restore(self, checkpoint: Checkpoint) -> None:
        """Put fresh work where the checkpoint's was."""
        kept = checkpoint.scheduler
        self.step = checkpoint.step
        self._base, self._place = kept["base"].numpy(), kept["place"]
        if self._place < len(self._stages):
            self._mosaic = self._stages[self._place].mosaic()
            if "canvas" in kept:
                self._mosaic.restore({name: kept[name].numpy() for name in ("canvas", "strip")}, kept["done"])
        if "inside" in kept:
            self._resumed = Checkpoint.from_bytes(kept["inside"].numpy().tobytes())
        if checkpoint.total != self.total:
            raise CheckpointMismatchError("the checkpoint has another number of steps")
        self._waking = True

    def close(self) -> None:
        """Stop the run inside and drop the pictures; again is harmless."""
        if self._redrawing is not None:
            self._redrawing.close()
            self._redrawing = None
        self._mosaic = self._upscaler = self._family = None
        self._base = np.zeros((1, 1, 3), np.uint8)

    def _wake(self) -> Asks:
        if self._resumed is not None:
            self._redrawing = self._next_redrawing()
            self._redrawing.begin(self._resumed)
            self._resumed = None
        self._waking = False
        yield Ask("step")
        return self._base

    def _resample_source(self) -> Asks:
        """Bring the source to its final size without any model: a step of its own where nothing follows."""
        parameters = self._parameters
        target = upscaled_size(parameters.source_width, parameters.source_height, parameters.scale)
        name = parameters.upscaler.casefold() if is_resampler(parameters.upscaler) else "lanczos"
        self._base = yield Ask("work", _Resampling, "to", (self._base, target, name))
        if not self._stages:
            self.step = self.total
            yield Ask("step")
        return self._base

    def _fill(self, stage: Stage) -> Asks:
        """Put every tile of a stage in place and take its result as the next one's base."""
        if self._mosaic is None:
            self._mosaic = stage.mosaic()
        mosaic = self._mosaic
        before = sum(each.steps for each in self._stages[: self._place])
        while not mosaic.complete:
            made = yield from (self._redraw(stage, before) if stage.redraws else self._enlarge())
            mosaic.put(made)
            self.step = before + mosaic.done * stage.steps_per_tile
            if mosaic.complete:
                self._base, self._mosaic = resample(mosaic.picture, stage.result), None
                self._place += 1
            yield Ask("step")
        return self._base

    def _tile(self) -> Pixels:
        mosaic = self._mosaic
        if mosaic is None:
            raise RuntimeError("no stage has begun")
        box = mosaic.boxes[mosaic.done]
        return self._base[box.top : box.bottom, box.left : box.right]

    def _enlarge(self) -> Asks:
        tile = self._tile()
        made: Pixels = yield Ask("upscale", self._upscaler, "enlarge_tile", (tile,))
        # Registered with a guess where its file does not tell: the steps that were foretold, and the size, hold all the same.
        factor = self._parameters.upscaler_scale
        return resample(made, Size(tile.shape[1] * factor, tile.shape[0] * factor))

    def _redraw(self, stage: Stage, before: int) -> Asks:
        """Draw a tile step by step; its last step, and its decoding, belong to the tile's being put in place."""
        redrawing = self._redrawing
        if redrawing is None:
            redrawing = self._redrawing = self._next_redrawing()
            yield Ask("work", redrawing, "begin")
        done = before + (self._mosaic.done if self._mosaic is not None else 0) * stage.steps_per_tile
        while True:
            yield Ask("work", redrawing, "advance")
            if redrawing.drawn:
                break
            self.step = done + min(redrawing.step, stage.steps_per_tile - 1)
            yield Ask("step")
        made: Pixels = yield Ask("work", redrawing, "finish")
        redrawing.close()
        self._redrawing = None
        return made

    def _next_redrawing(self) -> Redrawing:
        if self._family is None or self._mosaic is None:
            raise RuntimeError("no model was handed over to redraw with")
        return Redrawing(self._family, self._parameters, self._mosaic.done, self._inputs, self._tile())


class _Resampling:
    """Resample as a call that an ask can name."""

    @staticmethod
    def to(pixels: Pixels, size: Any, name: str) -> Pixels:
        """Bring a picture to a size."""
        return resample(pixels, size, name)
