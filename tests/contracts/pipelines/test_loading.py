"""Loading: local files alone, the right precision, and a name for what is broken."""

import json
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from jobs.contract import Txt2ImgParameters
from jobs.errors import ModelDamaged, ModelMissing, PictureInvalid
from models_registry.entries import ModelEntry
from pipelines.engine.engine import Counters
from pipelines.families.base import Family
from pipelines.loading import default_dtype, load

Make = Callable[..., Txt2ImgParameters]
EntryOf = Callable[[Path], ModelEntry]

UNET = Path("unet/diffusion_pytorch_model.safetensors")


@pytest.fixture
def folder(tiny_sd15_folder: Path, tmp_path: Path) -> Path:
    """Return a copy of the tiny model that a test may break."""
    return Path(shutil.copytree(tiny_sd15_folder, tmp_path / "model"))


def draw(family: Family, parameters: Txt2ImgParameters) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Draw one picture."""
    state = family.prepare(parameters, 0)
    try:
        while state.phase == "denoise":
            family.step([state])
        return family.finish([state])[0].array
    finally:
        state.close()


def test_load_counts_and_opens_no_connection(
    folder: Path, entry_of: EntryOf, parameters: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker without internet loads and draws."""

    def refuse(*_args: object) -> None:
        raise AssertionError("a connection was attempted")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    counters = Counters()
    family = load(entry_of(folder), "cpu", counters=counters)
    assert counters.loads == 1
    assert draw(family, parameters(steps=1)).shape == (32, 32, 3)
    family.close()


@pytest.mark.parametrize("variant", [None, "fp16"])
def test_half_precision_files_are_drawn_in_full_on_a_cpu(
    folder: Path, entry_of: EntryOf, parameters: Make, variant: str | None
) -> None:
    """Weights stored as fp16, under the plain name or as a variant, load as float32."""
    wanted = load(entry_of(folder), "cpu")
    reference = draw(wanted, parameters(steps=2))
    for path in folder.glob("*/*.safetensors"):
        save_file({name: tensor.half() for name, tensor in load_file(path).items()}, path, {"format": "pt"})
        if variant:
            path.rename(path.with_name(f"{path.stem}.{variant}.safetensors"))
    family = load(entry_of(folder), "cpu")
    assert {
        each.dtype
        for part in (family.pipe.unet, family.pipe.vae, family.pipe.text_encoder)
        for each in part.parameters()
    } == {torch.float32}
    assert np.abs(draw(family, parameters(steps=2)).astype(int) - reference).max() <= 4
    family.close()


def test_devices_have_their_precision() -> None:
    """CPUs draw in float32, GPUs in half precision."""
    assert default_dtype(torch.device("cpu")) is torch.float32
    assert default_dtype(torch.device("cuda:1")) is torch.float16


def test_half_precision_draws_nearly_the_same_picture(folder: Path, entry_of: EntryOf, parameters: Make) -> None:
    """Noise is the same numbers in every precision, so that a picture differs by rounding alone."""
    full, half = load(entry_of(folder), "cpu"), load(entry_of(folder), "cpu", torch.bfloat16)
    wanted = parameters(steps=3, scheduler="Euler a")
    difference = np.abs(draw(full, wanted).astype(int) - draw(half, wanted).astype(int))
    assert difference.mean() < 6
    full.close()
    half.close()


@pytest.mark.parametrize(
    "missing",
    ["model_index.json", "unet", "unet/config.json", str(UNET), "vae/diffusion_pytorch_model.safetensors", "tokenizer"],
)
def test_missing_file_is_named(folder: Path, entry_of: EntryOf, missing: str) -> None:
    """A file that is gone is a missing model, with its path."""
    path = folder / missing
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(ModelMissing, match=str(Path(missing).parts[0])):
        load(entry_of(folder), "cpu")


def test_pickled_weights_are_not_read(folder: Path, entry_of: EntryOf) -> None:
    """Only safetensors are weights; a pickle beside them is as good as nothing."""
    weights = load_file(folder / UNET)
    (folder / UNET).unlink()
    torch.save(weights, folder / "unet/diffusion_pytorch_model.bin")
    with pytest.raises(ModelMissing, match="unet"):
        load(entry_of(folder), "cpu")


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def _garble(path: Path) -> None:
    path.write_bytes(b"\xff" * 64 + path.read_bytes()[64:])


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _drop_a_tensor(path: Path) -> None:
    weights = load_file(path)
    weights.pop(min(weights))
    save_file(weights, path, {"format": "pt"})


def _reshape_a_tensor(path: Path) -> None:
    weights = load_file(path)
    name = max(weights, key=lambda each: weights[each].numel())
    weights[name] = torch.zeros(3)
    save_file(weights, path, {"format": "pt"})


@pytest.mark.parametrize("harm", [_truncate, _garble, _empty, _drop_a_tensor, _reshape_a_tensor])
@pytest.mark.parametrize(
    "part", [str(UNET), "vae/diffusion_pytorch_model.safetensors", "text_encoder/model.safetensors"]
)
def test_damaged_weights_are_named(folder: Path, entry_of: EntryOf, harm: Callable[[Path], None], part: str) -> None:
    """Half a file, another file, or one with tensors missing never draws."""
    harm(folder / part)
    with pytest.raises(ModelDamaged, match=Path(part).parts[0]):
        load(entry_of(folder), "cpu")


@pytest.mark.parametrize("part", ["model_index.json", "unet/config.json", "scheduler/scheduler_config.json"])
def test_damaged_settings_are_named(folder: Path, entry_of: EntryOf, part: str) -> None:
    """Broken JSON is a damaged model."""
    (folder / part).write_text("{")
    with pytest.raises(ModelDamaged, match=Path(part).name):
        load(entry_of(folder), "cpu")


def test_foreign_pipeline_class_is_refused(folder: Path, entry_of: EntryOf) -> None:
    """An index that names another class is no Stable Diffusion 1.x model."""
    index = json.loads((folder / "model_index.json").read_text())
    index["_class_name"] = "StableDiffusionXLPipeline"
    (folder / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(ModelDamaged, match="StableDiffusionXLPipeline"):
        load(entry_of(folder), "cpu")


def test_weights_that_are_no_numbers_are_told(folder: Path, entry_of: EntryOf, parameters: Make) -> None:
    """NaN in the weights becomes PictureInvalid instead of a black picture."""
    path = folder / "vae/diffusion_pytorch_model.safetensors"
    weights = load_file(path)
    weights["decoder.conv_in.weight"][:] = float("nan")
    save_file(weights, path, {"format": "pt"})
    family = load(entry_of(folder), "cpu")
    with pytest.raises(PictureInvalid):
        draw(family, parameters(steps=1))
    family.close()
