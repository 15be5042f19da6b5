"""From a catalogue entry to a loaded family, from local files alone.

It does not decide what stays loaded, and keeps nothing: the caller owns the family and closes it.
"""

from collections.abc import Mapping
from types import MappingProxyType

import torch

from jobs.errors import ModelDamaged
from models_registry.entries import Layout, ModelEntry
from pipelines.checkpoints import read_pipe
from pipelines.engine.engine import Counters
from pipelines.families.base import Family
from pipelines.families.flux import Flux
from pipelines.families.flux2 import Flux2
from pipelines.families.qwenimage import QwenImage
from pipelines.families.sd2 import StableDiffusion2
from pipelines.families.sd3 import StableDiffusion3
from pipelines.families.sd15 import StableDiffusion15
from pipelines.families.sdxl import StableDiffusionXL
from pipelines.families.zimage import ZImage
from pipelines.loaders import LOADERS
from pipelines.previews import preview_matrix
from pipelines.reading import name_failure
from pipelines.shelf import Shelf

FAMILY_CLASSES: Mapping[str, type[Family]] = MappingProxyType(
    {
        family.name: family
        for family in (
            StableDiffusion15,
            StableDiffusion2,
            StableDiffusionXL,
            StableDiffusion3,
            ZImage,
            Flux,
            Flux2,
            QwenImage,
        )
    }
)


def load(
    entry: ModelEntry,
    device: torch.device | str,
    dtype: torch.dtype | None = None,
    counters: Counters | None = None,
    shelf: Shelf | None = None,
) -> Family:
    """Load a model onto a device, raising `ModelMissing`, `ModelDamaged` (naming the file) or `OutOfMemory`.

    `dtype` None takes float32 on a CPU, whatever is stored, and half precision elsewhere. What jobs add to the model is taken from the
    shelf, which may serve several models of one device and precision: what two of them have in common is then there once. Left out, the
    model has one of its own.
    """
    counters = Counters() if counters is None else counters
    family = FAMILY_CLASSES.get(entry.family)
    if family is None:
        raise ModelDamaged(f"no pipeline draws with a {entry.family} model")
    device = torch.device(device)
    dtype = default_dtype(device) if dtype is None else dtype
    shelf = Shelf(LOADERS, device, dtype, counters) if shelf is None else shelf
    pipe = read_pipe(entry, shelf.components, dtype)
    # A single file has no folder of its own to bring a matrix in.
    folder = None if entry.layout is Layout.SINGLE_FILE else entry.path
    preview = name_failure(entry.path, lambda: preview_matrix(folder, pipe.vae))
    counters.loads += 1
    return family(pipe, entry, preview, counters, shelf)


def default_dtype(device: torch.device) -> torch.dtype:
    """Return the precision a device draws in: CPUs have no fast half precision."""
    return torch.float16 if device.type in {"cuda", "mps"} else torch.float32
