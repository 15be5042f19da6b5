"""FLUX.2 checkpoints at a width of 32: real parts and flags, two layers, random weights.

Of the text encoder's layers the 27th is read, or dev's 30th, so that it has as many; its tokenizer fills prompts up to 64 tokens.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import diffusers
import torch
import transformers
from safetensors.torch import save_file

from tests.tiny.mistral import mistral3, mistral_processor
from tests.tiny.qwen import qwen_tokenizer

#: The libraries ship no types for these calls.
_DIFFUSERS: Any = diffusers
_TRANSFORMERS: Any = transformers

#: Tokens that a prompt is filled up to, and is at most.
LENGTH: Final = 64
_CHANNELS: Final = 32
#: Widths of the transformer and of the text encoder, three of whose layers are read side by side.
WIDTH: Final = 32
TEXT: Final = 16


def build_klein(folder: Path) -> Path:
    """Save FLUX.2 klein, which is distilled."""
    return _save(folder, distilled=True)


def build_klein_base(folder: Path) -> Path:
    """Save FLUX.2 klein base, whose text encoder's head has weights of its own as that of 9B."""
    return _save(folder, distilled=False, tied=False, seed=1)


def build_dev(folder: Path) -> Path:
    """Save FLUX.2 dev, which reads the guidance, with another text encoder."""
    with torch.random.fork_rng():
        torch.manual_seed(2)
        pipe = _DIFFUSERS.Flux2Pipeline(
            transformer=_transformer(reads_guidance=True),
            scheduler=_scheduler(),
            vae=_vae(),
            text_encoder=mistral3(LENGTH, TEXT),
            tokenizer=mistral_processor(LENGTH),
        )
    pipe.save_pretrained(folder)
    return folder


def build_lora(path: Path, seed: int = 3) -> Path:
    """Save a LoRA of rank 2 for the first layer of the single blocks, in kohya's names."""
    generator, tensors = torch.Generator().manual_seed(seed), {}
    for block in range(2):
        start = f"lora_unet_single_blocks_{block}_linear1"
        tensors[f"{start}.lora_down.weight"] = torch.randn(2, WIDTH, generator=generator)
        tensors[f"{start}.lora_up.weight"] = torch.randn(9 * WIDTH, 2, generator=generator)
        tensors[f"{start}.alpha"] = torch.tensor(2.0)
    save_file(tensors, path)
    return path


#: By family and `ModelEntry.variant`.
BUILDERS: Final[Mapping[tuple[str, str], Callable[[Path], Path]]] = MappingProxyType(
    {("flux2", "klein"): build_klein, ("flux2", "klein-base"): build_klein_base, ("flux2", "dev"): build_dev}
)


def _save(folder: Path, *, distilled: bool, tied: bool = True, seed: int = 0) -> Path:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        pipe = _DIFFUSERS.Flux2KleinPipeline(
            transformer=_transformer(reads_guidance=False),
            scheduler=_scheduler(),
            vae=_vae(),
            text_encoder=_qwen3(tied=tied),
            tokenizer=_tokenizer(),
            is_distilled=distilled,
        )
    pipe.save_pretrained(folder)
    index = folder / "model_index.json"
    # The name of the tokenizer in published folders, which its library has given up.
    index.write_text(index.read_text().replace('"Qwen2Tokenizer"', '"Qwen2TokenizerFast"'))
    return folder


def _transformer(*, reads_guidance: bool) -> Any:
    return _DIFFUSERS.Flux2Transformer2DModel(
        in_channels=4 * _CHANNELS,
        num_layers=2,
        num_single_layers=2,
        attention_head_dim=16,
        num_attention_heads=WIDTH // 16,
        joint_attention_dim=3 * TEXT,
        timestep_guidance_channels=32,
        axes_dims_rope=(4, 4, 4, 4),
        guidance_embeds=reads_guidance,
    )


def _scheduler() -> Any:
    return _DIFFUSERS.FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True)


def _vae() -> Any:
    vae = _DIFFUSERS.AutoencoderKLFlux2(
        block_out_channels=(4, 4, 8, 8),
        layers_per_block=1,
        latent_channels=_CHANNELS,
        norm_num_groups=4,
        sample_size=64,
    )
    # What training leaves there is neither 0 nor 1.
    torch.nn.init.normal_(vae.bn.running_mean, std=0.5)
    torch.nn.init.uniform_(vae.bn.running_var, 0.5, 2.0)
    return vae


def _tokenizer() -> Any:
    tokenizer = qwen_tokenizer()
    tokenizer.model_max_length = LENGTH
    return tokenizer


def _qwen3(*, tied: bool) -> Any:
    tokenizer = _tokenizer()
    config = _TRANSFORMERS.Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=TEXT,
        intermediate_size=2 * TEXT,
        num_hidden_layers=27,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        max_position_embeddings=LENGTH,
        tie_word_embeddings=tied,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return _TRANSFORMERS.Qwen3ForCausalLM(config)
