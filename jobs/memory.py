"""Estimate the memory that a job needs; pure, and an upper bound until peaks are learnt."""

from collections.abc import Mapping
from typing import Final

from jobs.contract import AnalyseParameters, DiffusionParameters, JobParameters, UpscaleParameters
from jobs.geometry import UPSCALE_TILE, drawn_pixels
from jobs.needs import needs_of
from models_registry.entries import Kind, ModelEntry, ModelRef
from models_registry.families import FAMILIES
from models_registry.memory import weights_memory

#: Bytes of activations per pixel of a tile that an upscaler enlarges, at half precision: 64 channels, some twenty of them alive, at
#: the source's size, and two at four times its sides.
UPSCALE_BYTES_PER_PIXEL: Final = 7_000


def memory_of(parameters: JobParameters, models: Mapping[ModelRef, ModelEntry]) -> int:
    """Return the bytes that a job needs with all its models loaded, at half precision; `models` holds at least what it names."""
    entries = [models[ref] for ref in dict.fromkeys(need.ref for need in needs_of(parameters))]
    if isinstance(parameters, AnalyseParameters):
        # One after the other; of a comparison two at a time.
        return sum(sorted(map(weights_memory, entries))[-2:])
    return sum(map(weights_memory, entries)) + max(_activations(parameters, entries), default=0)


def _activations(parameters: JobParameters, entries: list[ModelEntry]) -> list[int]:
    """Return what each kind of model needs beside its weights; they work one after the other."""
    found = []
    for entry in entries:
        if entry.kind is Kind.UPSCALER:
            found.append(_tile_pixels(parameters) * UPSCALE_BYTES_PER_PIXEL)
        elif entry.kind is Kind.CHECKPOINT:
            found.append(_drawn_pixels(parameters, entry) * FAMILIES[entry.family].activation_bytes_per_pixel)
    return found


def _tile_pixels(parameters: JobParameters) -> int:
    if isinstance(parameters, UpscaleParameters):
        return min(UPSCALE_TILE, parameters.source_width) * min(UPSCALE_TILE, parameters.source_height)
    return min(UPSCALE_TILE, parameters.width) * min(UPSCALE_TILE, parameters.height)


def _drawn_pixels(parameters: JobParameters, entry: ModelEntry) -> int:
    if isinstance(parameters, UpscaleParameters) and parameters.refine is not None:
        return parameters.refine.tile**2
    if isinstance(parameters, DiffusionParameters):
        return drawn_pixels(parameters, FAMILIES[entry.family].size_step)
    return 0
