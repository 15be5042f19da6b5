"""How the components of a file in the original layout are built: what nothing in the file says.

Beside `model.safetensors` may lie a folder `model.config`, laid out as a diffusers folder without weights (`unet/config.json`, …); what it
says holds. Without one the file must be an ordinary Stable Diffusion 1.x, which the original published with one configuration for all;
widths alone do not tell how many heads attend or how channels are grouped, so that any other file would be drawn wrongly.
"""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from jobs.errors import ModelDamaged
from models_registry.kinds.single_files import config_folder
from pipelines.reading import read_json

#: Sizes of v1-inference.yaml in diffusers' terms; everything else is the classes' own default.
_USUAL: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "unet": MappingProxyType(
            {
                "block_out_channels": [320, 640, 1280, 1280],
                "layers_per_block": 2,
                "cross_attention_dim": 768,
                "attention_head_dim": 8,
                "sample_size": 64,
            }
        ),
        "vae": MappingProxyType(
            {
                "block_out_channels": [128, 256, 512, 512],
                "down_block_types": ["DownEncoderBlock2D"] * 4,
                "up_block_types": ["UpDecoderBlock2D"] * 4,
                "layers_per_block": 2,
                "latent_channels": 4,
                "sample_size": 512,
            }
        ),
        "text_encoder": MappingProxyType(
            {
                "vocab_size": 49408,
                "hidden_size": 768,
                "intermediate_size": 3072,
                "num_hidden_layers": 12,
                "num_attention_heads": 12,
                "projection_dim": 768,
                "hidden_act": "quick_gelu",
                "bos_token_id": 49406,
                "eos_token_id": 49407,
                "pad_token_id": 49407,
            }
        ),
        "scheduler": MappingProxyType(
            {
                "_class_name": "PNDMScheduler",
                "beta_start": 0.00085,
                "beta_end": 0.012,
                "beta_schedule": "scaled_linear",
                "clip_sample": False,
                "set_alpha_to_one": False,
                "skip_prk_steps": True,
                "steps_offset": 1,
            }
        ),
    }
)
_FILES: Mapping[str, str] = MappingProxyType({"scheduler": "scheduler_config.json"})


def read_config(path: Path, component: str) -> dict[str, Any] | None:
    """Return the configuration that lies beside a file for one component, raising `ModelDamaged` when it cannot be read."""
    found = config_folder(path) / component / _FILES.get(component, "config.json")
    # Beside a VAE by itself there is only one component to describe.
    if not found.is_file() and component == "vae":
        found = config_folder(path) / "config.json"
    if not found.is_file():
        return None
    content = read_json(found)
    if not isinstance(content, dict):
        raise ModelDamaged(f"{found} is no configuration")
    return content


def component_config(path: Path, component: str, widths: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """Return the configuration of one component of a file whose weights have these names (diffusers' or the original)."""
    config = read_config(path, component)
    if config is not None:
        return config
    usual = dict(_USUAL[component])
    expected = _EXPECTED.get(component, {})
    for name, size in expected.items():
        weight = widths.get(name)
        if weight is None or weight.shape[0] != size:
            found = "is missing" if weight is None else f"has {weight.shape[0]} rows instead of {size}"
            raise ModelDamaged(
                f"{path} is no ordinary Stable Diffusion 1.x ({name} {found}): its configuration must lie beside it,"
                f" in {config_folder(path).name}/{component}"
            )
    if component == "unet":
        # 4 channels, or 9 where a mask and a masked picture are drawn from.
        usual["in_channels"] = widths["input_blocks.0.0.weight"].shape[1]
    return usual


#: One weight of each component whose rows tell the usual size; names as in the original, the component's prefix taken off.
_EXPECTED: Mapping[str, Mapping[str, int]] = MappingProxyType(
    {
        "unet": MappingProxyType({"input_blocks.0.0.weight": 320}),
        "vae": MappingProxyType({"encoder.conv_in.weight": 128}),
        "text_encoder": MappingProxyType({"final_layer_norm.weight": 768}),
    }
)
