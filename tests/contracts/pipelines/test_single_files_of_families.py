"""SD 2.x and SDXL as single files in the original layout: the bits of the folders they were made from, by shapes alone at full size."""

import shutil
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from jobs.errors import ModelMissing
from models_registry.entries import Kind, Layout, ModelEntry
from models_registry.kinds.single_files import config_folder
from pipelines.loading import load
from pipelines.original.component import below, build_text_encoder, build_unet, build_vae
from pipelines.original.published import published
from tests.original_files import lay_beside, open_clip, write_file
from tests.original_layout import original_text_encoder, whole_checkpoint
from tests.tiny.unets import CHECKPOINTS

_DIFFUSERS: Any = diffusers
_VARIANTS = [("sd2", "v"), ("sd2", "inpaint"), ("sdxl", "base"), ("sdxl", "refiner"), ("sdxl", "inpaint")]


def _entry(path: Path, family: str, variant: str) -> ModelEntry:
    return ModelEntry(
        name=path.stem,
        kind=Kind.CHECKPOINT,
        layout=Layout.DIFFUSERS if path.is_dir() else Layout.SINGLE_FILE,
        family=family,
        variant=variant,
        path=path,
        fingerprint="0" * 64,
        components=(),
        native_size=64,
        latent_factor=8,
        latent_channels=4,
    )


@pytest.mark.parametrize(("family", "variant"), _VARIANTS)
def test_single_file_has_the_bits_of_its_folder(
    tmp_path: Path, family: str, variant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every weight finds its place again in a pipeline of the same class and options, and nothing is asked of the network."""

    def refuse(*_args: object) -> None:
        raise AssertionError("a connection was attempted")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    folder = CHECKPOINTS[family, variant](tmp_path / "folder")
    file = write_file(folder, tmp_path / "file.safetensors")
    # The second tokenizer's words are the first one's.
    if variant == "base":
        shutil.rmtree(config_folder(file) / "tokenizer_2")
    wanted, found = (load(_entry(path, family, variant), "cpu") for path in (folder, file))
    assert type(found.pipe) is type(wanted.pipe)
    for name in ("force_zeros_for_empty_prompt", "requires_aesthetics_score"):
        assert found.pipe.config.get(name) == wanted.pipe.config.get(name)
    assert found.parts.keys() == wanted.parts.keys()
    for name, part in wanted.parts.items():
        own = found.parts[name].state_dict()
        assert own.keys() == part.state_dict().keys()
        assert all(torch.equal(own[key], tensor) for key, tensor in part.state_dict().items())
    for name in ("tokenizer", "tokenizer_2"):
        if getattr(wanted.pipe, name, None) is not None:
            assert getattr(found.pipe, name).pad_token == getattr(wanted.pipe, name).pad_token
    assert found.pipe.scheduler.config.prediction_type == wanted.pipe.scheduler.config.prediction_type
    for each in (wanted, found):
        each.close()


def test_parts_that_a_file_lacks_lie_beside_it(tmp_path: Path) -> None:
    """VAE and text encoders, whole folders beside the file; where one is nowhere, it is named."""
    folder = CHECKPOINTS["sdxl", "base"](tmp_path / "folder")
    lacking = ("vae", "text_encoder", "text_encoder_2")
    file = write_file(folder, tmp_path / "file.safetensors", without=lacking)
    for name in lacking:
        with pytest.raises(ModelMissing, match=rf"file\.safetensors holds no {name}, .*file\.config/{name}"):
            load(_entry(file, "sdxl", "base"), "cpu")
        lay_beside(folder, file, name)
    wanted, found = (load(_entry(path, "sdxl", "base"), "cpu") for path in (folder, file))
    for name in lacking:
        own = found.parts[name].state_dict()
        assert all(torch.equal(own[key], tensor) for key, tensor in wanted.parts[name].state_dict().items())
    for each in (wanted, found):
        each.close()


def _clip(component: str, config: Mapping[str, Any], *, projects: bool) -> dict[str, torch.Tensor]:
    cls: Any = CLIPTextModelWithProjection if projects else CLIPTextModel
    weights: dict[str, torch.Tensor] = cls(CLIPTextConfig(**config)).state_dict()
    return original_text_encoder(weights) if component == "text_encoder" else open_clip(weights)


@pytest.mark.parametrize(
    ("family", "variant", "parameters"),
    [
        ("sd2", "base", 865_000_000),
        ("sd2", "v", 865_000_000),
        ("sdxl", "base", 2_567_000_000),
        ("sdxl", "refiner", 2_259_000_000),
    ],
)
def test_ordinary_sizes_need_no_configuration(family: str, variant: str, parameters: int) -> None:
    """The published model, by shapes alone: every tensor has its place."""
    usual, half = published(family, variant), torch.float16
    with torch.device("meta"):
        unet = _DIFFUSERS.UNet2DConditionModel(**usual["unet"].config)
        vae = _DIFFUSERS.AutoencoderKL(**usual["vae"].config)
        texts = {
            name: _clip(name if family == "sdxl" else "open", usual[name].config, projects=name == "text_encoder_2")
            for name in usual
            if name.startswith("text_encoder")
        }
    weights = whole_checkpoint(unet.state_dict(), vae.state_dict(), {f"{name}.": each for name, each in texts.items()})
    path = Path("ordinary.safetensors")
    found = build_unet(path, weights, "", usual["unet"], half)
    assert sum(each.numel() for each in found.parameters()) > parameters
    assert build_vae(path, weights, family, half).config.scaling_factor == usual["vae"].config["scaling_factor"]
    for name in texts:
        projects = name == "text_encoder_2"
        text = build_text_encoder(path, below(weights, f"{name}."), name, "", usual[name], half, projects=projects)
        assert text.config.hidden_size == usual[name].config["hidden_size"]


@pytest.mark.parametrize(
    ("variant", "cls", "settings"),
    [
        ("base", "EulerDiscreteScheduler", {"timestep_spacing": "leading", "prediction_type": "epsilon"}),
        ("v", "EulerDiscreteScheduler", {"prediction_type": "v_prediction", "rescale_betas_zero_snr": False}),
        ("turbo", "EulerAncestralDiscreteScheduler", {"timestep_spacing": "trailing"}),
        ("lightning", "EulerDiscreteScheduler", {"timestep_spacing": "trailing"}),
        ("lcm", "LCMScheduler", {}),
    ],
)
def test_scheduler_is_the_variants_without_a_configuration(
    tmp_path: Path, variant: str, cls: str, settings: dict[str, Any]
) -> None:
    """What a variant was distilled or trained for comes with its name."""
    file = write_file(CHECKPOINTS["sdxl", "base"](tmp_path / "folder"), tmp_path / "file.safetensors")
    shutil.rmtree(config_folder(file) / "scheduler")
    family = load(_entry(file, "sdxl", variant), "cpu")
    scheduler = family.pipe.scheduler
    assert type(scheduler).__name__ == cls
    assert {name: scheduler.config[name] for name in settings} == settings
    family.close()
