"""Small Stable Diffusion pipelines with random weights, in genuine diffusers format."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from jobs.contract import Txt2ImgParameters
from models_registry.entries import Kind, Layout, ModelEntry
from pipelines.engine.engine import Counters
from pipelines.families.base import Family
from pipelines.loading import load

#: The library ships no types for these calls.
_DIFFUSERS: Any = diffusers

_SYMBOLS = [chr(code) for code in range(ord("a"), ord("z") + 1)] + list("0123456789.,()-")


def _tokenizer() -> CLIPTokenizer:
    words = [*_SYMBOLS, *(f"{symbol}</w>" for symbol in _SYMBOLS), "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(
        vocab={word: number for number, word in enumerate(words)},
        merges=[],
        unk_token="<|endoftext|>",
        bos_token="<|startoftext|>",
        eos_token="<|endoftext|>",
        pad_token="<|endoftext|>",
        model_max_length=77,
    )


def _text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=37,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=77,
            projection_dim=32,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    for name, parameter in encoder.named_parameters():
        if name.endswith("final_layer_norm.bias"):
            # A fresh norm has a mean of zero, which no trained one has; emphasis divides by it.
            torch.nn.init.uniform_(parameter, 0.0, 0.5)
    return encoder


def _unet(in_channels: int) -> Any:
    return _DIFFUSERS.UNet2DConditionModel(
        in_channels=in_channels,
        block_out_channels=(8, 16),
        layers_per_block=1,
        sample_size=32,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=32,
        attention_head_dim=4,
        norm_num_groups=4,
    )


def build_tiny_sd15(folder: Path, *, inpaint: bool = False, seed: int = 0) -> Path:
    """Save a Stable Diffusion 1.x pipeline of a few thousand random weights as a diffusers folder; `inpaint` sees mask and surroundings."""
    cls = _DIFFUSERS.StableDiffusionInpaintPipeline if inpaint else _DIFFUSERS.StableDiffusionPipeline
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        tokenizer = _tokenizer()
        pipe = cls(
            vae=_DIFFUSERS.AutoencoderKL(
                block_out_channels=(8, 16),
                down_block_types=("DownEncoderBlock2D",) * 2,
                up_block_types=("UpDecoderBlock2D",) * 2,
                latent_channels=4,
                norm_num_groups=4,
                sample_size=64,
            ),
            text_encoder=_text_encoder(tokenizer),
            tokenizer=tokenizer,
            unet=_unet(9 if inpaint else 4),
            scheduler=_DIFFUSERS.PNDMScheduler(
                beta_start=0.00085,
                beta_end=0.012,
                beta_schedule="scaled_linear",
                skip_prk_steps=True,
                set_alpha_to_one=False,
                steps_offset=1,
            ),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
    pipe.save_pretrained(folder)
    return folder


def build_tiny_controlnet(folder: Path, seed: int) -> Path:
    """Save a ControlNet of random weights that fits the tiny pipeline; none of its outputs is zero, as those of a fresh one are."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = _DIFFUSERS.ControlNetModel.from_unet(_unet(4), conditioning_embedding_out_channels=(4, 8))
        for weights in network.parameters():
            torch.nn.init.normal_(weights, std=0.1)
    network.save_pretrained(folder)
    return folder


def entry_for(folder: Path, kind: Kind = Kind.CHECKPOINT) -> ModelEntry:
    """Describe a folder as the registry would."""
    return ModelEntry(
        name=folder.name,
        kind=kind,
        layout=Layout.DIFFUSERS,
        family="sd15",
        path=folder,
        fingerprint="0" * 64,
        components=(),
        native_size=64,
        latent_factor=2,
        latent_channels=4,
    )


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Draw on one thread: for tiny models a second one only waits, for long on a busy machine."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_sd15_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a diffusers folder with a tiny random Stable Diffusion 1.x pipeline."""
    return build_tiny_sd15(tmp_path_factory.mktemp("models") / "tiny-sd15")


@pytest.fixture(scope="session")
def entry_of() -> Callable[[Path], ModelEntry]:
    """Return the maker of catalogue entries for tiny folders."""
    return entry_for


@pytest.fixture(scope="session")
def loaded(tiny_sd15_folder: Path) -> Family:
    """Return the tiny pipeline, loaded once."""
    return load(entry_for(tiny_sd15_folder), "cpu")


@pytest.fixture
def family(loaded: Family) -> Iterator[Family]:
    """Return a family of its own over the loaded weights; every state must be closed at the end."""
    fresh = type(loaded)(loaded.pipe, loaded.entry, loaded.preview_matrix, Counters(), loaded.shelf)
    yield fresh
    left = set(fresh.open_states)
    fresh.close()
    assert not left


@pytest.fixture
def parameters() -> Callable[..., Txt2ImgParameters]:
    """Return a maker of job parameters, 32 x 32 and 4 steps unless told otherwise."""

    def make(**changes: Any) -> Txt2ImgParameters:
        values: dict[str, Any] = {
            "model": "tiny-sd15",
            "prompt": "a red circle",
            "width": 32,
            "height": 32,
            "steps": 4,
            "guidance_scale": 5.0,
            "scheduler": "Euler",
            "seed": 7,
            "preview_every": 0,
        }
        return Txt2ImgParameters.model_validate(values | changes)

    return make
