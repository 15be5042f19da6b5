"""Upscalers are recognised as the library that loads them recognises them, and enlarge as much as it says."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import pipelines  # noqa: F401 - before spandrel, for what it does to torchvision
from models_registry.detection import detect
from models_registry.entries import ANY_FAMILY, Kind
from models_registry.reading.bounded_files import Reads
from models_registry.refusals import ModelRefused
from tests.tensor_files import write_tensors

spandrel: Any = pytest.importorskip("spandrel")
architectures: Any = pytest.importorskip("spandrel.architectures")

# spandrel's networks call it in a way that torch calls old.
pytestmark = pytest.mark.filterwarnings("ignore:torch.meshgrid:UserWarning")

Weights = Mapping[str, torch.Tensor]


def _made(architecture: str, **sizes: Any) -> Weights:
    module = __import__(f"spandrel.architectures.{architecture}", fromlist=[architecture])
    weights: Weights = getattr(module, architecture)(**sizes).state_dict()
    return weights


def _esrgan(scale: int, **sizes: Any) -> Weights:
    return _made("ESRGAN", num_filters=8, num_blocks=1, scale=scale, **sizes)


def _newer(weights: Weights, doublings: int) -> dict[str, torch.Tensor]:
    """Rename to what Real-ESRGAN called the same layers."""
    last = 3 * doublings
    names = {
        "model.0.": "conv_first.",
        "model.1.sub.1.": "conv_body.",
        f"model.{last + 2}.": "conv_hr.",
        f"model.{last + 4}.": "conv_last.",
        **{f"model.{3 * n}.": f"conv_up{n}." for n in range(1, doublings + 1)},
    }

    def rename(name: str) -> str:
        found = re.fullmatch(r"model\.1\.sub\.(\d+)\.RDB(\d)\.conv(\d)\.0\.(\w+)", name)
        if found:
            return "body.{}.rdb{}.conv{}.{}".format(*found.groups())
        start = next(each for each in names if name.startswith(each))
        return names[start] + name.removeprefix(start)

    return {rename(name): tensor for name, tensor in weights.items()}


def _oldest(weights: Weights) -> dict[str, torch.Tensor]:
    """Rename to what BSRGAN and RealSR called the same layers."""
    names = (
        ("conv_body", "trunk_conv"),
        ("conv_hr", "HRconv"),
        ("conv_up", "upconv"),
        ("body.", "RRDB_trunk."),
        (".rdb", ".RDB"),
    )
    renamed = dict(weights)
    for new, old in names:
        renamed = {name.replace(new, old): tensor for name, tensor in renamed.items()}
    return renamed


def _swinir(scale: int, upsampler: str) -> Weights:
    return _made(
        "SwinIR", img_size=16, embed_dim=12, depths=[1], num_heads=[2], window_size=8, mlp_ratio=2, upscale=scale, upsampler=upsampler
    )  # fmt: skip


MODELS: dict[str, tuple[str, Callable[[], Weights]]] = {
    **{f"ESRGAN x{scale}": ("esrgan", lambda scale=scale: _esrgan(scale)) for scale in (1, 2, 4, 8)},  # type: ignore[misc]
    "ESRGAN+": ("esrgan", lambda: _esrgan(4, plus=True)),
    "Real-ESRGAN x4": ("esrgan", lambda: _newer(_esrgan(4), 2)),
    "Real-ESRGAN x2": ("esrgan", lambda: _newer(_esrgan(4, in_nc=12, shuffle_factor=2), 2)),
    "Real-ESRGAN x1": ("esrgan", lambda: _newer(_esrgan(4, in_nc=48, shuffle_factor=4), 2)),
    "BSRGAN x2": ("esrgan", lambda: _oldest(_newer(_esrgan(2), 1))),
    **{
        f"Compact x{scale}": ("compact", lambda scale=scale: _made("Compact", num_feat=8, num_conv=2, upscale=scale))  # type: ignore[misc]
        for scale in (1, 2, 3, 4)
    },
    "Compact in grey": ("compact", lambda: _made("Compact", num_in_ch=1, num_out_ch=1, num_feat=8, num_conv=1, upscale=2)),
    "SPAN x2": ("span", lambda: _made("SPAN", num_in_ch=3, num_out_ch=3, feature_channels=8, upscale=2)),
    **{
        f"SwinIR x{scale} by {way}": ("swinir", lambda scale=scale, way=way: _swinir(scale, way))  # type: ignore[misc]
        for scale, way in (
            (2, "pixelshuffle"), (3, "pixelshuffle"), (4, "pixelshuffle"), (2, "pixelshuffledirect"),
            (3, "pixelshuffledirect"), (4, "nearest+conv"), (1, ""),
        )
    },
    "DAT x2": (
        "dat",
        lambda: _made("DAT", img_size=16, embed_dim=32, split_size=[8, 8], depth=[2], num_heads=[2], expansion_factor=2, upscale=2),
    ),
    "HAT x4": (
        "hat",
        lambda: _made(
            "HAT", img_size=16, embed_dim=12, depths=(1,), num_heads=(2,), window_size=8, compress_ratio=3, squeeze_factor=3,
            mlp_ratio=2, upscale=4,
        ),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
def test_detect_agrees_with_spandrel(tmp_path: Path, name: str) -> None:
    """The scale is what spandrel says after loading the same file, wherever it lies."""
    variant, make = MODELS[name]
    path = tmp_path / "enlarge.safetensors"
    save_file({key: tensor.clone().contiguous() for key, tensor in make().items()}, path)
    reads = Reads()
    entry = detect(path, reads)
    loaded = spandrel.ModelLoader(device="cpu").load_from_state_dict(load_file(path))
    assert (entry.kind, entry.family, entry.variant, entry.scale) == (Kind.UPSCALER, ANY_FAMILY, variant, loaded.scale)
    assert reads.reads <= 22
    assert entry.text_width is None


def test_detect_looks_through_wrappings(tmp_path: Path) -> None:
    """What training tools put before every name does not matter, as it does not to spandrel."""
    weights = {
        f"params_ema.{name}": tensor.clone()
        for name, tensor in _made("Compact", num_feat=8, num_conv=1, upscale=4).items()
    }
    path = tmp_path / "enlarge.safetensors"
    save_file(weights, path)
    assert detect(path, Reads()).scale == 4


@pytest.mark.parametrize("folder", ["upscalers", "ESRGAN", "RealESRGAN", "upscale_models"])
def test_unknown_architectures_are_taken_where_upscalers_lie(tmp_path: Path, folder: str) -> None:
    """In an upscalers' folder a network of pictures is one, its scale unknown; elsewhere it is nothing known."""
    shapes = {"to_feat.weight": (8, 3, 3, 3), "to_img.0.weight": (12, 8, 3, 3)}
    entry = detect(write_tensors(tmp_path / folder / "safmn.safetensors", shapes), Reads())
    assert (entry.kind, entry.scale) == (Kind.UPSCALER, None)
    with pytest.raises(ModelRefused) as caught:
        detect(write_tensors(tmp_path / "safmn.safetensors", shapes), Reads())
    assert caught.value.code == "unrecognised"
    with pytest.raises(ModelRefused) as caught:
        detect(write_tensors(tmp_path / folder / "text.safetensors", {"words.weight": (8, 3), "bias": (3,)}), Reads())
    assert caught.value.code == "unrecognised"


def test_an_upscaler_in_pieces_is_refused(tmp_path: Path) -> None:
    """A file that begins as an architecture and lacks what tells its scale is refused by name."""
    whole = {
        "conv_1.sk.weight": (8, 3, 1, 1),
        "block_1.c1_r.sk.weight": (8, 8, 1, 1),
        "upsampler.0.weight": (12, 8, 3, 3),
    }
    assert detect(write_tensors(tmp_path / "span.safetensors", whole), Reads()).scale == 2
    pieces = {"before_RG.1.weight": (8,), "layers.0.blocks.0.attn.qkv.weight": (24, 8)}
    path = write_tensors(tmp_path / "dat.safetensors", pieces)
    with pytest.raises(ModelRefused) as caught:
        detect(path, Reads())
    assert (caught.value.code, caught.value.path) == ("weights_mismatch", path)
