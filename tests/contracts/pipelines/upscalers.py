"""Small upscalers with random weights, as files that spandrel recognises, and pictures to enlarge."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from spandrel.architectures.Compact import Compact
from spandrel.architectures.ESRGAN import ESRGAN
from spandrel.architectures.SwinIR import SwinIR

from jobs.contract import UpscaleParameters
from jobs.geometry import upscaled_size
from jobs.inputs import Inputs
from jobs.pictures import upload_ref
from models_registry.entries import ANY_FAMILY, Component, Kind, Layout, ModelEntry
from pipelines.pictures import Pixels

SOURCE = upload_ref("5" * 64)


def upscaler_entry(path: Path, scale: int = 4) -> ModelEntry:
    """Describe a file as the registry would."""
    return ModelEntry(
        name=path.stem,
        kind=Kind.UPSCALER,
        layout=Layout.SINGLE_FILE,
        family=ANY_FAMILY,
        path=path,
        fingerprint="1" * 64,
        components=(Component(name="upscaler", bytes=4000, parameters=1000, dtype="F32"),),
        scale=scale,
    )


def save_compact(path: Path, scale: int = 4, convolutions: int = 1, channels: int = 3) -> ModelEntry:
    """Save a Compact model (nearest neighbours plus what its `convolutions` + 2 layers add)."""
    return _save(
        path,
        lambda: Compact(num_in_ch=channels, num_out_ch=channels, num_feat=4, num_conv=convolutions, upscale=scale),
        scale,
    )


def save_esrgan(path: Path, scale: int = 4) -> ModelEntry:
    """Save an ESRGAN model of one block."""
    return _save(path, lambda: ESRGAN(num_filters=8, num_blocks=1, scale=scale), scale)


def save_swinir(path: Path) -> ModelEntry:
    """Save a SwinIR model, which looks through windows of 8 x 8 pixels."""
    return _save(
        path,
        lambda: SwinIR(
            embed_dim=12, depths=[2], num_heads=[2], window_size=8, upscale=2, upsampler="pixelshuffledirect"
        ),
        2,
    )


def _save(path: Path, make: Any, scale: int) -> ModelEntry:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = make()
    state = {name: tensor.contiguous().clone() for name, tensor in model.state_dict().items()}
    for name in state:
        # Random networks answer with nearly nothing: grey in its place.
        if isinstance(model, ESRGAN) and name.endswith("10.bias"):
            state[name] += 0.5
    save_file(state, path)
    return upscaler_entry(path, scale)


def picture(width: int, height: int, seed: int = 0) -> Pixels:
    """Return smooth colours with a few hard edges."""
    generator = np.random.default_rng(seed)
    across, down = np.meshgrid(np.linspace(0, 9, width), np.linspace(0, 9, height))
    waves = [np.sin(across * a + down * b) for a, b in generator.uniform(0.5, 3, (3, 2))]
    pixels = (np.stack(waves, axis=2) * 100 + 128).astype(np.uint8)
    pixels[height // 3 : height // 2, width // 4 : width // 2] = generator.integers(0, 256, 3)
    return pixels


def png(pixels: Pixels) -> bytes:
    """Encode a picture."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def upscale_parameters(source: Pixels, upscaler: ModelEntry | str, scale: float, **changes: Any) -> UpscaleParameters:
    """Return the parameters of an enlargement."""
    height, width, _ = source.shape
    name = upscaler if isinstance(upscaler, str) else upscaler.name
    size = upscaled_size(width, height, scale)
    values: dict[str, Any] = {
        "model": name,
        "upscaler": name,
        "upscaler_scale": 1 if isinstance(upscaler, str) else upscaler.scale,
        "image": SOURCE,
        "scale": float(scale),
        "source_width": width,
        "source_height": height,
        "width": size.width,
        "height": size.height,
        "seed": 7,
        "preview_every": 0,
    }
    return UpscaleParameters.model_validate(values | changes)


def upscale_inputs(source: Pixels, *entries: ModelEntry) -> Inputs:
    """Return what such a job refers to."""
    return Inputs({entry.ref: entry for entry in entries}, {SOURCE: png(source)})
