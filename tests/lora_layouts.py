"""Make small LoRAs with random numbers, write them in every layout, and tell by hand what each adds to the weights."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from pipelines.original.names import original_names

Weights = dict[str, torch.Tensor]
#: Tensors of one layer by the end of their name, and the weight they add by hand.
Made = tuple[Weights, torch.Tensor]

ALPHA, RANK = 2.0, 4


def _random(generator: torch.Generator, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=generator) * 0.3


def make_lora(shape: torch.Size, generator: torch.Generator) -> Made:
    """Make a LoRA: of a convolution its `down` has the kernel."""
    out, inputs, *kernel = shape
    down, up = _random(generator, RANK, inputs, *kernel), _random(generator, out, RANK, *(1 for _ in kernel))
    delta = (up.flatten(1) @ down.flatten(1)).reshape(shape)
    return {"lora_down.weight": down, "lora_up.weight": up}, delta * ALPHA / RANK


def make_locon_tucker(shape: torch.Size, generator: torch.Generator) -> Made:
    """Make a LoCon with its kernel in the middle; of a linear layer a LoRA."""
    out, inputs, *kernel = shape
    if not kernel:
        return make_lora(shape, generator)
    down, mid, up = (
        _random(generator, RANK, inputs, 1, 1),
        _random(generator, RANK, RANK, *kernel),
        _random(generator, out, RANK, 1, 1),
    )
    delta = torch.einsum("or,rskl,si->oikl", up.flatten(1), mid, down.flatten(1))
    return {"lora_down.weight": down, "lora_mid.weight": mid, "lora_up.weight": up}, delta * ALPHA / RANK


def make_loha(shape: torch.Size, generator: torch.Generator) -> Made:
    """Make a LoHa: two low-rank products, elementwise."""
    out, columns = shape[0], shape[1:].numel()
    tensors = {
        "hada_w1_a": _random(generator, out, RANK),
        "hada_w1_b": _random(generator, RANK, columns),
        "hada_w2_a": _random(generator, out, RANK),
        "hada_w2_b": _random(generator, RANK, columns),
    }
    one, other = (tensors[f"hada_w{n}_a"] @ tensors[f"hada_w{n}_b"] for n in "12")
    return tensors, (one * other).reshape(shape) * ALPHA / RANK


def make_loha_tucker(shape: torch.Size, generator: torch.Generator) -> Made:
    """Make a LoHa with kernels of its own; of a linear layer a plain one."""
    out, inputs, *kernel = shape
    if not kernel:
        return make_loha(shape, generator)
    tensors = {}
    for n in "12":
        tensors[f"hada_t{n}"] = _random(generator, RANK, RANK, *kernel)
        tensors[f"hada_w{n}_a"] = _random(generator, RANK, out)
        tensors[f"hada_w{n}_b"] = _random(generator, RANK, inputs)
    one, other = (
        torch.einsum("ro,rskl,si->oikl", tensors[f"hada_w{n}_a"], tensors[f"hada_t{n}"], tensors[f"hada_w{n}_b"])
        for n in "12"
    )
    return tensors, one * other * ALPHA / RANK


def _kron(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Return the Kronecker product over outputs and inputs, the kernel kept."""
    kernel = other.shape[2:]
    flat = torch.einsum("ab,cdk->acbdk", one, other.flatten(2) if kernel else other[..., None])
    a, c, b, d, _ = flat.shape
    return flat.reshape(a * c, b * d, *kernel)


def make_lokr(shape: torch.Size, generator: torch.Generator) -> Made:
    """Make a LoKr of two whole factors, whose alpha says nothing."""
    out, inputs, *kernel = shape
    one, other = _random(generator, 2, 2), _random(generator, out // 2, inputs // 2, *kernel)
    return {"lokr_w1": one, "lokr_w2": other}, _kron(one, other)


def make_lokr_factored(shape: torch.Size, generator: torch.Generator) -> Made:
    """Make a LoKr whose factors are low-rank both, kernels laid flat."""
    out, inputs, *kernel = shape
    columns = inputs // 2 * torch.Size(kernel).numel()
    tensors = {
        "lokr_w1_a": _random(generator, 2, RANK),
        "lokr_w1_b": _random(generator, RANK, 2),
        "lokr_w2_a": _random(generator, out // 2, RANK),
        "lokr_w2_b": _random(generator, RANK, columns),
    }
    other = (tensors["lokr_w2_a"] @ tensors["lokr_w2_b"]).reshape(out // 2, inputs // 2, *kernel)
    return tensors, _kron(tensors["lokr_w1_a"] @ tensors["lokr_w1_b"], other) * ALPHA / RANK


def make_lokr_tucker(shape: torch.Size, generator: torch.Generator) -> Made:
    """Make a LoKr whose second factor has a kernel in the middle; of a linear layer two whole factors."""
    out, inputs, *kernel = shape
    if not kernel:
        return make_lokr(shape, generator)
    tensors = {
        "lokr_w1": _random(generator, 2, 2),
        "lokr_t2": _random(generator, RANK, RANK, *kernel),
        "lokr_w2_a": _random(generator, RANK, out // 2),
        "lokr_w2_b": _random(generator, RANK, inputs // 2),
    }
    other = torch.einsum("ro,rskl,si->oikl", tensors["lokr_w2_a"], tensors["lokr_t2"], tensors["lokr_w2_b"])
    return tensors, _kron(tensors["lokr_w1"], other) * ALPHA / RANK


MAKERS: Mapping[str, Callable[[torch.Size, torch.Generator], Made]] = {
    "lora": make_lora,
    "locon-tucker": make_locon_tucker,
    "loha": make_loha,
    "loha-tucker": make_loha_tucker,
    "lokr": make_lokr,
    "lokr-factored": make_lokr_factored,
    "lokr-tucker": make_lokr_tucker,
}
#: Linear layers and convolutions of every form: attention, projections, ResNets, in between two blocks, the time's.
UNET_LAYERS = (
    "to_q",
    "to_k",
    "to_out.0",
    "ff.net.0.proj",
    "proj_in",
    "conv1",
    "conv",
    "conv_shortcut",
    "time_emb_proj",
)
TEXT_LAYERS = ("q_proj", "v_proj", "out_proj")


def layers_of(module: torch.nn.Module, ends: tuple[str, ...]) -> dict[str, Any]:
    """Return the layers whose path ends so."""
    return {path: layer for path, layer in module.named_modules() if any(path.endswith(f".{end}") for end in ends)}


def make(
    kind: str,
    unet: torch.nn.Module | None,
    text_encoder: torch.nn.Module | None = None,
    seed: int = 0,
    *,
    text_encoder_2: torch.nn.Module | None = None,
) -> dict[str, dict[str, Made]]:
    """Make an adapter of a kind for each component: component -> path of the layer -> what was made."""
    generator = torch.Generator().manual_seed(seed)
    made: dict[str, dict[str, Made]] = {}
    parts = [("unet", unet, UNET_LAYERS), ("text_encoder", text_encoder, TEXT_LAYERS)]
    if text_encoder_2 is not None:
        parts.append(("text_encoder_2", text_encoder_2, TEXT_LAYERS))
    for component, module, ends in parts:
        layers = {} if module is None else layers_of(module, ends)
        made[component] = {path: MAKERS[kind](layer.weight.shape, generator) for path, layer in layers.items()}
    return made


def write_kohya(made: dict[str, dict[str, Made]], path: Path, *, original: bool = False) -> Path:
    """Write in kohya's and LyCORIS' layout; `original` names the UNet's blocks as the original code did."""
    first = "lora_te1_" if "text_encoder_2" in made else "lora_te_"
    prefixes = {"unet": "lora_unet_", "text_encoder": first, "text_encoder_2": "lora_te2_"}
    tensors: Weights = {}
    for component, layers in made.items():
        names = original_names(layers) if original and component == "unet" else {}
        for layer, (parts, _) in layers.items():
            name = names.get(layer, layer)
            if component.startswith("text_encoder"):
                name = f"text_model.{name.removeprefix('text_model.')}"
            start = prefixes[component] + name.replace(".", "_")
            tensors |= {f"{start}.{end}": tensor for end, tensor in parts.items()}
            tensors[f"{start}.alpha"] = torch.tensor(ALPHA)
    save_file(tensors, path, {"ss_network_dim": str(RANK)})
    return path


def write_diffusers(made: dict[str, dict[str, Made]], path: Path, ends: tuple[str, str] | None = None) -> Path:
    """Write LoRAs in diffusers' layout: peft's ends, or others; alpha is worked into the weights, as diffusers takes them."""
    down, up = ends or (".lora_A.weight", ".lora_B.weight")
    tensors: Weights = {}
    for component, layers in made.items():
        for layer, (parts, _) in layers.items():
            tensors[f"{component}.{layer}{down}"] = parts["lora_down.weight"]
            tensors[f"{component}.{layer}{up}"] = parts["lora_up.weight"] * (ALPHA / RANK)
    save_file(tensors, path, {"format": "pt"})
    return path
