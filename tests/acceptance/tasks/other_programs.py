"""Write models as other programs would have written them, from the reference models."""

import json
from pathlib import Path

import diffusers
import torch
import transformers
from safetensors import safe_open
from safetensors.torch import save_file

import reference_models
from tests.lora_layouts import make, write_kohya
from tests.original_layout import write_original

REFERENCE = Path(reference_models.__file__).parent
#: The width of the text features of the real Stable Diffusion 1.5.
REAL_WIDTH = 768


def write_all(folder: Path) -> None:
    """Fill a folder: single-file checkpoints, a LoRA in kohya's layout, LyCORIS files, a LoRA of a wider base."""
    for name in ("shapes-single", "shapes-victim"):
        write_original(REFERENCE / "shapes-sd15", folder / f"{name}.safetensors")
    kohya_twin(REFERENCE / "loras/shapes-frame.safetensors", folder / "frame-kohya.safetensors")
    unet = diffusers.UNet2DConditionModel.from_pretrained(REFERENCE / "shapes-sd15/unet")
    text = transformers.CLIPTextModel.from_pretrained(REFERENCE / "shapes-sd15/text_encoder")
    for name, kind in (("frame-locon", "locon-tucker"), ("frame-loha", "loha"), ("frame-lokr", "lokr-factored")):
        write_kohya(make(kind, unet, text), folder / f"{name}.safetensors")
    layer = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"
    wide = {f"{layer}.lora_down.weight": torch.zeros(4, REAL_WIDTH), f"{layer}.lora_up.weight": torch.zeros(320, 4)}
    save_file(wide, folder / "wide-lora.safetensors")


def kohya_twin(path: Path, out: Path) -> None:
    """Write a LoRA of diffusers' layout in kohya's: other names, and alpha as a tensor of its own."""
    with safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dictionary
        config = json.loads((file.metadata() or {}).get("lora_adapter_metadata", "{}"))
    renamed: dict[str, torch.Tensor] = {}
    for name, tensor in tensors.items():
        layer, _, end = name.partition(".lora_")
        component, _, place = layer.partition(".")
        prefix = {"unet": "lora_unet_", "text_encoder": "lora_te_text_model_"}[component]
        plain = prefix + place.removeprefix("text_model.").replace(".", "_")
        renamed[f"{plain}.lora_{'down' if end.startswith('A') else 'up'}.weight"] = tensor
        if end.startswith("A"):
            alpha = config.get(f"{component}.lora_alpha", tensor.shape[0])
            renamed[f"{plain}.alpha"] = torch.tensor(float(alpha))
    save_file(renamed, out)
