"""Upscalers: any size, tiles that nobody sees, and a name for what is broken."""

import math
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from jobs.errors import ModelDamaged, ModelMissing, PictureInvalid
from jobs.geometry import Size, tiles
from models_registry.entries import Kind, Layout, ModelEntry
from pipelines.engine.engine import Counters
from pipelines.resizing import resample
from pipelines.shelf import Shelf
from pipelines.upscaling.mosaic import Mosaic
from pipelines.upscaling.upscaler import Upscaler, load_upscaler
from tests.contracts.pipelines.upscalers import picture, save_compact, save_esrgan, save_swinir

CPU = torch.device("cpu")
#: An architecture of spandrel's calls torch in the old way.
pytestmark = pytest.mark.filterwarnings("ignore:torch.meshgrid:UserWarning")


def loaded(entry: ModelEntry) -> Upscaler:
    """Load onto the CPU."""
    return load_upscaler(entry, CPU, torch.float32)


@pytest.fixture(autouse=True)
def without_gradients() -> Any:
    """Compute as the engine does."""
    with torch.no_grad():
        yield


@pytest.mark.parametrize("make", [save_compact, save_esrgan, save_swinir])
@pytest.mark.parametrize("size", [(24, 16), (23, 17), (1, 1), (40, 1), (3, 50)])
def test_upscaler_enlarges_any_size(make: Callable[[Path], ModelEntry], size: tuple[int, int], tmp_path: Path) -> None:
    """Odd sizes, a single pixel and a single row come out at exactly the model's factor."""
    entry = make(tmp_path / "model.safetensors")
    upscaler = loaded(entry)
    assert upscaler.scale == entry.scale
    made = upscaler.enlarge(picture(*size))
    assert made.shape == (size[1] * upscaler.scale, size[0] * upscaler.scale, 3)
    assert made.dtype == np.uint8


@pytest.mark.parametrize("size", [(90, 24), (24, 90), (65, 16), (150, 8), (126, 8), (70, 110)])
def test_tiles_equal_the_whole_where_the_overlap_covers_what_the_model_sees(
    size: tuple[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model that sees 3 pixels far draws in tiles, bit for bit, what it draws in one piece."""
    upscaler = loaded(save_compact(tmp_path / "model.safetensors", scale=2))
    # In single precision a convolution's last digit depends on the width of what it is given.
    upscaler._model.model.double()  # noqa: SLF001
    monkeypatch.setattr("pipelines.upscaling.upscaler.UPSCALE_TILE", 64)
    source = picture(*size)
    calls: list[Any] = []
    whole = upscaler.enlarge_tile(source)
    upscaler.enlarge_tile = lambda pixels: calls.append(pixels.shape) or type(upscaler).enlarge_tile(upscaler, pixels)  # type: ignore[method-assign,func-returns-value]
    tiled = upscaler.enlarge(source)
    assert len(calls) > 1
    assert max(max(shape) for shape in calls) <= 64
    assert np.array_equal(tiled, whole)


def test_tiles_hide_where_the_model_sees_further(tmp_path: Path) -> None:
    """Beyond its reach tiles differ from the whole by little, and not more at the seams than the picture itself does."""
    upscaler = loaded(save_compact(tmp_path / "model.safetensors", convolutions=24))
    source = picture(700, 40)
    whole, tiled = (each(source).astype(int) for each in (upscaler.enlarge_tile, upscaler.enlarge))
    assert np.abs(whole - tiled).max() <= 3
    jumps = np.abs(np.diff(tiled, axis=1)) - np.abs(np.diff(whole, axis=1))
    assert jumps.max() <= 2


def test_mosaic_passes_smoothly_between_tiles_that_disagree() -> None:
    """From a black tile to a white one no neighbouring pixels jump, also where four tiles meet; cores stay as they are."""
    boxes = tiles(150, 130, 64, 32)
    mosaic = Mosaic(boxes, 2, 0.75)
    for number, box in enumerate(boxes):
        mosaic.put(np.full((2 * (box.bottom - box.top), 2 * (box.right - box.left), 3), 255 * (number % 2), np.uint8))
    assert mosaic.complete
    made = mosaic.picture.astype(int)
    assert made.shape == (260, 300, 3)
    assert {made[0, 0, 0], made[0, -1, 0], made[-1, -1, 0], made[-1, 0, 0]} == {0, 255}
    # A half cosine of 48 pixels climbs at most 255 * pi / 96 a pixel.
    steepest = math.ceil(255 * math.pi / 96) + 1
    assert np.abs(np.diff(made, axis=0)).max() <= steepest
    assert np.abs(np.diff(made, axis=1)).max() <= steepest


def test_mosaic_leaves_equal_tiles_as_they_are() -> None:
    """Where neighbours agree their blend is exact, whatever the number of tiles over a pixel."""
    source = picture(200, 90)
    for overlap in (8, 20, 31):
        boxes = tiles(200, 90, 40, overlap)
        mosaic = Mosaic(boxes, 1, 0.25)
        for box in boxes:
            mosaic.put(source[box.top : box.bottom, box.left : box.right])
        assert np.array_equal(mosaic.picture, source)


def test_mosaic_refuses_a_tile_of_another_size() -> None:
    """A model that does not enlarge as it says never shifts the picture."""
    with pytest.raises(ValueError, match="not"):
        Mosaic(tiles(40, 40, 40, 8), 2, 0.25).put(np.zeros((81, 80, 3), np.uint8))


@pytest.mark.parametrize("size", [(48, 32), (72, 48), (37, 25), (200, 130)])
def test_upscaler_reaches_any_size(size: tuple[int, int], tmp_path: Path) -> None:
    """Twice, three times and odd sizes come from as many passes as are needed, and back."""
    upscaler = loaded(save_compact(tmp_path / "model.safetensors", scale=2))
    made = upscaler.enlarge_to(picture(24, 16), Size(*size))
    assert made.shape == (size[1], size[0], 3)


def test_upscaler_of_one_channel_enlarges_each_colour(tmp_path: Path) -> None:
    """A model for grey pictures sees three of them."""
    upscaler = loaded(save_compact(tmp_path / "model.safetensors", channels=1))
    source = picture(20, 10)
    made = upscaler.enlarge_tile(source)
    assert np.array_equal(made[..., :1], upscaler.enlarge_tile(source[..., [0, 0, 0]])[..., :1])
    assert not np.array_equal(made[..., 0], made[..., 1])


def test_upscaler_is_shelved_once_and_weighed(tmp_path: Path) -> None:
    """Two jobs share one copy of the weights, counted by their bytes."""
    counters = Counters()
    shelf = Shelf({Kind.UPSCALER: load_upscaler}, CPU, torch.float32, counters)
    entry = save_compact(tmp_path / "model.safetensors")
    assert shelf.take(entry) is shelf.take(entry)
    assert counters.component_loads == 1
    assert shelf.bytes == sum(tensor.nbytes for tensor in load_file(entry.path).values())


def test_half_precision_files_are_computed_in_full_on_a_cpu(tmp_path: Path) -> None:
    """Stored as fp16 they load as float32, whatever is asked for."""
    entry = save_compact(tmp_path / "model.safetensors")
    save_file({name: tensor.half() for name, tensor in load_file(entry.path).items()}, entry.path)
    assert load_upscaler(entry, CPU, torch.float16).dtype == torch.float32


def test_loading_opens_no_connection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker without internet loads and enlarges."""

    def refuse(*_args: object) -> None:
        raise AssertionError("a connection was attempted")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    loaded(save_esrgan(tmp_path / "model.safetensors")).enlarge(picture(8, 8))


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def _garble(path: Path) -> None:
    path.write_bytes(b"\x00" * 4000)


def _lose_a_tensor(path: Path) -> None:
    state = {name: tensor.clone() for name, tensor in load_file(path).items() if name != "body.2.bias"}
    save_file(state, path)


def _be_something_else(path: Path) -> None:
    save_file({"nothing.weight": torch.zeros(4, 4)}, path)


def _be_a_pickle(path: Path) -> None:
    # Copied first: what was read still lies in the file that is overwritten.
    torch.save({name: tensor.clone() for name, tensor in load_file(path).items()}, path)


@pytest.mark.parametrize("harm", [_cut, _garble, _lose_a_tensor, _be_something_else, _be_a_pickle])
def test_damaged_upscaler_is_named(harm: Callable[[Path], None], tmp_path: Path) -> None:
    """Whatever is wrong with the file, the failure names it and stays a failure of the model."""
    entry = save_compact(tmp_path / "broken.safetensors")
    harm(entry.path)
    with pytest.raises(ModelDamaged, match=r"broken\.safetensors"):
        loaded(entry)


def test_missing_upscaler_may_come_back(tmp_path: Path) -> None:
    """A file that is away is another thing than a broken one; a folder is no upscaler."""
    entry = save_compact(tmp_path / "model.safetensors")
    entry.path.unlink()
    with pytest.raises(ModelMissing, match=r"model\.safetensors"):
        loaded(entry)
    with pytest.raises(ModelDamaged, match="one safetensors file"):
        loaded(entry.model_copy(update={"layout": Layout.DIFFUSERS}))


def test_upscaler_tells_numbers_that_are_no_picture(tmp_path: Path) -> None:
    """NaN in the weights never becomes black pixels."""
    entry = save_compact(tmp_path / "model.safetensors")
    state = load_file(entry.path)
    state["body.0.weight"] *= float("nan")
    save_file(state, entry.path)
    with pytest.raises(PictureInvalid):
        loaded(entry).enlarge(picture(8, 8))


def test_resampling_keeps_and_averages() -> None:
    """A picture of the right size comes back as it is; made smaller, its mean stays."""
    source = picture(64, 48)
    assert resample(source, Size(64, 48)) is source
    assert abs(resample(source, Size(16, 12)).mean() - source.mean()) < 1
    assert np.array_equal(resample(source, Size(128, 96), "nearest")[::2, ::2], source)
