"""Stable Diffusion 1.x, 2.x and SDXL with all their variants: what the published configurations say, but for the widths and depths.

Widths differ wherever the published ones do, so that what belongs to one text encoder fits no other.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import diffusers
import torch
import transformers

#: The libraries ship no types for these calls.
_DIFFUSERS: Any = diffusers
_TRANSFORMERS: Any = transformers

_TOKENIZER = Path(__file__).parents[2] / "reference_models" / "shapes-sd15" / "tokenizer"
_NO_CHECKER = MappingProxyType({"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False})
_INPAINT_CHANNELS = 9

_NOISE = MappingProxyType(
    {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}
)
#: The U of Stable Diffusion 1.x and 2.x.
_U = MappingProxyType(
    {
        "block_out_channels": (16, 16, 32, 32),
        "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
        "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
        "layers_per_block": 2,
        "norm_num_groups": 8,
    }
)
_SD15 = MappingProxyType({**_U, "cross_attention_dim": 32, "attention_head_dim": 8, "sample_size": 64})
_SD2 = MappingProxyType(
    {
        **_U,
        "cross_attention_dim": 48,
        "attention_head_dim": (2, 4, 4, 4),
        "use_linear_projection": True,
        "sample_size": 64,
    }
)
#: Widths of SDXL's two text encoders.
_CLIP_L, _CLIP_G = 32, 48
_SDXL = MappingProxyType(
    {
        "block_out_channels": (16, 32, 32),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "layers_per_block": 2,
        "transformer_layers_per_block": (1, 2, 3),
        "attention_head_dim": (2, 4, 4),
        "norm_num_groups": 8,
        "use_linear_projection": True,
        "cross_attention_dim": _CLIP_L + _CLIP_G,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 8,
        # The pooled text, and six numbers about size and crop.
        "projection_class_embeddings_input_dim": _CLIP_G + 6 * 8,
        "sample_size": 128,
    }
)
_REFINER = MappingProxyType(
    {
        **_SDXL,
        "block_out_channels": (24, 24, 48, 48),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "transformer_layers_per_block": 2,
        "attention_head_dim": (2, 2, 4, 4),
        "cross_attention_dim": _CLIP_G,
        # Size, crop, and how much it should please.
        "projection_class_embeddings_input_dim": _CLIP_G + 5 * 8,
    }
)


def build_sd15(folder: Path) -> Path:
    """Save a Stable Diffusion 1.x pipeline; return its folder."""
    return _save_sd(folder, "StableDiffusionPipeline", _SD15, "quick_gelu", _pndm())


def build_sd15_inpaint(folder: Path) -> Path:
    """Save Stable Diffusion 1.x whose network sees the mask and what is around it."""
    return _save_sd(folder, "StableDiffusionInpaintPipeline", _inpainting(_SD15), "quick_gelu", _pndm())


def build_sd2(folder: Path) -> Path:
    """Save Stable Diffusion 2.x base: 512 pixels, epsilon."""
    return _save_sd(folder, "StableDiffusionPipeline", _SD2, "gelu", _pndm())


def build_sd2_v(folder: Path) -> Path:
    """Save Stable Diffusion 2.x as most people know it: 768 pixels, v-prediction."""
    unet = {**_SD2, "sample_size": 96, "upcast_attention": True}
    return _save_sd(folder, "StableDiffusionPipeline", unet, "gelu", _ddim(prediction_type="v_prediction"))


def build_sd2_inpaint(folder: Path) -> Path:
    """Save Stable Diffusion 2.x inpainting."""
    return _save_sd(folder, "StableDiffusionInpaintPipeline", _inpainting(_SD2), "gelu", _pndm())


def build_sdxl(folder: Path) -> Path:
    """Save SDXL base: two text encoders, size and crop as further inputs."""
    return _save_sdxl(folder, "StableDiffusionXLPipeline", _SDXL, _euler())


def build_sdxl_v(folder: Path) -> Path:
    """Save an SDXL trained for v-prediction down to a signal of zero."""
    scheduler = _euler(prediction_type="v_prediction", rescale_betas_zero_snr=True, timestep_spacing="trailing")
    return _save_sdxl(folder, "StableDiffusionXLPipeline", _SDXL, scheduler)


def build_sdxl_refiner(folder: Path) -> Path:
    """Save the SDXL refiner: the second text encoder alone, and a score among its inputs."""
    return _save_sdxl(
        folder,
        "StableDiffusionXLImg2ImgPipeline",
        _REFINER,
        _euler(),
        encoders=(False, True),
        requires_aesthetics_score=True,
        force_zeros_for_empty_prompt=False,
    )


def build_sdxl_inpaint(folder: Path) -> Path:
    """Save SDXL inpainting."""
    return _save_sdxl(
        folder,
        "StableDiffusionXLInpaintPipeline",
        _inpainting(_SDXL),
        _euler(),
        requires_aesthetics_score=False,
        force_zeros_for_empty_prompt=True,
    )


def build_sdxl_turbo(folder: Path) -> Path:
    """Save SDXL Turbo: few steps from the last timestep on, 512 pixels."""
    scheduler = _DIFFUSERS.EulerAncestralDiscreteScheduler(**_NOISE, timestep_spacing="trailing")
    return _save_sdxl(folder, "StableDiffusionXLPipeline", {**_SDXL, "sample_size": 64}, scheduler)


def build_sdxl_lightning(folder: Path) -> Path:
    """Save SDXL Lightning, which is told from SDXL by its scheduler alone."""
    return _save_sdxl(folder, "StableDiffusionXLPipeline", _SDXL, _euler(timestep_spacing="trailing"))


def build_sdxl_lcm(folder: Path) -> Path:
    """Save SDXL with an LCM LoRA merged in, which is told from SDXL by its scheduler alone."""
    return _save_sdxl(folder, "StableDiffusionXLPipeline", _SDXL, _lcm())


def build_sdxl_lcm_full(folder: Path) -> Path:
    """Save SDXL LCM distilled whole, whose network reads the guidance scale."""
    return _save_sdxl(folder, "StableDiffusionXLPipeline", {**_SDXL, "time_cond_proj_dim": 16}, _lcm())


def build_sd2_controlnet(folder: Path, seed: int = 1) -> Path:
    """Save a ControlNet for Stable Diffusion 2.x."""
    return _save_controlnet(folder, _SD2, seed)


def build_sdxl_controlnet(folder: Path, seed: int = 1) -> Path:
    """Save a ControlNet for SDXL."""
    return _save_controlnet(folder, _SDXL, seed)


#: Checkpoints by family and variant.
CHECKPOINTS: Mapping[tuple[str, str], Callable[[Path], Path]] = MappingProxyType(
    {
        ("sd15", "base"): build_sd15,
        ("sd15", "inpaint"): build_sd15_inpaint,
        ("sd2", "base"): build_sd2,
        ("sd2", "v"): build_sd2_v,
        ("sd2", "inpaint"): build_sd2_inpaint,
        ("sdxl", "base"): build_sdxl,
        ("sdxl", "v"): build_sdxl_v,
        ("sdxl", "refiner"): build_sdxl_refiner,
        ("sdxl", "inpaint"): build_sdxl_inpaint,
        ("sdxl", "turbo"): build_sdxl_turbo,
        ("sdxl", "lightning"): build_sdxl_lightning,
        ("sdxl", "lcm"): build_sdxl_lcm,
        ("sdxl", "lcm-full"): build_sdxl_lcm_full,
    }
)


def _inpainting(unet: Mapping[str, Any]) -> Mapping[str, Any]:
    return {**unet, "in_channels": _INPAINT_CHANNELS}


def _pndm() -> Any:
    return _DIFFUSERS.PNDMScheduler(**_NOISE, skip_prk_steps=True, set_alpha_to_one=False)


def _lcm() -> Any:
    return _DIFFUSERS.LCMScheduler(**{**_NOISE, "steps_offset": 1})


def _ddim(**changes: Any) -> Any:
    return _DIFFUSERS.DDIMScheduler(**_NOISE, clip_sample=False, set_alpha_to_one=False, **changes)


def _euler(**changes: Any) -> Any:
    return _DIFFUSERS.EulerDiscreteScheduler(**{**_NOISE, "timestep_spacing": "leading", **changes})


def _save_sd(folder: Path, pipeline: str, unet: Mapping[str, Any], activation: str, scheduler: Any) -> Path:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        # The tokenizer of Stable Diffusion 2.x pads with "!".
        tokenizer = _tokenizer("!" if activation == "gelu" else None)
        pipe = getattr(_DIFFUSERS, pipeline)(
            vae=_vae(scaling_factor=0.18215, sample_size=512, force_upcast=False),
            text_encoder=_clip("CLIPTextModel", tokenizer, unet["cross_attention_dim"], activation),
            tokenizer=tokenizer,
            unet=_DIFFUSERS.UNet2DConditionModel(**unet),
            scheduler=scheduler,
            **_NO_CHECKER,
        )
    pipe.save_pretrained(folder)
    return folder


def _save_sdxl(
    folder: Path,
    pipeline: str,
    unet: Mapping[str, Any],
    scheduler: Any,
    encoders: tuple[bool, bool] = (True, True),
    **options: bool,
) -> Path:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        first, second = (
            _tokenizer(padding) if has else None for has, padding in zip(encoders, (None, "!"), strict=True)
        )
        pipe = getattr(_DIFFUSERS, pipeline)(
            vae=_vae(scaling_factor=0.13025, sample_size=1024, force_upcast=True),
            text_encoder=first and _clip("CLIPTextModel", first, _CLIP_L, "quick_gelu"),
            text_encoder_2=second and _clip("CLIPTextModelWithProjection", second, _CLIP_G, "gelu"),
            tokenizer=first,
            tokenizer_2=second,
            unet=_DIFFUSERS.UNet2DConditionModel(**unet),
            scheduler=scheduler,
            add_watermarker=False,
            **options,
        )
    pipe.save_pretrained(folder)
    return folder


def _save_controlnet(folder: Path, unet: Mapping[str, Any], seed: int) -> Path:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = _DIFFUSERS.ControlNetModel.from_unet(
            _DIFFUSERS.UNet2DConditionModel(**unet), conditioning_embedding_out_channels=(4, 8, 8, 8)
        )
        # None of its outputs is zero, as those of a fresh one are.
        for weights in network.parameters():
            torch.nn.init.normal_(weights, std=0.1)
    network.save_pretrained(folder)
    return folder


def _tokenizer(padding: str | None) -> Any:
    changes = {} if padding is None else {"pad_token": padding}
    return _TRANSFORMERS.CLIPTokenizer.from_pretrained(_TOKENIZER, **changes)


def _clip(cls: str, tokenizer: Any, width: int, activation: str) -> Any:
    config = _TRANSFORMERS.CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=77,
        projection_dim=width,
        hidden_act=activation,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return getattr(_TRANSFORMERS, cls)(config)


def _vae(**facts: Any) -> Any:
    return _DIFFUSERS.AutoencoderKL(
        block_out_channels=(8, 8, 16, 16),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        latent_channels=4,
        norm_num_groups=4,
        **facts,
    )
