"""A small LoRA that any part of the registry takes."""

from collections.abc import Mapping

import numpy as np
from safetensors.numpy import save

_LAYER = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_k"


def lora_bytes(value: float = 1.0, metadata: Mapping[str, str] | None = None) -> bytes:
    """Return a LoRA file of rank 4 for text features of width 16; another value makes another file."""
    tensors = {
        f"{_LAYER}.lora_down.weight": np.full((4, 16), value, np.float32),
        f"{_LAYER}.lora_up.weight": np.ones((8, 4), np.float32),
    }
    return bytes(save(tensors, dict(metadata or {})))
