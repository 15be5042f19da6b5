"""Qwen-Image at a width of 32: real parts and flags, two layers, random weights.

Its VAE has all four levels, so that a cell of the latents is 8 pixels as in the published model.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import diffusers
import torch
import transformers
from safetensors.torch import save_file

from tests.tiny.qwen import qwen_tokenizer
from tests.tiny.transformers import save_network

#: The libraries ship no types for these calls.
_DIFFUSERS: Any = diffusers
_TRANSFORMERS: Any = transformers

#: Widths of the transformer and of what reads the prompt, and the latent channels of the published model.
WIDTH, TEXT, CHANNELS = 32, 48, 16
#: Of the template; each is one token, so that it has as many as with the published vocabulary.
TEMPLATE_WORDS: Final = (
    *("system", "Describe", "user", "assistant", "Ġthe", "Ġimage", "Ġby", "Ġdetailing", "Ġcolor", "Ġshape", "Ġsize"),
    *("Ġtexture", "Ġquantity", "Ġtext", "Ġspatial", "Ġrelationships", "Ġof", "Ġobjects", "Ġand", "Ġbackground"),
)


def build_qwenimage(folder: Path, seed: int = 0) -> Path:
    """Save Qwen-Image."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        pipe = _DIFFUSERS.QwenImagePipeline(
            transformer=_transformer(),
            # As published, but for the size that the shift is at its largest for.
            scheduler=_DIFFUSERS.FlowMatchEulerDiscreteScheduler(
                use_dynamic_shifting=True, base_shift=0.5, max_shift=0.9, max_image_seq_len=8192, shift_terminal=0.02
            ),
            vae=_vae(),
            text_encoder=_text_encoder(),
            tokenizer=qwen_tokenizer(TEMPLATE_WORDS),
        )
    pipe.save_pretrained(folder)
    return folder


def build_lora(path: Path, seed: int = 3) -> Path:
    """Save a LoRA of rank 2 for the attention and one MLP of the transformer, in the names of its trainers."""
    generator, tensors = torch.Generator().manual_seed(seed), {}
    for layer in ("attn.to_q", "attn.add_k_proj", "img_mlp.net.2"):
        columns = 4 * WIDTH if layer.startswith("img_mlp") else WIDTH
        start = f"transformer_blocks.1.{layer}"
        tensors[f"{start}.lora_down.weight"] = torch.randn(2, columns, generator=generator)
        tensors[f"{start}.lora_up.weight"] = torch.randn(WIDTH, 2, generator=generator)
        tensors[f"{start}.alpha"] = torch.tensor(2.0)
    save_file(tensors, path)
    return path


def build_controlnet(folder: Path, seed: int = 2, layers: int = 1) -> Path:
    """Save a ControlNet for Qwen-Image."""
    return save_network(folder, seed, lambda: _DIFFUSERS.QwenImageControlNetModel(**_config(), num_layers=layers))


#: By family and `ModelEntry.variant`.
BUILDERS: Final[Mapping[tuple[str, str], Callable[[Path], Path]]] = MappingProxyType(
    {("qwenimage", "base"): build_qwenimage}
)


def _transformer() -> Any:
    return _DIFFUSERS.QwenImageTransformer2DModel(**_config(), num_layers=2)


def _config() -> dict[str, Any]:
    return {
        "patch_size": 2,
        "in_channels": 4 * CHANNELS,
        "out_channels": CHANNELS,
        "attention_head_dim": 16,
        "num_attention_heads": 2,
        "joint_attention_dim": TEXT,
        "axes_dims_rope": (4, 6, 6),
    }


def _vae() -> Any:
    return _DIFFUSERS.AutoencoderKLQwenImage(base_dim=4, z_dim=CHANNELS, num_res_blocks=1)


def _text_encoder() -> Any:
    tokens = qwen_tokenizer(TEMPLATE_WORDS)
    config = _TRANSFORMERS.Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(tokens),
            "hidden_size": TEXT,
            "intermediate_size": 2 * TEXT,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "max_position_embeddings": 2048,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [4, 4, 4]},
            "bos_token_id": tokens.eos_token_id,
            "eos_token_id": tokens.eos_token_id,
        },
        vision_config={
            "depth": 1,
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_heads": 2,
            "out_hidden_size": TEXT,
            "fullatt_block_indexes": [0],
        },
    )
    return _TRANSFORMERS.Qwen2_5_VLForConditionalGeneration(config)
