"""Z-Image checkpoints at a width of 32: real parts and flags, two layers, random weights. 32 x 32 is the smallest picture."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import diffusers
import torch
import transformers
from safetensors.torch import load_file, save_file

from tests.tiny.qwen import MARKS, TEMPLATE, qwen_tokenizer
from tests.tiny.transformers import CHANNELS, wide_vae

#: The libraries ship no types for these calls.
_DIFFUSERS: Any = diffusers
_TRANSFORMERS: Any = transformers

WIDTH: Final = 32
#: Of the text encoder.
QWEN: Final = 48


def build_turbo(folder: Path) -> Path:
    """Save Z-Image Turbo, which was distilled."""
    return _save(folder, shift=3.0)


def build_base(folder: Path) -> Path:
    """Save Z-Image, whose noise is shifted further."""
    return _save(folder, shift=6.0, seed=1)


#: By family and `ModelEntry.variant`.
BUILDERS: Final[Mapping[tuple[str, str], Callable[[Path], Path]]] = MappingProxyType(
    {("zimage", "turbo"): build_turbo, ("zimage", "base"): build_base}
)


def build_lora(path: Path, seed: int = 3) -> Path:
    """Save a LoRA of rank 2 for the attention of the first layer, in the names of the original code."""
    generator = torch.Generator().manual_seed(seed)
    start = "diffusion_model.layers.0.attention.qkv"
    tensors = {
        f"{start}.lora_A.weight": torch.randn(2, WIDTH, generator=generator),
        f"{start}.lora_B.weight": torch.randn(3 * WIDTH, 2, generator=generator),
    }
    save_file(tensors, path)
    return path


def _save(folder: Path, *, shift: float, seed: int = 0) -> Path:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        pipe = _DIFFUSERS.ZImagePipeline(
            transformer=_transformer(),
            scheduler=_DIFFUSERS.FlowMatchEulerDiscreteScheduler(shift=shift),
            vae=wide_vae(scaling_factor=0.3611, shift_factor=0.1159),
            text_encoder=_qwen(),
            tokenizer=qwen_tokenizer(),
        )
    pipe.save_pretrained(folder)
    _as_published(folder)
    return folder


def _transformer() -> Any:
    made = _DIFFUSERS.ZImageTransformer2DModel(
        in_channels=CHANNELS,
        dim=WIDTH,
        n_layers=2,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
        cap_feat_dim=QWEN,
        axes_dims=(4, 6, 6),
        axes_lens=(1536, 512, 512),
    )
    # They are zero in a fresh one, which would hide where they are put.
    for token in (made.x_pad_token, made.cap_pad_token):
        torch.nn.init.normal_(token)
    return made


def _qwen() -> Any:
    config = _TRANSFORMERS.Qwen3Config(
        vocab_size=len(qwen_tokenizer()) + 20,
        hidden_size=QWEN,
        intermediate_size=2 * QWEN,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
    )
    return _TRANSFORMERS.Qwen3Model(config)


def _as_published(folder: Path) -> None:
    """Bring the text encoder into the form of published folders: cut out of a model that writes, and an older tokenizer's settings."""
    config = folder / "text_encoder" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"architectures": ["Qwen3ForCausalLM"]}))
    weights = folder / "text_encoder" / "model.safetensors"
    tensors = {f"model.{name}": tensor for name, tensor in load_file(weights).items()}
    save_file(tensors, weights, {"format": "pt"})
    place = folder / "tokenizer"
    (place / "chat_template.jinja").unlink()
    known = json.loads((place / "tokenizer.json").read_text())["added_tokens"]
    marks = {str(each["id"]): {name: value for name, value in each.items() if name != "id"} for each in known}
    settings = {
        "add_bos_token": False,
        "add_prefix_space": False,
        "added_tokens_decoder": marks,
        "additional_special_tokens": list(MARKS[1:]),
        "bos_token": None,
        "chat_template": TEMPLATE,
        "clean_up_tokenization_spaces": False,
        "eos_token": MARKS[2],
        "errors": "replace",
        "model_max_length": 131072,
        "pad_token": MARKS[0],
        "split_special_tokens": False,
        "tokenizer_class": "Qwen2Tokenizer",
        "unk_token": None,
    }
    (place / "tokenizer_config.json").write_text(json.dumps(settings))
