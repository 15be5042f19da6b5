"""What draws the task `preprocess`, in one step."""

from collections.abc import Callable, Mapping
from typing import Any

import torch

from jobs.contract import PreprocessParameters
from jobs.inputs import Inputs
from models_registry.entries import ModelEntry
from pipelines.decoding import decode_picture
from pipelines.drawing import WorkDrawer
from pipelines.engine.asks import Ask
from pipelines.engine.checkpoint import Checkpoint
from pipelines.engine.engine import Counters
from pipelines.engine.work import Asks, Work
from pipelines.pictures import Pixels
from pipelines.preprocessing.annotator import Annotator
from pipelines.preprocessing.preprocess import preprocess, weights_of
from pipelines.upscaling.mosaic import shrunk

#: Lends a loaded network: `Shelf.take`.
Take = Callable[[ModelEntry], Annotator]


class PreprocessDrawer(WorkDrawer[PreprocessParameters]):
    """Make control pictures."""

    def __init__(self, take: Take, counters: Counters) -> None:
        super().__init__(counters)
        self._take_annotator = take

    def work(self, parameters: PreprocessParameters, index: int, inputs: Inputs) -> Work:  # noqa: ARG002 - there is one picture
        """Return the preprocessing of the job's picture, not yet begun."""
        source = decode_picture(inputs.picture(parameters.image))
        name = parameters.preprocessor
        weights = weights_of(name, inputs)
        return _Preprocessing(_Call(name, parameters.preprocessor_options, weights, self._take_annotator), source)


class _Call:
    """One preprocessor with its options, as a call that an ask can name."""

    def __init__(self, name: str, options: Mapping[str, float], weights: ModelEntry | None, take: Take) -> None:
        self._name = name
        self._options = options
        self._weights = weights
        self._take = take

    def __call__(self, pixels: Pixels) -> Pixels:
        return preprocess(self._name, pixels, self._options, self._weights, self._take)


class _Preprocessing(Work):
    """Run one preprocessor over one picture."""

    def __init__(self, call: _Call, source: Pixels) -> None:
        super().__init__(1)
        self._call = call
        self._pixels = source

    def asks(self) -> Asks:
        """Yield the only step; return the picture."""
        if self.step == 0:
            self._pixels = yield Ask("work", self._call, "__call__", (self._pixels,))
            self.step = 1
        yield Ask("step")
        return self._pixels

    def preview(self) -> Pixels:
        """Return the picture, small."""
        return shrunk(self._pixels)

    def keep(self) -> dict[str, Any]:
        """Return a copy of the finished picture."""
        return {"picture": torch.from_numpy(self._pixels.copy())}

    def restore(self, checkpoint: Checkpoint) -> None:
        """Take over the finished picture."""
        self._pixels, self.step = checkpoint.scheduler["picture"].numpy(), checkpoint.step

    def close(self) -> None:
        """Do nothing: the picture goes with the work."""
