"""Qwen-Image's network in one file, as it is passed on, with folders of everything else beside it: it is its folder."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from jobs.errors import ModelDamaged, ModelMissing
from models_registry.detection import detect
from models_registry.reading.bounded_files import Reads
from models_registry.refusals import ModelRefused
from pipelines.loading import load
from tests.contracts.pipelines.network_files import load_both, write_network
from tests.original_files import NETWORK
from tests.tiny.qwenimage import TEXT, WIDTH, build_qwenimage


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the tiny model as a folder; never change it."""
    return build_qwenimage(tmp_path_factory.mktemp("qwenimage") / "tiny")


@pytest.fixture
def write(folder: Path, tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes the network as one file, with all the rest beside it."""

    def written(name: str = "qwen_image", start: str = "", dtype: torch.dtype = torch.float32, **more: Any) -> Path:
        weights = load_file(folder / "transformer/diffusion_pytorch_model.safetensors")
        named = {f"{start}{key}": tensor.to(dtype) for key, tensor in weights.items()} | more
        return write_network(folder, tmp_path / f"{name}.safetensors", named)

    return written


@pytest.mark.parametrize("start", ["", NETWORK])
def test_file_draws_what_its_folder_does(folder: Path, write: Callable[..., Path], start: str) -> None:
    """Under bare names and those of whole checkpoints: the same facts, the same weights."""
    one, other = load_both(detect(write(start=start), Reads()), detect(folder, Reads()), 3.0)
    assert dict(one.pipe.scheduler.config) == dict(other.pipe.scheduler.config)


def test_plain_fp8_is_read(write: Callable[..., Path]) -> None:
    """As the file that most people have is stored."""
    found = detect(write(dtype=torch.float8_e4m3fn), Reads())
    assert {each.name: each.dtype for each in found.components}["transformer"] == "F8_E4M3"
    family = load(found, "cpu")
    assert {each.dtype for each in family.pipe.transformer.parameters()} == {torch.float32}


def test_without_a_scheduler_beside_it_is_the_published_one(folder: Path, write: Callable[..., Path]) -> None:
    """Of which the tiny model's is a copy."""
    path = write()
    shutil.rmtree(path.with_suffix(".config") / "scheduler")
    found, wanted = load(detect(path, Reads()), "cpu"), load(detect(folder, Reads()), "cpu")
    config = dict(wanted.pipe.scheduler.config)
    for key in ("shift", "base_shift", "max_shift", "base_image_seq_len", "max_image_seq_len", "shift_terminal"):
        assert found.pipe.scheduler.config[key] == config[key], key
    assert found.pipe.scheduler.config.use_dynamic_shifting


@pytest.mark.parametrize(
    ("name", "damage", "code", "words"),
    [
        ("qwen_image", lambda c: shutil.rmtree(c / "vae"), "unrecognised", "holds no VAE: put what is missing"),
        ("qwen_image", lambda c: shutil.rmtree(c / "tokenizer"), "unrecognised", "no tokenizer"),
        ("qwen_image", lambda c: shutil.rmtree(c / "transformer"), "config_invalid", f"[{WIDTH}, 64]"),
        ("qwen_image_edit_2509", lambda _: None, "unrecognised", "Qwen-Image-Edit by its name"),
    ],
)
def test_what_cannot_be_drawn_is_refused(
    write: Callable[..., Path], name: str, damage: Callable[[Path], object], code: str, words: str
) -> None:
    """What is missing beside the file is named with its place; an Edit, whose tensors are called alike, is told by its name."""
    path = write(name)
    damage(path.with_suffix(".config"))
    with pytest.raises(ModelRefused) as caught:
        detect(path, Reads())
    assert caught.value.code == code
    assert words in caught.value.reason


def test_quantised_weights_and_other_texts_are_refused(write: Callable[..., Path]) -> None:
    """Scaled fp8, and a network that reads text features of another width."""
    scaled = write(**{"transformer_blocks.0.attn.to_q.scale_weight": torch.ones(1)})
    with pytest.raises(ModelRefused, match="quantised"):
        detect(scaled, Reads())
    wider = write("wider", **{"txt_in.weight": torch.ones(WIDTH, TEXT + 1)})
    with pytest.raises(ModelRefused, match="reads text features of width"):
        detect(wider, Reads())


def test_what_goes_after_the_scan_is_named(write: Callable[..., Path]) -> None:
    """A part that was taken away, and a tensor too many."""
    path = write()
    found = detect(path, Reads())
    shutil.rmtree(path.with_suffix(".config") / "tokenizer")
    with pytest.raises(ModelMissing, match="tokenizer"):
        load(found, "cpu")
    other = write("other", **{"extra.weight": torch.ones(2)})
    with pytest.raises(ModelDamaged, match=r"extra\.weight"):
        load(detect(other, Reads()), "cpu")
