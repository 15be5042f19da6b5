"""FLUX.2's network in one file with original names, as it is passed on, with folders of everything else beside it: it is its folder."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers.loaders.single_file_utils import convert_flux2_transformer_checkpoint_to_diffusers
from safetensors.torch import load_file

from models_registry.detection import detect
from models_registry.published import PUBLISHED
from models_registry.reading.bounded_files import Reads
from models_registry.refusals import ModelRefused
from pipelines.original.published import published
from pipelines.original.transformer_names import transformer_names
from tests.contracts.pipelines.network_files import load_both, write_network
from tests.original_files import NETWORK
from tests.tiny.flux2 import WIDTH, build_dev, build_klein, build_klein_base

Write = Callable[..., Path]
_NORMS = {
    "norm_added_q": "txt_attn.norm.query_norm",
    "norm_added_k": "txt_attn.norm.key_norm",
    "norm_q": "img_attn.norm.query_norm",
    "norm_k": "img_attn.norm.key_norm",
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return the tiny models as folders, by variant; never change them."""
    root = tmp_path_factory.mktemp("flux2")
    return {
        "klein": build_klein(root / "klein"),
        "klein-base": build_klein_base(root / "base"),
        "dev": build_dev(root / "dev"),
    }


def original(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return a transformer's weights under original names; a test holds that diffusers brings them back."""
    found = {}
    for name, layers in transformer_names(key.removesuffix(".weight") for key in weights).items():
        found[f"{name}.weight"] = torch.cat([weights[f"{layer}.weight"] for layer in layers])
    for key, tensor in weights.items():
        block, _, norm = key.removesuffix(".weight").partition(".attn.norm_")
        if norm:
            single = block.startswith("single_")
            kind, number = ("single" if single else "double"), block.rpartition(".")[2]
            layer = _NORMS[f"norm_{norm}"].removeprefix("img_attn." if single else "")
            found[f"{kind}_blocks.{number}.{layer}.scale"] = tensor
    halves = weights["norm_out.linear.weight"].chunk(2)
    return {**found, "final_layer.adaLN_modulation.1.weight": torch.cat(halves[::-1])}


@pytest.fixture
def write(folders: dict[str, Path], tmp_path: Path) -> Write:
    """Return a function that writes a network as one file, with all the rest beside it."""

    def written(name: str, variant: str = "klein", start: str = "") -> Path:
        weights = original(load_file(folders[variant] / "transformer/diffusion_pytorch_model.safetensors"))
        named = {f"{start}{key}": tensor for key, tensor in weights.items()}
        return write_network(folders[variant], tmp_path / f"{name}.safetensors", named)

    return written


@pytest.mark.parametrize("variant", ["klein", "dev"])
def test_names_are_those_that_diffusers_reads(folders: dict[str, Path], variant: str) -> None:
    """What the tests write is an original file: diffusers' own conversion makes the folder's weights of it."""
    weights = load_file(folders[variant] / "transformer/diffusion_pytorch_model.safetensors")
    converted = convert_flux2_transformer_checkpoint_to_diffusers(original(weights))
    assert converted.keys() == weights.keys()
    assert all(torch.equal(converted[key], weights[key]) for key in weights)


@pytest.mark.parametrize(
    ("name", "variant", "start"),
    [
        ("flux-2-klein-4b", "klein", ""),
        ("flux-2-klein-base-4b", "klein-base", NETWORK),
        ("flux2-dev", "dev", ""),
        ("any name, klein", "dev", NETWORK),
    ],
)
def test_file_draws_what_its_folder_does(
    folders: dict[str, Path], write: Write, name: str, variant: str, start: str
) -> None:
    """Under bare names and those of whole checkpoints: the same facts and weights; a word in its name tells klein's base, a layer dev."""
    found, whole = detect(write(name, variant, start), Reads()), detect(folders[variant], Reads())
    assert found.variant == variant
    one, other = load_both(found, whole, 0.0 if variant == "klein" else 3.0)
    told = {"klein": True, "klein-base": False}.get(variant)
    assert one.pipe.config.get("is_distilled") == other.pipe.config.get("is_distilled") == told


def test_every_size_is_published() -> None:
    """By the network's width, of which a file of klein tells nothing else; dev alone reads the guidance."""
    for variant, width, heads, layers, singles in (
        ("klein", 3072, 24, 5, 20),
        ("klein", 4096, 32, 8, 24),
        ("dev", 6144, 48, 8, 48),
    ):
        found = published("flux2", variant, width)["transformer"]
        assert found.rows == {"img_in.weight": width}
        assert found.config["num_attention_heads"] == heads
        assert (found.config["num_layers"], found.config["num_single_layers"]) == (layers, singles)
    reading = {size: PUBLISHED[f"flux2-{size}"]["transformer"]["guidance_embeds"] for size in ("4b", "9b", "dev")}
    assert reading == {"4b": False, "9b": False, "dev": True}


@pytest.mark.parametrize(
    ("missing", "words"),
    [("vae", "holds no VAE: put what is missing"), ("tokenizer", "no tokenizer"), ("transformer", f"[{WIDTH}, 128]")],
)
def test_what_is_missing_beside_it_is_named(write: Write, missing: str, words: str) -> None:
    """With its place, or with the sizes that are not the published ones."""
    path = write("flux-2-klein-4b")
    shutil.rmtree(path.with_suffix(".config") / missing)
    with pytest.raises(ModelRefused) as caught:
        detect(path, Reads())
    assert words in caught.value.reason
