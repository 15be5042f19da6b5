"""Z-Image's network in one file under its original names, with folders of everything else beside it: it is its folder."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from models_registry.detection import detect
from models_registry.reading.bounded_files import Reads
from models_registry.refusals import ModelRefused
from pipelines.loading import load
from tests.contracts.pipelines.network_files import load_both, write_network
from tests.original_files import NETWORK
from tests.tiny.zimage import build_turbo


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the tiny model as a folder; never change it."""
    return build_turbo(tmp_path_factory.mktemp("zimage") / "tiny")


def original(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return weights under the names of the original code: one matrix for queries, keys and values."""
    names = {
        "all_x_embedder.2-1.": "x_embedder.",
        "all_final_layer.2-1.": "final_layer.",
        ".attention.to_out.0.": ".attention.out.",
        ".attention.norm_q.": ".attention.q_norm.",
        ".attention.norm_k.": ".attention.k_norm.",
    }
    renamed: dict[str, torch.Tensor] = {}
    for name, tensor in weights.items():
        if name.endswith((".to_k.weight", ".to_v.weight")):
            continue
        if name.endswith(".to_q.weight"):
            own = name.removesuffix(".to_q.weight")
            renamed[f"{own}.qkv.weight"] = torch.cat([weights[f"{own}.to_{part}.weight"] for part in "qkv"])
            continue
        for ours, theirs in names.items():
            name = name.replace(ours, theirs)  # noqa: PLW2901 - one name, brought to its old form
        renamed[name] = tensor
    # As some files have it.
    return {**renamed, "norm_final.weight": torch.ones(4)}


@pytest.fixture
def write(folder: Path, tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes the network as one file, with all the rest beside it."""

    def written(name: str = "z_image_turbo_bf16", start: str = "") -> Path:
        weights = original(load_file(folder / "transformer/diffusion_pytorch_model.safetensors"))
        named = {f"{start}{key}": tensor for key, tensor in weights.items()}
        return write_network(folder, tmp_path / f"{name}.safetensors", named)

    return written


@pytest.mark.parametrize("start", ["", NETWORK])
def test_file_draws_what_its_folder_does(folder: Path, write: Callable[..., Path], start: str) -> None:
    """Under bare names and those of whole checkpoints: the same facts, the same weights."""
    one, other = load_both(detect(write(start=start), Reads()), detect(folder, Reads()), 0.0)
    assert dict(one.pipe.scheduler.config) == dict(other.pipe.scheduler.config)


@pytest.mark.parametrize(
    ("name", "variant", "shift"),
    [("z_image_turbo_bf16", "turbo", 3.0), ("some-ZIT_v2", "turbo", 3.0), ("z_image_bf16", "base", 6.0)],
)
def test_without_a_scheduler_beside_it_is_the_published_one(
    write: Callable[..., Path], name: str, variant: str, shift: float
) -> None:
    """A word in the name tells the distilled one, and with it how far the noise is shifted."""
    path = write(name)
    shutil.rmtree(path.with_suffix(".config") / "scheduler")
    found = detect(path, Reads())
    assert found.variant == variant
    assert load(found, "cpu").pipe.scheduler.config.shift == shift


@pytest.mark.parametrize(
    ("lacking", "words"), [("vae", "no VAE"), ("tokenizer", "no tokenizer"), ("transformer", "of another size")]
)
def test_what_is_missing_beside_it_is_named(write: Callable[..., Path], lacking: str, words: str) -> None:
    """With the place where it belongs."""
    path = write()
    shutil.rmtree(path.with_suffix(".config") / lacking)
    with pytest.raises(ModelRefused, match=words):
        detect(path, Reads())
