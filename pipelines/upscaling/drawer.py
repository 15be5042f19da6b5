"""What draws the task `upscale`: it finds the models that a job needs and hands them to the work."""

from collections.abc import Callable

from jobs.contract import UpscaleParameters
from jobs.errors import PictureUnreadable
from jobs.inputs import Inputs
from models_registry.builtins import is_resampler
from models_registry.entries import Kind, ModelEntry
from pipelines.decoding import decode_picture
from pipelines.drawing import WorkDrawer
from pipelines.engine.engine import Counters
from pipelines.engine.work import Work
from pipelines.upscaling.enlarging import Enlarging
from pipelines.upscaling.redrawing import Redrawer
from pipelines.upscaling.upscaler import Upscaler


class UpscaleDrawer(WorkDrawer[UpscaleParameters]):
    """Enlarge pictures; `family` redraws those that ask for it."""

    def __init__(
        self, take: Callable[[ModelEntry], Upscaler], counters: Counters, family: Redrawer | None = None
    ) -> None:
        super().__init__(counters)
        #: Lends a loaded upscaler: `Shelf.take`.
        self._take_upscaler = take
        self._family = family

    def work(self, parameters: UpscaleParameters, index: int, inputs: Inputs) -> Work:  # noqa: ARG002 - there is one picture
        """Return the enlargement of the job's picture, not yet begun."""
        source = decode_picture(inputs.picture(parameters.image))
        found, told = source.shape[1::-1], (parameters.source_width, parameters.source_height)
        if found != told:
            raise PictureUnreadable(f"the picture is {found[0]} x {found[1]}, not {told[0]} x {told[1]} as it was")
        name = parameters.upscaler
        upscaler = None if is_resampler(name) else self._take_upscaler(inputs.model(Kind.UPSCALER, name))
        return Enlarging(parameters, inputs, source, upscaler, self._family if parameters.refine is not None else None)
