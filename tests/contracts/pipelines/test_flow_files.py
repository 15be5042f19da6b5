"""Stable Diffusion 3 and FLUX.1 in one file: whole, with parts beside it, without T5; what they are read as is what their folders are."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
import transformers
from diffusers.loaders.single_file_utils import convert_sd3_transformer_checkpoint_to_diffusers
from safetensors.torch import load_file, save_file

from jobs.contract import DiffusionJob, parse_parameters
from jobs.errors import ModelDamaged, ModelMissing
from models_registry.entries import Kind, Layout, ModelEntry
from pipelines.families.base import Family
from pipelines.loading import load
from pipelines.original.published import published
from pipelines.original.transformer import from_original
from tests.contracts.pipelines.flow_calls import entry_of
from tests.contracts.pipelines.running import end
from tests.original_files import lay_beside, write_file
from tests.original_transformers import original_sd3
from tests.tiny import transformers as tiny

#: The libraries ship no types for these classes.
_DIFFUSERS: Any = diffusers
_TRANSFORMERS: Any = transformers
_PARTS = ("transformer", "vae", "text_encoder", "text_encoder_2", "text_encoder_3")


def file_entry(path: Path, family: str, variant: str) -> ModelEntry:
    """Describe a file as the registry would."""
    return entry_of(path, family, variant, Kind.CHECKPOINT).model_copy(update={"layout": Layout.SINGLE_FILE})


def draws(family: Family, **changes: Any) -> torch.Tensor:
    """Draw two steps and return the latents."""
    wanted = parse_parameters(
        {
            "task": "txt2img",
            "model": family.entry.name,
            "prompt": "a red circle",
            "width": 64,
            "height": 48,
            "steps": 2,
            "guidance_scale": 3.0,
            "scheduler": "Euler",
            "seed": 7,
            "preview_every": 0,
            **changes,
        }
    )
    assert isinstance(wanted, DiffusionJob)
    return torch.from_numpy(end(family, family.prepare(wanted, 0)).latents)


def same_parts(one: Any, other: Any) -> None:
    """Hold every weight of two pipelines against each other."""
    assert type(one) is type(other)
    assert dict(one.scheduler.config) == dict(other.scheduler.config)
    for name in _PARTS:
        mine, its = getattr(one, name, None), getattr(other, name, None)
        assert (mine is None) == (its is None)
        if mine is not None and its is not None:
            weights, wanted = mine.state_dict(), its.state_dict()
            assert weights.keys() == wanted.keys()
            assert all(torch.equal(weights[key], wanted[key]) for key in wanted), name


@pytest.mark.parametrize(("family", "variant"), tiny.BUILDERS, ids=lambda each: each)
def test_whole_file_is_its_folder(tmp_path: Path, family: str, variant: str) -> None:
    """Every tensor comes back under its name, the class of the pipeline with it."""
    folder = tiny.BUILDERS[family, variant](tmp_path / "tiny")
    path = write_file(folder, tmp_path / "file.safetensors")
    read, wanted = load(file_entry(path, family, variant), "cpu"), load(entry_of(folder, family, variant), "cpu")
    same_parts(read.pipe, wanted.pipe)
    if variant not in {"fill", "canny", "depth"}:
        assert torch.allclose(draws(read), draws(wanted), atol=1e-4)
    read.close()
    wanted.close()


def test_network_alone_takes_its_parts_from_beside(tmp_path: Path) -> None:
    """A file as FLUX.1 is published, with the encoders and the VAE in the folder beside it."""
    folder = tiny.build_flux_dev(tmp_path / "tiny")
    parts = ("vae", "text_encoder", "text_encoder_2")
    path = write_file(folder, tmp_path / "file.safetensors", without=parts, bare=True)
    with pytest.raises(ModelMissing, match=r"holds no vae, and none lies beside it as file\.config/vae"):
        load(file_entry(path, "flux", "dev"), "cpu")
    lay_beside(folder, path, *parts)
    read, wanted = load(file_entry(path, "flux", "dev"), "cpu"), load(entry_of(folder, "flux", "dev"), "cpu")
    same_parts(read.pipe, wanted.pipe)


def test_stable_diffusion_3_is_read_without_t5(tmp_path: Path) -> None:
    """A file without its third text encoder draws as its folder without one does."""
    folder = tiny.build_sd3_without_t5(tmp_path / "tiny")
    path = write_file(folder, tmp_path / "file.safetensors")
    read, wanted = load(file_entry(path, "sd3", "medium"), "cpu"), load(entry_of(folder, "sd3", "medium"), "cpu")
    assert read.pipe.text_encoder_3 is None
    same_parts(read.pipe, wanted.pipe)
    assert torch.allclose(draws(read), draws(wanted), atol=1e-4)


def test_t5_without_its_tokenizer_is_named(tmp_path: Path) -> None:
    """What no package ships must lie beside, and the message says where."""
    path = write_file(tiny.build_flux_dev(tmp_path / "tiny"), tmp_path / "file.safetensors")
    for each in (tmp_path / "file.config" / "tokenizer_2").iterdir():
        each.unlink()
    (tmp_path / "file.config" / "tokenizer_2").rmdir()
    with pytest.raises(ModelMissing, match=r"put the folder tokenizer_2 of a FLUX.1 model into file.config"):
        load(file_entry(path, "flux", "dev"), "cpu")


def _without_a_tensor(tensors: dict[str, torch.Tensor]) -> None:
    del tensors["model.diffusion_model.double_blocks.1.img_attn.qkv.bias"]


def _too_wide(tensors: dict[str, torch.Tensor]) -> None:
    name = "model.diffusion_model.double_blocks.1.img_attn.qkv.weight"
    tensors[name] = torch.cat([tensors[name], tensors[name]])


def _unknown(tensors: dict[str, torch.Tensor]) -> None:
    tensors["model.diffusion_model.nobody.weight"] = torch.zeros(1)


@pytest.mark.parametrize(
    ("break_it", "said"),
    [
        (_without_a_tensor, "lacks 3 tensors, transformer_blocks.1.attn.to_k.bias"),
        (_too_wide, "double_blocks.1.img_attn.qkv.weight of 192 rows, where 96 are wanted"),
        (_unknown, "nobody.weight among them"),
    ],
)
def test_broken_file_is_named_with_its_tensor(
    tmp_path: Path, break_it: Callable[[dict[str, torch.Tensor]], None], said: str
) -> None:
    """No weight is made up, and none is left over."""
    path = write_file(tiny.build_flux_dev(tmp_path / "tiny"), tmp_path / "file.safetensors")
    tensors = load_file(path)
    break_it(tensors)
    save_file(tensors, path)
    with pytest.raises(ModelDamaged, match=said) as refused:
        load(file_entry(path, "flux", "dev"), "cpu")
    assert str(path) in str(refused.value)


def test_file_of_another_size_needs_its_configuration(tmp_path: Path) -> None:
    """Widths alone do not tell how many heads attend."""
    path = write_file(tiny.build_flux_dev(tmp_path / "tiny"), tmp_path / "file.safetensors")
    (tmp_path / "file.config" / "transformer" / "config.json").unlink()
    with pytest.raises(ModelDamaged, match=r"no ordinary FLUX.1 \(img_in.weight has 32 rows instead of 3072\)"):
        load(file_entry(path, "flux", "dev"), "cpu")


@pytest.mark.parametrize("build", [tiny.build_sd3_medium, tiny.build_sd35_medium, tiny.build_sd35_large])
def test_names_are_those_of_diffusers_converter(tmp_path: Path, build: Callable[[Path], Path]) -> None:
    """Diffusers' own converter, where it works at any width, gives the same tensors."""
    folder = build(tmp_path / "tiny") / "transformer"
    weights = original_sd3(load_file(next(folder.glob("*.safetensors"))))
    form = _DIFFUSERS.SD3Transformer2DModel.from_pretrained(folder)
    mine = from_original(folder, weights, form)
    its = convert_sd3_transformer_checkpoint_to_diffusers(dict(weights))
    assert mine.keys() == its.keys()
    assert all(torch.equal(mine[name], its[name]) for name in its)


@pytest.mark.parametrize(
    ("family", "variant", "component", "billions"),
    [
        ("flux", "dev", "transformer", 11.9),
        ("sd3", "medium", "transformer", 2.03),
        ("sd3", "3.5-medium", "transformer", 2.24),
        ("sd3", "3.5-large", "transformer", 8.06),
        ("flux", "dev", "text_encoder_2", 4.76),
        ("sd3", "medium", "text_encoder_2", 0.695),
        ("flux", "dev", "vae", 0.0838),
    ],
)
def test_published_configurations_have_the_published_sizes(
    family: str, variant: str, component: str, billions: float
) -> None:
    """What ships with the project makes models of as many parameters as the published ones have."""
    config = dict(published(family, variant)[component].config)
    if family == "flux" and component == "transformer":
        config |= {"in_channels": 64, "guidance_embeds": True}
    with torch.device("meta"):
        model = _made(component, family, config)
    # T5 has one table under two names.
    found = sum(each.numel() for name, each in model.named_parameters() if "embed_tokens" not in name) / 1e9
    assert found == pytest.approx(billions, rel=0.01)


def _made(component: str, family: str, config: dict[str, Any]) -> Any:
    if component == "transformer":
        cls = _DIFFUSERS.FluxTransformer2DModel if family == "flux" else _DIFFUSERS.SD3Transformer2DModel
        return cls.from_config(config)
    if component == "vae":
        return _DIFFUSERS.AutoencoderKL.from_config(config)
    if family == "flux":
        return _TRANSFORMERS.T5EncoderModel(_TRANSFORMERS.T5Config(**config))
    return _TRANSFORMERS.CLIPTextModelWithProjection(_TRANSFORMERS.CLIPTextConfig(**config))
