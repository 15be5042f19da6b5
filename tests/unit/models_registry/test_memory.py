"""Memory is estimated from parameters and pixels alone."""

from pathlib import Path

import pytest

from models_registry.entries import Component, Kind, Layout, ModelEntry
from models_registry.families import FAMILIES
from models_registry.memory import needs_memory, weights_memory


def entry(dtype: str, bytes_per_parameter: int) -> ModelEntry:
    """Make an entry of 1000 + 500 parameters, stored as `dtype`."""
    sizes = {"unet": 1000, "vae": 500}
    return ModelEntry(
        name="m",
        kind=Kind.CHECKPOINT,
        layout=Layout.DIFFUSERS,
        family="sd15",
        path=Path("/m"),
        fingerprint="0" * 64,
        components=tuple(
            Component(name=name, bytes=count * bytes_per_parameter, parameters=count, dtype=dtype)
            for name, count in sizes.items()
        ),
        native_size=512,
        latent_factor=8,
        latent_channels=4,
    )


@pytest.mark.parametrize(("dtype", "stored"), [("F32", 4), ("F16", 2), ("F8_E4M3", 1)])
def test_memory_counts_weights_at_half_precision(dtype: str, stored: int) -> None:
    """How the weights are stored does not change what they take once loaded."""
    assert weights_memory(entry(dtype, stored)) == 3000


def test_memory_grows_with_pixels_alone() -> None:
    """Twice the pixels need twice the activations, in either direction."""
    model = entry("F16", 2)
    activations = [needs_memory(model, *size) - 3000 for size in ((512, 512), (1024, 512), (512, 1024))]
    assert activations[0] == 512 * 512 * FAMILIES["sd15"].activation_bytes_per_pixel
    assert activations[1] == activations[2] == 2 * activations[0]
