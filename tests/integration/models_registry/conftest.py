"""A tiny but genuine Stable Diffusion folder, written by diffusers itself, and a database to register it in."""

# First, because transformers looks for torchvision, which needs operators that this defines.
import pipelines  # noqa: F401  # isort: skip

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from infra.database import Connection, connect

# Its type hints cover only a part of it.
maker: Any = diffusers


@pytest.fixture(scope="session")
def saved_sd15(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save a Stable Diffusion 1.x pipeline of 128 pixels a side once for the session; never change it."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("saved") / "tiny"
    vae = maker.AutoencoderKL(
        block_out_channels=(4, 4, 4, 4),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        norm_num_groups=1,
        latent_channels=4,
        sample_size=128,
    )
    unet = maker.UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(8, 8),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=16,
        attention_head_dim=4,
        norm_num_groups=4,
    )
    text = CLIPTextConfig(
        vocab_size=8,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )
    pipeline = maker.StableDiffusionPipeline(
        vae=vae,
        text_encoder=CLIPTextModel(text),
        tokenizer=CLIPTokenizer(
            vocab={"<|startoftext|>": 0, "<|endoftext|>": 1, "a</w>": 2}, merges=[], model_max_length=77
        ),
        unet=unet,
        scheduler=maker.DDIMScheduler(clip_sample=False, steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder)
    return folder


@pytest.fixture
def sd15(saved_sd15: Path, tmp_path: Path) -> Callable[[str], Path]:
    """Return a function that puts a copy of the saved model, which a test may change, into the test's `models` folder."""

    def copy(name: str = "tiny") -> Path:
        return Path(shutil.copytree(saved_sd15, tmp_path / "models" / name))

    return copy


@pytest.fixture
def conn(database_url: str) -> Iterator[Connection]:
    """Connect to a fresh database."""
    with connect(database_url, application_name="test") as connection:
        yield connection
