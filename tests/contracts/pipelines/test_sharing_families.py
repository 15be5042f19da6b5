"""Checkpoints of every family share what they have in common, and draw the bits that they draw alone."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from jobs.contract import Txt2ImgParameters
from models_registry.detection import detect
from models_registry.reading.bounded_files import Reads
from pipelines.components import weigh
from pipelines.engine.engine import Counters
from pipelines.families.base import Family
from pipelines.loaders import LOADERS
from pipelines.loading import load
from pipelines.shelf import Shelf
from tests.contracts.pipelines.lora_jobs import draw, finish
from tests.storages import common, storage_bytes
from tests.tiny import flux2, qwenimage, transformers, unets, zimage

Make = Callable[..., Txt2ImgParameters]
Build = Callable[[Path], Path]

CPU = torch.device("cpu")


def pair(counters: Counters, *folders: Path) -> list[Family]:
    """Load models as one engine would."""
    shelf = Shelf(LOADERS, CPU, torch.float32, counters)
    return [load(detect(folder, Reads()), CPU, counters=counters, shelf=shelf) for folder in folders]


@pytest.mark.parametrize(
    "build",
    [
        unets.build_sd2_v,
        unets.build_sdxl,
        transformers.build_sd3_medium,
        transformers.build_flux_dev,
        flux2.build_klein_base,
        flux2.build_dev,
        zimage.build_turbo,
        qwenimage.build_qwenimage,
    ],
)
def test_models_of_a_family_share_all_but_what_differs(build: Build, tmp_path: Path, parameters: Make) -> None:
    """Two that differ in their VAEs are one and a VAE, in bytes of storage; their runs take turns, and each draws what it draws alone."""
    folder, twin = build(tmp_path / "one"), tmp_path / "twin"
    shutil.copytree(folder, twin)
    [path] = (twin / "vae").glob("*.safetensors")
    weights = load_file(path)
    weights["decoder.conv_out.bias"] += 0.5
    save_file(weights, path, {"format": "pt"})

    counters = Counters()
    one, other = pair(counters, folder, twin)
    assert common(one, other) == one.parts.keys() - {"vae"}
    assert storage_bytes([one, other]) == storage_bytes([one]) + weigh(other.parts["vae"])
    assert counters.components_read == len(one.parts) + 1

    job = parameters(steps=3, width=64, height=64)
    alone = [draw(load(each.entry, CPU), job) for each in (one, other)]
    assert alone[0] != alone[1]
    drawing = [(each, each.prepare(job, 0)) for each in (one, other)]
    for family, state in drawing:
        assert not family.step([state]).errors
    assert [finish(family, state) for family, state in drawing] == alone
    one.close()
    assert draw(other, job) == alone[1]


@pytest.mark.parametrize(
    ("builds", "shared"),
    [
        ((unets.build_sdxl, unets.build_sdxl_inpaint), {"text_encoder", "text_encoder_2", "vae"}),
        ((unets.build_sdxl, unets.build_sdxl_refiner), {"text_encoder_2", "vae"}),
        ((transformers.build_flux_dev, transformers.build_flux_schnell), {"text_encoder", "text_encoder_2", "vae"}),
        ((transformers.build_flux_dev, transformers.build_flux_fill), {"text_encoder", "text_encoder_2", "vae"}),
        (
            (transformers.build_sd3_medium, transformers.build_sd3_without_t5),
            {"text_encoder", "text_encoder_2", "vae", "transformer"},
        ),
    ],
)
def test_variants_share_their_encoders(builds: tuple[Build, Build], shared: set[str], tmp_path: Path) -> None:
    """Published variants have the encoders and the VAE of their family's first; what is equal is read once."""
    folders = [build(tmp_path / build.__name__) for build in builds]
    for name in shared:
        # Random weights differ even there.
        shutil.copytree(folders[0] / name, folders[1] / name, dirs_exist_ok=True)
    counters = Counters()
    one, other = pair(counters, *folders)
    assert common(one, other) == shared
    assert (counters.components_read, counters.components_shared) == (
        len(one.parts) + len(other.parts) - len(shared),
        len(shared),
    )
