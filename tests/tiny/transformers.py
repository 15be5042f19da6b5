"""Stable Diffusion 3 and FLUX.1 checkpoints at a width of 32: real parts and flags, two layers, random weights.

Their VAEs have all four levels, so that a cell of the latents is 8 pixels as in the published models; 32 x 32 is the smallest picture.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import diffusers
import torch
import transformers
from safetensors.torch import load_file, save_file

#: The libraries ship no types for these calls.
_DIFFUSERS: Any = diffusers
_TRANSFORMERS: Any = transformers

_TOKENIZER: Final = Path(__file__).parents[2] / "reference_models" / "shapes-sd15" / "tokenizer"
#: Latent channels of the published models; four latents lie in one token.
CHANNELS: Final = 16
#: Widths of CLIP-L, CLIP-G and T5.
CLIP_L, CLIP_G, T5 = 16, 24, 64
_FACTOR: Final = 8


def build_sd3_medium(folder: Path) -> Path:
    """Save Stable Diffusion 3 Medium: three text encoders, no norm of queries and keys."""
    return _save_sd3(folder)


def build_sd3_without_t5(folder: Path) -> Path:
    """Save Stable Diffusion 3 Medium as it is published for small machines: without its third text encoder."""
    return _save_sd3(folder, t5=False)


def build_sd35_medium(folder: Path) -> Path:
    """Save Stable Diffusion 3.5 Medium: its first layers attend twice."""
    return _save_sd3(folder, qk_norm="rms_norm", dual_attention_layers=(0,), pos_embed_max_size=48)


def build_sd35_large(folder: Path) -> Path:
    """Save Stable Diffusion 3.5 Large: one more head than Medium."""
    return _save_sd3(folder, qk_norm="rms_norm", heads=3)


def build_sd35_large_turbo(folder: Path) -> Path:
    """Save Stable Diffusion 3.5 Large Turbo: Large with other weights."""
    return _save_sd3(folder, qk_norm="rms_norm", heads=3, seed=1)


def build_flux_dev(folder: Path) -> Path:
    """Save FLUX.1 dev, which reads the guidance."""
    return _save_flux(folder, "FluxPipeline", guidance_embeds=True)


def build_flux_schnell(folder: Path) -> Path:
    """Save FLUX.1 schnell, which knows no guidance and whose noise does not depend on the size."""
    return _save_flux(folder, "FluxPipeline", dynamic=False)


def build_flux_fill(folder: Path) -> Path:
    """Save FLUX.1 Fill, which reads a masked picture and its mask beside the latents."""
    inputs = 8 * CHANNELS + 4 * _FACTOR**2
    return _save_flux(folder, "FluxFillPipeline", in_channels=inputs, guidance_embeds=True)


def build_flux_canny(folder: Path) -> Path:
    """Save FLUX.1 Canny, which reads a control picture beside the latents."""
    return _save_flux(folder, "FluxControlPipeline", in_channels=8 * CHANNELS, guidance_embeds=True)


def build_flux_depth(folder: Path) -> Path:
    """Save FLUX.1 Depth: Canny with other weights."""
    return _save_flux(folder, "FluxControlPipeline", in_channels=8 * CHANNELS, guidance_embeds=True, seed=1)


def build_sd3_controlnet(folder: Path, seed: int = 2) -> Path:
    """Save a ControlNet for Stable Diffusion 3 Medium."""
    return save_network(folder, seed, lambda: _DIFFUSERS.SD3ControlNetModel(**_sd3_config(), num_layers=1))


def build_flux_controlnet(folder: Path, seed: int = 2) -> Path:
    """Save a ControlNet for FLUX.1 dev."""
    return save_network(
        folder,
        seed,
        lambda: _DIFFUSERS.FluxControlNetModel(**_flux_config(guidance_embeds=True), num_layers=1, num_single_layers=1),
    )


def build_lora(checkpoint: Path, path: Path, seed: int = 3) -> Path:
    """Save a LoRA of rank 2 for the attention of a checkpoint's transformer, in kohya's names, queries, keys and values in one."""
    weights = load_file(next((checkpoint / "transformer").glob("*.safetensors")))
    kind, part = ("double_blocks", "img_attn") if "x_embedder.weight" in weights else ("joint_blocks", "x_block_attn")
    generator, tensors = torch.Generator().manual_seed(seed), {}
    for block in range(2):
        rows, columns = weights[f"transformer_blocks.{block}.attn.to_q.weight"].shape
        start = f"lora_unet_{kind}_{block}_{part}_qkv"
        tensors[f"{start}.lora_down.weight"] = torch.randn(2, columns, generator=generator)
        tensors[f"{start}.lora_up.weight"] = torch.randn(3 * rows, 2, generator=generator)
        tensors[f"{start}.alpha"] = torch.tensor(2.0)
    save_file(tensors, path)
    return path


#: By family and `ModelEntry.variant`.
BUILDERS: Final[Mapping[tuple[str, str], Callable[[Path], Path]]] = MappingProxyType(
    {
        ("sd3", "medium"): build_sd3_medium,
        ("sd3", "3.5-medium"): build_sd35_medium,
        ("sd3", "3.5-large"): build_sd35_large,
        ("sd3", "3.5-large-turbo"): build_sd35_large_turbo,
        ("flux", "dev"): build_flux_dev,
        ("flux", "schnell"): build_flux_schnell,
        ("flux", "fill"): build_flux_fill,
        ("flux", "canny"): build_flux_canny,
        ("flux", "depth"): build_flux_depth,
    }
)


def _save_sd3(folder: Path, *, t5: bool = True, seed: int = 0, **changes: Any) -> Path:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        pipe = _DIFFUSERS.StableDiffusion3Pipeline(
            transformer=_DIFFUSERS.SD3Transformer2DModel(**_sd3_config(**changes), num_layers=2),
            scheduler=_DIFFUSERS.FlowMatchEulerDiscreteScheduler(shift=3.0),
            vae=wide_vae(scaling_factor=1.5305, shift_factor=0.0609),
            text_encoder=_clip(CLIP_L, "quick_gelu", projected=True),
            tokenizer=_clip_tokenizer(),
            text_encoder_2=_clip(CLIP_G, "gelu", projected=True),
            tokenizer_2=_clip_tokenizer(),
            text_encoder_3=_t5() if t5 else None,
            tokenizer_3=t5_tokenizer() if t5 else None,
        )
    return _save(pipe, folder)


def _sd3_config(*, heads: int = 2, **changes: Any) -> dict[str, Any]:
    return {
        "sample_size": 16,
        "patch_size": 2,
        "in_channels": CHANNELS,
        "attention_head_dim": 16,
        "num_attention_heads": heads,
        "joint_attention_dim": T5,
        "caption_projection_dim": 16 * heads,
        "pooled_projection_dim": CLIP_L + CLIP_G,
        "out_channels": CHANNELS,
        "pos_embed_max_size": 24,
        **changes,
    }


def _save_flux(folder: Path, pipeline: str, *, dynamic: bool = True, seed: int = 0, **changes: Any) -> Path:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        pipe = getattr(diffusers, pipeline)(
            transformer=_DIFFUSERS.FluxTransformer2DModel(
                **_flux_config(**changes), num_layers=2, num_single_layers=2, out_channels=4 * CHANNELS
            ),
            scheduler=_DIFFUSERS.FlowMatchEulerDiscreteScheduler(
                shift=3.0 if dynamic else 1.0, use_dynamic_shifting=dynamic
            ),
            vae=wide_vae(scaling_factor=0.3611, shift_factor=0.1159),
            text_encoder=_clip(CLIP_L, "quick_gelu"),
            tokenizer=_clip_tokenizer(),
            text_encoder_2=_t5(),
            tokenizer_2=t5_tokenizer(),
        )
    return _save(pipe, folder)


def _save(pipe: Any, folder: Path) -> Path:
    pipe.save_pretrained(folder)
    index = folder / "model_index.json"
    # The name of T5's tokenizer in published folders, which its library has given up.
    index.write_text(index.read_text().replace('"T5Tokenizer"', '"T5TokenizerFast"'))
    return folder


def _flux_config(**changes: Any) -> dict[str, Any]:
    return {
        "patch_size": 1,
        "in_channels": 4 * CHANNELS,
        "attention_head_dim": 16,
        "num_attention_heads": 2,
        "joint_attention_dim": T5,
        "pooled_projection_dim": CLIP_L,
        "guidance_embeds": False,
        "axes_dims_rope": (4, 6, 6),
        **changes,
    }


def save_network(folder: Path, seed: int, make: Callable[[], Any]) -> Path:
    """Save a ControlNet that says something."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = make()
        # The outputs of a fresh one are zero.
        for name, weights in network.named_parameters():
            if "controlnet" in name:
                torch.nn.init.normal_(weights, std=0.2)
    network.save_pretrained(folder)
    return folder


def wide_vae(**scale: float) -> Any:
    """Return a VAE as the published models have it, four levels deep; `scale` says how its latents are brought to size."""
    return _DIFFUSERS.AutoencoderKL(
        block_out_channels=(4, 4, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        latent_channels=CHANNELS,
        norm_num_groups=4,
        sample_size=64,
        use_quant_conv=False,
        use_post_quant_conv=False,
        **scale,
    )


def _clip_tokenizer() -> Any:
    return _TRANSFORMERS.CLIPTokenizer.from_pretrained(_TOKENIZER, local_files_only=True)


def _clip(width: int, activation: str, *, projected: bool = False) -> Any:
    tokenizer = _clip_tokenizer()
    config = _TRANSFORMERS.CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        projection_dim=width,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=77,
        hidden_act=activation,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    cls = _TRANSFORMERS.CLIPTextModelWithProjection if projected else _TRANSFORMERS.CLIPTextModel
    return cls(config)


def t5_tokenizer() -> Any:
    """Return a tokenizer of T5's kind that knows letters, digits and little else."""
    symbols = "abcdefghijklmnopqrstuvwxyz0123456789.,()-:"
    words = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0), *((symbol, -3.0) for symbol in symbols)]
    return _TRANSFORMERS.T5TokenizerFast(vocab=words, extra_ids=0, model_max_length=512)


def _t5() -> Any:
    config = _TRANSFORMERS.T5Config(
        vocab_size=len(t5_tokenizer()),
        d_model=T5,
        d_kv=16,
        d_ff=2 * T5,
        num_layers=2,
        num_heads=4,
        feed_forward_proj="gated-gelu",
        is_encoder_decoder=False,
        use_cache=False,
    )
    return _TRANSFORMERS.T5EncoderModel(config)
