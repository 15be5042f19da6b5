"""The task `upscale` as a stream of steps, bit for bit, and what it does with any size."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from jobs.contract import UpscaleParameters
from jobs.errors import ModelMissing, OutOfMemory, PictureUnreadable
from jobs.geometry import Size, total_steps
from jobs.inputs import Inputs
from models_registry.entries import Kind, ModelEntry
from pipelines.engine.checkpoint import Checkpoint, CheckpointMismatchError
from pipelines.engine.engine import Counters
from pipelines.engine.state import State
from pipelines.pictures import Pixels
from pipelines.resizing import resample
from pipelines.shelf import Shelf
from pipelines.upscaling.drawer import UpscaleDrawer
from pipelines.upscaling.upscaler import Upscaler, load_upscaler
from tests.contracts.pipelines.upscalers import picture, save_compact, upscale_inputs, upscale_parameters

#: Two tiles beside each other, and two passes for more than the model's factor.
WIDE = picture(600, 12)


@pytest.fixture(scope="module")
def entry(tmp_path_factory: pytest.TempPathFactory) -> ModelEntry:
    """Return a tiny upscaler that doubles."""
    return save_compact(tmp_path_factory.mktemp("upscalers") / "tiny-x2.safetensors", scale=2)


@pytest.fixture
def shelf() -> Shelf:
    """Return an empty shelf."""
    return Shelf({Kind.UPSCALER: load_upscaler}, torch.device("cpu"), torch.float32, Counters())


@pytest.fixture
def drawer(shelf: Shelf) -> Iterator[UpscaleDrawer]:
    """Return a drawer; every state must be closed at the end."""
    made = UpscaleDrawer(shelf.take, Counters())
    yield made
    left = set(made.open_states)
    made.close()
    assert not left


def by_hand(entry: ModelEntry, source: Pixels, size: Size) -> Pixels:
    """Enlarge with the model alone."""
    with torch.no_grad():
        return load_upscaler(entry, torch.device("cpu"), torch.float32).enlarge_to(source, size)


def end(drawer: UpscaleDrawer, state: State) -> Pixels:
    """Step to the end, finish and close."""
    while state.phase == "denoise":
        assert not drawer.step([state]).errors
    [made] = drawer.finish([state])
    state.close()
    return made.array


@pytest.mark.parametrize(("scale", "steps"), [(2.0, 2), (4.0, 2 + 3), (3.0, 2 + 3), (1.5, 2), (2.37, 2 + 3)])
def test_stepped_enlargement_equals_the_plain_one(
    drawer: UpscaleDrawer, entry: ModelEntry, scale: float, steps: int
) -> None:
    """Tile by tile comes what comes at once, in as many steps as were foretold, at exactly the size asked for."""
    parameters = upscale_parameters(WIDE, entry, scale)
    assert total_steps(parameters) == steps
    state = drawer.prepare(parameters, 0, upscale_inputs(WIDE, entry))
    assert (state.step, state.total, state.phase) == (0, steps, "denoise")
    seen = []
    while state.phase == "denoise":
        assert not drawer.step([state]).errors
        seen.append(state.step)
    assert seen == list(range(1, steps + 1))
    [made] = drawer.finish([state])
    assert (made.index, made.seed, state.phase) == (0, 7, "done")
    state.close()
    assert made.array.shape == (parameters.height, parameters.width, 3)
    assert np.array_equal(made.array, by_hand(entry, WIDE, Size(parameters.width, parameters.height)))
    assert drawer.counters.upscales == steps


@pytest.mark.parametrize("resampler", ["lanczos", "bicubic", "nearest", "Lanczos"])
def test_resampler_needs_no_model(drawer: UpscaleDrawer, resampler: str) -> None:
    """Without a model the picture is resampled, in one step."""
    source = picture(21, 13)
    parameters = upscale_parameters(source, resampler, 3)
    state = drawer.prepare(parameters, 0, upscale_inputs(source))
    assert state.total == 1
    made = end(drawer, state)
    assert np.array_equal(made, resample(source, Size(63, 39), resampler.casefold()))
    assert drawer.counters.upscales == 0


def test_model_that_enlarges_nothing_is_followed_by_resampling(drawer: UpscaleDrawer, tmp_path: Path) -> None:
    """A model of factor 1 does not keep the picture small for ever."""
    entry = save_compact(tmp_path / "x1.safetensors", scale=1)
    source = picture(21, 13)
    state = drawer.prepare(upscale_parameters(source, entry, 2), 0, upscale_inputs(source, entry))
    assert end(drawer, state).shape == (26, 42, 3)


def test_model_registered_with_a_wrong_factor_enlarges_all_the_same(drawer: UpscaleDrawer, entry: ModelEntry) -> None:
    """Some files do not tell how much they enlarge: the size that was promised is kept."""
    source = picture(21, 13)
    guessed = entry.model_copy(update={"scale": 4})
    made = end(drawer, drawer.prepare(upscale_parameters(source, guessed, 4), 0, upscale_inputs(source, guessed)))
    assert np.array_equal(made, resample(by_hand(entry, source, Size(42, 26)), Size(84, 52)))


def test_interleaved_enlargements_equal_their_plain_ones(drawer: UpscaleDrawer, entry: ModelEntry) -> None:
    """Two pictures over one model, one joining late, and a third that is cancelled, do not see each other."""
    other = picture(530, 9, seed=4)
    first = drawer.prepare(upscale_parameters(WIDE, entry, 4), 0, upscale_inputs(WIDE, entry))
    cancelled = drawer.prepare(upscale_parameters(WIDE, entry, 2), 0, upscale_inputs(WIDE, entry))
    assert not drawer.step([first, cancelled]).errors
    second = drawer.prepare(upscale_parameters(other, entry, 2), 0, upscale_inputs(other, entry))
    assert not drawer.step([second, first]).errors
    cancelled.close()
    cancelled.close()
    assert np.array_equal(end(drawer, second), by_hand(entry, other, Size(1060, 18)))
    assert np.array_equal(end(drawer, first), by_hand(entry, WIDE, Size(2400, 48)))


def test_resumed_enlargements_equal_the_plain_one(drawer: UpscaleDrawer, entry: ModelEntry, tmp_path: Path) -> None:
    """A checkpoint of every boundary, the last one too, leads another process to the same bits."""
    parameters, inputs = upscale_parameters(WIDE, entry, 3), upscale_inputs(WIDE, entry)
    state = drawer.prepare(parameters, 0, inputs)
    cases = []
    while state.phase == "denoise":
        assert not drawer.step([state]).errors
        kept = state.checkpoint()
        cases.append((f"{state.step}.checkpoint", kept))
    state.close()
    # Written after the end: what was kept does not change with the run.
    for name, kept in cases:
        (tmp_path / name).write_bytes(kept.to_bytes())
    (tmp_path / "source.png").write_bytes(inputs.picture(parameters.image))
    order = {
        "entries": [entry.model_dump(mode="json")],
        "threads": torch.get_num_threads(),
        "cases": [{"file": name, "parameters": parameters.model_dump(mode="json")} for name, _ in cases],
    }
    (tmp_path / "cases.json").write_text(json.dumps(order))
    subprocess.run([sys.executable, Path(__file__).with_name("upscale_process.py"), tmp_path], check=True, timeout=120)
    wanted = by_hand(entry, WIDE, Size(parameters.width, parameters.height))
    assert len(cases) == 5
    for name, _ in cases:
        assert np.array_equal(np.load(tmp_path / f"{name}.npy"), wanted), name


def test_checkpoint_of_something_else_is_refused(drawer: UpscaleDrawer, entry: ModelEntry) -> None:
    """Another scale, picture or model never continues a kept enlargement; delivery may change."""
    parameters, inputs = upscale_parameters(WIDE, entry, 3), upscale_inputs(WIDE, entry)
    state = drawer.prepare(parameters, 0, inputs)
    assert not drawer.step([state]).errors
    kept = Checkpoint.from_bytes(state.checkpoint().to_bytes())
    state.close()
    replaced = entry.model_copy(update={"fingerprint": "2" * 64})
    other = parameters.model_copy(update={"image": "upload:" + "6" * 64})
    for changed, given in (
        (upscale_parameters(WIDE, entry, 4), inputs),
        (parameters, upscale_inputs(WIDE, replaced)),
        (other, Inputs(inputs.models, {other.image: inputs.picture(parameters.image)})),
    ):
        with pytest.raises(CheckpointMismatchError):
            drawer.prepare(changed, 0, given, resume=kept)
    again = drawer.prepare(parameters.model_copy(update={"priority": 9}), 0, inputs, resume=kept)
    assert again.step == 1
    again.close()


def test_preview_shows_the_picture_so_far(drawer: UpscaleDrawer, entry: ModelEntry) -> None:
    """Small, of the picture's shape, near to the result, and nearer with every tile."""
    source = picture(600, 600)
    parameters = upscale_parameters(source, entry, 2)
    state = drawer.prepare(parameters, 0, upscale_inputs(source, entry))
    assert state.preview() is None
    shown = []
    while state.phase == "denoise":
        assert not drawer.step([state]).errors
        preview = state.preview()
        assert preview is not None
        assert preview.shape == (240, 240, 3)
        shown.append(preview)
    [made] = drawer.finish([state])
    state.close()
    assert np.array_equal(shown[-1], made.array[::5, ::5])
    distances = [np.abs(each.astype(int) - shown[-1]).sum() for each in shown]
    assert distances == sorted(distances, reverse=True)
    assert len(set(distances)) == len(shown) == 4


def test_failed_tile_can_be_tried_again(
    drawer: UpscaleDrawer, entry: ModelEntry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Out of memory leaves the enlargement where it was."""
    state = drawer.prepare(upscale_parameters(WIDE, entry, 2), 0, upscale_inputs(WIDE, entry))

    def fail(*_args: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")

    with monkeypatch.context() as patch:
        patch.setattr(Upscaler, "enlarge_tile", fail)
        assert isinstance(drawer.step([state]).errors[state], OutOfMemory)
    assert (state.step, state.failure) == (0, None)
    assert np.array_equal(end(drawer, state), by_hand(entry, WIDE, Size(1200, 24)))


def test_what_is_not_there_is_told(drawer: UpscaleDrawer, entry: ModelEntry) -> None:
    """A picture or model that was not handed over, or a picture of another size, is a failure with words."""
    parameters = upscale_parameters(WIDE, entry, 2)
    whole = upscale_inputs(WIDE, entry)
    with pytest.raises(ModelMissing, match="tiny-x2"):
        drawer.prepare(parameters, 0, Inputs({}, whole.pictures))
    with pytest.raises(PictureUnreadable):
        drawer.prepare(parameters, 0, Inputs(whole.models, {}))
    with pytest.raises(PictureUnreadable, match="600 x 12, not 600 x 13"):
        drawer.prepare(parameters.model_copy(update={"source_height": 13}), 0, whole)
    with pytest.raises(PictureUnreadable):
        drawer.prepare(parameters, 0, Inputs(whole.models, {parameters.image: b"no picture"}))
    state = drawer.prepare(parameters, 0, whole)
    with pytest.raises(RuntimeError, match="decode"):
        drawer.finish([state])
    state.close()


def test_parameters_and_geometry_agree(entry: ModelEntry) -> None:
    """The steps that are foretold are those of the stages, redrawn tiles among them."""
    source = picture(90, 70)
    refine = {"steps": 8, "strength": 0.4, "guidance_scale": 5.0, "scheduler": "Euler", "tile": 64}
    parameters: UpscaleParameters = upscale_parameters(source, entry, 2, refine=refine)
    # One tile of the upscaler; 180 x 140 in redrawn tiles of 64 that share 16: 4 x 3 of 3 steps each.
    assert total_steps(parameters) == 1 + 4 * 3 * 3
