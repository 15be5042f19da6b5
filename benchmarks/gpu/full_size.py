"""Build models of the published sizes with random weights: they draw noise, in exactly the time and memory of the real ones."""

from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, EulerDiscreteScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

import reference_models


def _tokenizer() -> Any:
    # Its few tokens lie inside the real vocabulary, and it needs no download.
    return CLIPTokenizer.from_pretrained(Path(next(iter(reference_models.__path__))) / "shapes-sd15" / "tokenizer")


def build_sd15(folder: Path) -> Path:
    """Write Stable Diffusion 1.5 (860 M + 84 M + 123 M parameters) at half precision as a diffusers folder and return it.

    Configuration: the published `unet/config.json`, `vae/config.json` and `text_encoder/config.json` of Stable Diffusion 1.5.
    """
    tokenizer = _tokenizer()
    torch.manual_seed(0)
    unet = UNet2DConditionModel(sample_size=64, cross_attention_dim=768, attention_head_dim=8)
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(128, 256, 512, 512),
        layers_per_block=2,
        sample_size=512,
    )
    text_encoder = CLIPTextModel(
        CLIPTextConfig(
            hidden_size=768,
            intermediate_size=3072,
            num_hidden_layers=12,
            num_attention_heads=12,
            projection_dim=768,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    )
    scheduler = EulerDiscreteScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1
    )
    pipe = StableDiffusionPipeline(
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipe.to(torch.float16).save_pretrained(folder)
    return folder
