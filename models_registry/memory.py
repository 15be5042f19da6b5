"""Estimate the memory that a picture needs; pure, and an upper bound until peaks are learnt."""

from models_registry.entries import ModelEntry
from models_registry.families import FAMILIES

HALF_PRECISION_BYTES = 2


def weights_memory(entry: ModelEntry) -> int:
    """Return the bytes of all weights at half precision, however they are stored."""
    return sum(component.parameters for component in entry.components) * HALF_PRECISION_BYTES


def needs_memory(entry: ModelEntry, width: int, height: int) -> int:
    """Return the bytes that one picture of width x height pixels needs beside its weights and with them, at half precision."""
    return weights_memory(entry) + width * height * FAMILIES[entry.family].activation_bytes_per_pixel
