"""What is no LoRA, or one for another model, is named and never half applied."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from jobs.contract import Txt2ImgParameters
from jobs.errors import ModelDamaged, ModelMissing
from pipelines.families.base import Family
from tests.contracts.pipelines.lora_jobs import draw, inputs_of, loras, with_own_shelf
from tests.lora_layouts import RANK, make, write_diffusers, write_kohya

Make = Callable[..., Txt2ImgParameters]


@pytest.fixture
def family(family: Family) -> Family:
    """Return a family with a shelf of its own, so that no test finds what another has loaded."""
    return with_own_shelf(family)


@pytest.fixture
def style(family: Family, tmp_path: Path) -> Path:
    """Return a LoRA for both components."""
    return write_kohya(make("lora", family.pipe.unet, family.pipe.text_encoder, seed=1), tmp_path / "style.safetensors")


def _rename(weights: dict[str, torch.Tensor], end: str, to: str) -> str:
    """Rename the first tensor that ends so; return its new name."""
    name = min(each for each in weights if each.endswith(end))
    new = name.removesuffix(end) + to
    weights[new] = weights.pop(name)
    return new


def _unknown(weights: dict[str, torch.Tensor]) -> str:
    return _rename(weights, ".alpha", ".beta")


def _foreign_component(weights: dict[str, torch.Tensor]) -> str:
    weights["lora_te1_text_model_encoder_layers_0_mlp_fc1.alpha"] = torch.tensor(1.0)
    return "lora_te1_text_model_encoder_layers_0_mlp_fc1.alpha"


def _no_such_layer(weights: dict[str, torch.Tensor]) -> str:
    name = "lora_unet_down_blocks_7_attentions_0_proj_in"
    weights[f"{name}.lora_down.weight"], weights[f"{name}.lora_up.weight"] = torch.ones(4, 8), torch.ones(8, 4)
    return name


def _half_missing(weights: dict[str, torch.Tensor]) -> str:
    name = min(each for each in weights if each.endswith(".lora_up.weight"))
    del weights[name]
    return name.removesuffix(".lora_up.weight")


def _other_width(weights: dict[str, torch.Tensor]) -> str:
    name = max(each for each in weights if each.endswith("to_q.lora_down.weight"))
    weights[name] = torch.ones(RANK, 768)
    return name.removesuffix(".lora_down.weight")


def _ranks_differ(weights: dict[str, torch.Tensor]) -> str:
    name = min(each for each in weights if each.endswith("to_q.lora_down.weight"))
    weights[name] = torch.ones(RANK + 1, weights[name].shape[1])
    return name.removesuffix(".lora_down.weight")


def _no_number(weights: dict[str, torch.Tensor]) -> str:
    name = min(each for each in weights if each.endswith(".lora_up.weight"))
    weights[name][0] = float("nan")
    return name


def _dora(weights: dict[str, torch.Tensor]) -> str:
    return _rename(weights, ".alpha", ".dora_scale")


def _whole_numbers(weights: dict[str, torch.Tensor]) -> str:
    name = min(each for each in weights if each.endswith(".lora_up.weight"))
    weights[name] = weights[name].to(torch.int8)
    return name


def _long_alpha(weights: dict[str, torch.Tensor]) -> str:
    name = min(each for each in weights if each.endswith(".alpha"))
    weights[name] = torch.ones(3)
    return name


@pytest.mark.parametrize(
    "harm",
    [
        _unknown,
        _foreign_component,
        _no_such_layer,
        _half_missing,
        _other_width,
        _ranks_differ,
        _no_number,
        _dora,
        _whole_numbers,
        _long_alpha,
    ],
)
def test_what_is_no_lora_for_this_model_is_named(
    family: Family, parameters: Make, style: Path, harm: Callable[[dict[str, torch.Tensor]], str]
) -> None:
    """File and tensor are named, nothing is half applied, whatever it weighs, and the next job draws its own bits."""
    base = draw(family, parameters(steps=1))
    weights = load_file(style)
    tensor = harm(weights)
    save_file(weights, style)
    for weight in (1.0, 0.0):
        with pytest.raises(ModelDamaged) as caught:
            family.prepare(parameters(loras=loras((style, weight))), 0, inputs_of(style))
        assert str(style) in caught.value.message
        assert tensor in caught.value.message
    assert draw(family, parameters(steps=1)) == base


@pytest.mark.parametrize("content", [b"", b"{}", None])
def test_files_that_are_none_are_named(family: Family, parameters: Make, style: Path, content: bytes | None) -> None:
    """A cut, an empty and a missing file are told apart from a foreign one."""
    handed = inputs_of(style)
    style.write_bytes(style.read_bytes()[:-10] if content is None else content)
    with pytest.raises(ModelDamaged, match=r"style\.safetensors"):
        family.prepare(parameters(loras=loras((style, 1.0))), 0, handed)
    style.unlink()
    with pytest.raises(ModelMissing, match=r"style\.safetensors"):
        family.prepare(parameters(loras=loras((style, 1.0))), 0, handed)
    with pytest.raises(ModelMissing, match="nowhere"):
        family.prepare(parameters(loras=[{"name": "nowhere"}]), 0, handed)


def test_dora_of_pefts_configuration_is_refused(family: Family, parameters: Make, tmp_path: Path) -> None:
    """It is told as such, and not drawn as a LoRA."""
    plain = write_diffusers(make("lora", family.pipe.unet), tmp_path / "plain.safetensors")
    save_file(load_file(plain), plain, {"lora_adapter_metadata": json.dumps({"unet.use_dora": True})})
    with pytest.raises(ModelDamaged, match=r"plain\.safetensors is a DoRA"):
        family.prepare(parameters(loras=loras((plain, 1.0))), 0, inputs_of(plain))
