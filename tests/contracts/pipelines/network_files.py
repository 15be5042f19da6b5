"""A network in one file with everything else in folders beside it, as the larger families are passed on: what its tests share."""

import shutil
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from jobs.contract import Txt2ImgParameters
from models_registry.entries import Layout, ModelEntry
from pipelines.families.base import Family
from pipelines.loading import load
from tests.contracts.pipelines.running import Result, end
from tests.original_files import lay_beside

BESIDE = ("vae", "text_encoder", "tokenizer", "scheduler")


def write_network(folder: Path, path: Path, weights: dict[str, torch.Tensor]) -> Path:
    """Write a network's weights as one file, and beside it what else its folder holds."""
    save_file({name: tensor.contiguous() for name, tensor in weights.items()}, path)
    lay_beside(folder, path, *BESIDE)
    place = path.with_suffix(".config") / "transformer"
    place.mkdir()
    shutil.copy(folder / "transformer/config.json", place)
    return path


def load_both(found: ModelEntry, whole: ModelEntry, guidance_scale: float) -> tuple[Family, Family]:
    """Load a file and its folder, and hold that they are one model: the same facts, the same weights, the same picture."""
    assert (found.layout, found.family, found.variant) == (Layout.SINGLE_FILE, whole.family, whole.variant)
    for fact in ("native_size", "latent_factor", "latent_channels", "text_width", "width"):
        assert getattr(found, fact) == getattr(whole, fact), fact
    assert [each.name for each in found.components] == [each.name for each in whole.components]
    one, other = load(found, "cpu"), load(whole, "cpu")
    for name, part in one.parts.items():
        weights, right = part.state_dict(), other.parts[name].state_dict()
        assert weights.keys() == right.keys()
        assert all(torch.equal(weights[key], right[key]) for key in weights), name
    drawn, wanted = _draw(one, guidance_scale), _draw(other, guidance_scale)
    # Weights are read where the file lies in memory: some processors multiply by other routines where rows begin elsewhere.
    assert np.allclose(drawn.latents, wanted.latents, atol=1e-4)
    assert np.abs(drawn.picture.astype(int) - wanted.picture).max() <= 1
    return one, other


def _draw(family: Family, guidance_scale: float) -> Result:
    job = Txt2ImgParameters.model_validate(
        {"model": "x", "prompt": "a red circle", "width": 64, "height": 48, "steps": 2, "scheduler": "Euler"}
        | {"guidance_scale": guidance_scale, "seed": 7, "preview_every": 0}
    )
    return end(family, family.prepare(job, 0))
