"""One loaded upscaler, whatever its architecture: spandrel recognises it by the names and shapes of its tensors.

It does not know jobs, nor how a picture becomes a stream of steps.
"""

from pathlib import Path
from typing import Any

import spandrel
import torch

from jobs.errors import DrawingFailed, ModelDamaged, ModelMissing
from jobs.geometry import UPSCALE_OVERLAP, UPSCALE_TILE, Size, tiles
from models_registry.entries import Layout, ModelEntry
from models_registry.reading.bounded_files import Reads
from models_registry.reading.safetensors_header import read_header
from models_registry.refusals import FileRefused
from pipelines.pictures import Pixels, to_pixels
from pipelines.reading import name_failure, read_tensors
from pipelines.resizing import resample
from pipelines.upscaling.mosaic import Mosaic

#: Share of an overlap in which two tiles are mixed; the rest of it is thrown away, half at each tile's edge.
TILE_FADE = 0.25
_GREY, _COLOUR = 1, 3


class Upscaler:
    """One loaded model that enlarges by a whole factor; one thread uses it."""

    def __init__(self, model: Any, path: Path) -> None:
        self._model = model
        self._path = path
        #: How much one pass enlarges.
        self.scale = int(model.scale)
        #: What its weights take on the device.
        self.bytes = sum(each.nbytes for each in (*model.model.parameters(), *model.model.buffers()))

    @property
    def dtype(self) -> torch.dtype:
        """Return the precision it computes in."""
        dtype: torch.dtype = self._model.dtype
        return dtype

    def enlarge_tile(self, pixels: Pixels) -> Pixels:
        """Enlarge a picture (height x width x 3) in one call of the model; sizes that the model cannot take are padded."""
        # A copy, because torch takes no array that may not be written to.
        rows = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None]
        # Models of one channel see red, green and blue as three pictures.
        calls = [rows[:, [place]] for place in range(3)] if self._model.input_channels == _GREY else [rows]
        drawn = [self._model(each.to(self._model.device).to(self.dtype) / 255) for each in calls]
        image = torch.cat(drawn, dim=1)[0].float().permute(1, 2, 0).cpu().numpy()
        height, width, _ = pixels.shape
        if image.shape != (height * self.scale, width * self.scale, 3):
            raise DrawingFailed(f"{self._path} made {image.shape} of {pixels.shape}, not {self.scale} times as much")
        return to_pixels(image)

    def enlarge(self, pixels: Pixels) -> Pixels:
        """Enlarge a picture of any size by `scale`, tile by tile."""
        height, width, _ = pixels.shape
        mosaic = Mosaic(tiles(width, height, UPSCALE_TILE, UPSCALE_OVERLAP), self.scale, TILE_FADE)
        for box in mosaic.boxes:
            mosaic.put(self.enlarge_tile(pixels[box.top : box.bottom, box.left : box.right]))
        return mosaic.picture

    def enlarge_to(self, pixels: Pixels, size: Size) -> Pixels:
        """Enlarge a picture to exactly this size: as many passes as reach it, and back by resampling."""
        while self.scale > 1 and (pixels.shape[1] < size.width or pixels.shape[0] < size.height):
            pixels = self.enlarge(pixels)
        return resample(pixels, size)


def load_upscaler(entry: ModelEntry, device: torch.device, dtype: torch.dtype) -> Upscaler:
    """Load an upscaler onto a device, raising `ModelMissing`, `ModelDamaged` (naming the file) or `OutOfMemory`.

    Half precision is taken where `dtype` asks for it, the device is no CPU and the architecture is known to bear it.
    """
    path = entry.path
    if entry.layout is not Layout.SINGLE_FILE:
        raise ModelDamaged(f"{path}: an upscaler is one safetensors file, not a {entry.layout} folder")
    if not path.is_file():
        raise ModelMissing(f"{path} is missing")
    try:
        read_header(path, Reads())
    except FileRefused as refused:
        raise ModelDamaged(f"{path} is damaged: {refused.reason}") from None
    return name_failure(path, lambda: _load(path, device, dtype))


def _load(path: Path, device: torch.device, dtype: torch.dtype) -> Upscaler:
    try:
        # Through the state dict: spandrel's own reading of files would choose by the ending, and open pickles.
        model: Any = spandrel.MAIN_REGISTRY.load(read_tensors(path)[0])
    except spandrel.UnsupportedModelError:
        raise ModelDamaged(f"{path} is of no architecture of upscalers that is known here") from None
    if not isinstance(model, spandrel.ImageModelDescriptor) or model.purpose == "FaceSR":
        raise ModelDamaged(f"{path} is a {model.architecture.name} for {model.purpose}, which enlarges no pictures")
    if (model.input_channels, model.output_channels) not in {(_COLOUR, _COLOUR), (_GREY, _GREY)}:
        raise ModelDamaged(f"{path} makes {model.output_channels} channels of {model.input_channels}")
    return Upscaler(model.to(device, _precision(model, device, dtype)).eval(), path)


def _precision(model: Any, device: torch.device, dtype: torch.dtype) -> torch.dtype:
    bears = (dtype == torch.float16 and model.supports_half) or (dtype == torch.bfloat16 and model.supports_bfloat16)
    return dtype if bears and device.type != "cpu" else torch.float32
