"""The torch engine enlarges and preprocesses: the same pictures as the pipelines alone, step by step, within memory."""

from pathlib import Path
from uuid import uuid4

import numpy as np
import pytest
import torch

from jobs.contract import JobParameters, PreprocessParameters
from jobs.geometry import Size
from jobs.inputs import Inputs
from models_registry.entries import Kind, ModelEntry
from pipelines.preprocessing.preprocess import preprocess
from pipelines.resizing import resample
from pipelines.upscaling.upscaler import load_upscaler
from tests.contracts.pipelines.conftest import build_tiny_sd15, entry_for
from tests.contracts.pipelines.upscalers import SOURCE, picture, png, save_compact, upscale_parameters
from tests.unit.workers.memory_link import MemoryLink
from workers.engines.interface import (
    Cancel,
    Command,
    Draw,
    Drawn,
    Failed,
    Item,
    PhaseBegan,
    Pictured,
    Previewed,
    Quit,
    Report,
    Resident,
    Setup,
    Stepped,
    Stopped,
)
from workers.engines.local import LocalEngine

WIDE = picture(600, 10)


@pytest.fixture(scope="module")
def upscaler(tmp_path_factory: pytest.TempPathFactory) -> ModelEntry:
    """Return a tiny upscaler that doubles."""
    torch.set_num_threads(1)
    return save_compact(tmp_path_factory.mktemp("upscalers") / "tiny-x2.safetensors", scale=2)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> ModelEntry:
    """Return a tiny checkpoint."""
    return entry_for(build_tiny_sd15(tmp_path_factory.mktemp("models") / "tiny"))


def item(parameters: JobParameters, *entries: ModelEntry) -> Item:
    """Return an item over the wide picture."""
    return Item(uuid4(), 1, parameters, Inputs({entry.ref: entry for entry in entries}, {SOURCE: png(WIDE)}))


def canny(**options: float) -> PreprocessParameters:
    """Return the parameters of a preprocessing of the wide picture."""
    return PreprocessParameters(
        model="canny",
        preprocessor="canny",
        preprocessor_options=options,
        image=SOURCE,
        width=600,
        height=10,
        seed=3,
        preview_every=0,
    )


def run(*commands: Command, cancel_at: int | None = None, memory: int = 10**9) -> MemoryLink:
    """Let an engine serve commands to the end, cancelling whatever reaches a step."""

    def answer(report: Report) -> Command | None:
        if cancel_at is not None and isinstance(report, Stepped) and report.step == cancel_at:
            return Cancel(report.job, report.epoch)
        return None

    link = MemoryLink([*commands, Quit()], answer)
    setup = Setup(engine="local", label="cpu0", device="cpu", device_name="CPU", memory_bytes=memory, threads=1)
    LocalEngine(setup).run(link)
    return link


def enlarged(entry: ModelEntry, size: Size) -> bytes:
    """Enlarge with the model alone."""
    with torch.no_grad():
        return load_upscaler(entry, torch.device("cpu"), torch.float32).enlarge_to(WIDE, size).tobytes()


def test_local_engine_enlarges_what_the_upscaler_enlarges(upscaler: ModelEntry) -> None:
    """Tiles are steps with previews; the picture is the model's, the weights are loaded once and told as resident."""
    parameters = upscale_parameters(WIDE, upscaler, 3, preview_every=2)
    link = run(Draw((item(parameters, upscaler), item(parameters, upscaler))))
    pictures = link.of(Pictured)
    assert [(each.index, each.seed, each.width, each.height) for each in pictures] == [(0, 7, 1800, 30)] * 2
    assert {each.rgb for each in pictures} == {enlarged(upscaler, Size(1800, 30))}
    assert [(each.step, each.steps) for each in link.of(Stepped)] == [(step, 5) for step in range(1, 6)] * 2
    assert [each.step for each in link.of(Previewed)] == [2, 4] * 2
    assert [each.phase for each in link.of(PhaseBegan)] == ["load", "encode", "step", "decode"] * 2
    assert [list(each.models) for each in link.of(Resident)] == [[upscaler.model_key]]
    assert len(link.of(Drawn)) == 2


def test_local_engine_enlarges_without_a_model() -> None:
    """A resampler needs nothing loaded."""
    link = run(Draw((item(upscale_parameters(WIDE, "bicubic", 2)),)))
    assert link.of(Pictured)[0].rgb == resample(WIDE, Size(1200, 20), "bicubic").tobytes()
    assert link.of(Resident) == []


def test_local_engine_stops_between_two_tiles(upscaler: ModelEntry) -> None:
    """A cancelled enlargement stops after its tile, and the next one is untouched."""
    first = item(upscale_parameters(WIDE, upscaler, 4), upscaler)
    second = item(upscale_parameters(WIDE, upscaler, 2), upscaler)
    link = run(Draw((first, second)), cancel_at=3)
    assert [each.job for each in link.of(Stopped)] == [first.job]
    assert max(each.step for each in link.of(Stepped) if each.job == first.job) == 3
    assert [each.rgb for each in link.of(Pictured)] == [enlarged(upscaler, Size(1200, 20))]


def test_local_engine_redraws_enlarged_pictures(checkpoint: ModelEntry, upscaler: ModelEntry) -> None:
    """Checkpoint and upscaler are both loaded; tiles of the upscaler and steps of redrawn tiles are counted together."""
    refine = {"steps": 4, "strength": 0.5, "guidance_scale": 5.0, "scheduler": "Euler", "tile": 640}
    parameters = upscale_parameters(WIDE, upscaler, 2, model=checkpoint.name, refine=refine)
    link = run(Draw((item(parameters, checkpoint, upscaler),)))
    assert link.of(Failed) == []
    # Two tiles of the upscaler; 1200 x 20 in three tiles of 640, two steps each.
    assert [(each.step, each.steps) for each in link.of(Stepped)] == [(step, 8) for step in range(1, 9)]
    [made] = link.of(Pictured)
    assert (made.width, made.height) == (1200, 20)
    assert made.rgb != enlarged(upscaler, Size(1200, 20))
    assert list(link.of(Resident)[-1].models) == [upscaler.model_key, checkpoint.model_key]


def test_local_engine_drops_an_upscaler_for_a_model_that_needs_its_room(
    checkpoint: ModelEntry, upscaler: ModelEntry
) -> None:
    """What is on the shelf leaves when the next job does not fit beside it."""
    heavy = upscaler.components[0].model_copy(update={"parameters": 10**6})
    model = checkpoint.model_copy(update={"components": (heavy,)})
    refine = {"steps": 1, "strength": 1.0, "guidance_scale": 1.0, "scheduler": "Euler", "tile": 64}
    first = item(upscale_parameters(WIDE, upscaler, 2), upscaler)
    second = item(upscale_parameters(WIDE, "nearest", 1.01, model=model.name, refine=refine), model)
    # The model takes 4 MB on a CPU and its tiles of 64 pixels 41 MB: with nothing to spare.
    link = run(Draw((first, second)), memory=int((4 * 10**6 + 64 * 64 * 10_000) / 0.9) + 1)
    assert link.of(Failed) == []
    assert [list(each.models) for each in link.of(Resident)] == [[upscaler.model_key], [model.model_key]]


def test_local_engine_preprocesses() -> None:
    """A control picture is one step away; options that mean nothing fail their own item alone."""
    wanted, wrong = item(canny(low_threshold=20)), item(canny(sigma=2))
    link = run(Draw((wrong, wanted)))
    assert [(each.job, each.code) for each in link.of(Failed)] == [(wrong.job, "drawing_failed")]
    [made] = link.of(Pictured)
    assert np.frombuffer(made.rgb, np.uint8).reshape(10, 600, 3).tolist() == (
        preprocess("canny", WIDE, {"low_threshold": 20}).tolist()
    )
    assert [(each.step, each.steps) for each in link.of(Stepped)] == [(1, 1)]


def test_local_engine_names_a_missing_upscaler(upscaler: ModelEntry, tmp_path: Path) -> None:
    """A file that has gone fails the item by its code and name, and nothing else."""
    gone = upscaler.model_copy(update={"path": tmp_path / "gone.safetensors", "fingerprint": "9" * 64})
    assert gone.kind is Kind.UPSCALER
    link = run(Draw((item(upscale_parameters(WIDE, gone, 2), gone), item(canny()))))
    [failed] = link.of(Failed)
    assert failed.code == "model_missing"
    assert "gone.safetensors" in failed.message
    assert len(link.of(Drawn)) == 1
