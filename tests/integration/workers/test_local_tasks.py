"""The torch engine draws every diffusion task, and keeps what jobs add to a model within its memory."""

import io
from typing import Any, NamedTuple
from uuid import uuid4

import numpy as np
import pytest
import torch
from PIL import Image

from jobs.contract import DiffusionJob, parse_parameters
from jobs.geometry import steps_per_picture
from jobs.inputs import Inputs
from jobs.needs import needs_of
from models_registry.entries import Kind, ModelEntry
from pipelines.loading import load
from tests.contracts.pipelines.conftest import build_tiny_controlnet, build_tiny_sd15
from tests.integration.workers.local_run import MB, entry, run
from workers.engines.interface import (
    Cancel,
    Command,
    Draw,
    Drawn,
    Failed,
    Item,
    Pictured,
    Previewed,
    Report,
    Resident,
    Stepped,
    Stopped,
)

_SOURCE, _MASK = "upload:" + "a" * 64, "upload:" + "b" * 64


class Models(NamedTuple):
    """A tiny checkpoint and two ControlNets for it."""

    checkpoint: ModelEntry
    controls: tuple[ModelEntry, ModelEntry]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    """Build the folders."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("models")
    first, second = (
        entry(
            build_tiny_controlnet(folder / f"control-{place}", place), f"control-{place}", Kind.CONTROLNET
        ).model_copy(update={"fingerprint": str(place + 1) * 64})
        for place in (0, 1)
    )
    return Models(entry(build_tiny_sd15(folder / "tiny")), (first, second))


def _file(raster: np.ndarray[Any, np.dtype[np.uint8]]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(raster).save(file, "PNG")
    return file.getvalue()


def _pictures() -> dict[str, bytes]:
    mask = np.zeros((32, 32), np.uint8)
    mask[8:20, 8:20] = 255
    return {_SOURCE: _file(np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)), _MASK: _file(mask)}


def _control(place: int) -> dict[str, Any]:
    return {"model": f"control-{place}", "image": _SOURCE}


def _item(models: Models, checkpoint: str = "tiny", **fields: Any) -> Item:
    parameters = parse_parameters(
        {
            "task": "txt2img",
            "model": checkpoint,
            "prompt": "a red circle",
            "width": 32,
            "height": 32,
            "steps": 4,
            "guidance_scale": 3.0,
            "scheduler": "Euler a",
            "seed": 7,
            "preview_every": 1,
            **fields,
        }
    )
    main = models.checkpoint.model_copy(update={"name": checkpoint})
    # As an agent hands them over: what the job names and nothing else.
    named = {need.ref for need in needs_of(parameters)}
    given = {each.ref: each for each in (main, *models.controls) if each.ref in named}
    return Item(uuid4(), 1, parameters, Inputs(given, _pictures()))


_TASKS: dict[str, dict[str, Any]] = {
    "img2img": {"task": "img2img", "image": _SOURCE, "strength": 0.5},
    "inpaint": {"task": "inpaint", "image": _SOURCE, "mask": _MASK},
    "outpaint": {"task": "inpaint", "image": _SOURCE, "outpaint": {"left": 8}},
    "controls": {"controls": [_control(0), _control(1)]},
    "hires": {"hires": {"scale": 2.0, "strength": 0.5}},
}


@pytest.mark.parametrize("task", _TASKS)
def test_local_engine_draws_every_task(models: Models, task: str) -> None:
    """Two pictures equal the family's own; every step of every pass is counted and shown."""
    wanted = _item(models, num_images=2, **_TASKS[task])
    assert isinstance(wanted.parameters, DiffusionJob)
    link = run(Draw((wanted,)))
    family = load(models.checkpoint, "cpu")
    for picture in link.of(Pictured):
        state = family.prepare(wanted.parameters, picture.index, wanted.inputs)
        while state.phase == "denoise":
            assert not family.step([state]).errors
        [drawn] = family.finish([state])
        state.close()
        assert (picture.height, picture.width) == drawn.array.shape[:2]
        assert picture.rgb == drawn.array.tobytes()
    family.close()
    each = steps_per_picture(wanted.parameters)
    assert [report.step for report in link.of(Stepped)] == list(range(1, 2 * each + 1))
    assert {report.steps for report in link.of(Stepped)} == {2 * each}
    assert len(link.of(Previewed)) == 2 * each
    assert len(link.of(Pictured)) == 2
    assert isinstance(link.reports[-1], Drawn)


def test_local_engine_counts_what_needs_no_drawing(models: Models) -> None:
    """At strength 0 the picture comes at once, and progress still ends at its end."""
    link = run(Draw((_item(models, num_images=2, task="img2img", image=_SOURCE, strength=0.0),)))
    assert [(report.step, report.steps) for report in link.of(Stepped)] == [(1, 2), (2, 2)]
    assert len(link.of(Pictured)) == 2


@pytest.mark.parametrize("at", [2, 5])
def test_local_engine_stops_in_either_pass(models: Models, at: int) -> None:
    """A cancelled item of two passes stops at the step it is in; the next item is drawn as if it had never been."""
    first, second = _item(models, **_TASKS["hires"]), _item(models, **_TASKS["controls"])

    def cancel(report: Report) -> Command | None:
        mine = isinstance(report, Stepped) and report.job == first.job and report.step == at
        return Cancel(first.job, 1) if mine else None

    link = run(Draw((first, second)), answer=cancel)
    assert max(report.step for report in link.of(Stepped) if report.job == first.job) == at
    assert link.of(Stopped) == [Stopped(first.job, 1)]
    assert link.of(Pictured)[0].rgb == run(Draw((second,))).of(Pictured)[0].rgb


def test_local_engine_loads_an_addition_once(models: Models) -> None:
    """Two checkpoints share one loaded ControlNet, which counts in the bytes that are reported; these two are the same files besides."""
    items = [_item(models, name, controls=[_control(0)], steps=1) for name in ("tiny", "tiny", "other")]
    link = run(Draw(items))
    residents = link.of(Resident)
    assert [[key.partition("@")[0] for key in report.models] for report in residents] == [
        ["tiny"],
        ["tiny"],
        ["tiny", "other"],
    ]
    assert residents[1].bytes > residents[0].bytes
    assert residents[2].bytes == residents[1].bytes


def test_local_engine_drops_additions_before_models(models: Models) -> None:
    """When memory is short, what other jobs added leaves, and the model stays loaded."""
    items = [_item(models, controls=[_control(place)], steps=1) for place in (0, 1, 0)]
    alone, controlled = (report.bytes for report in run(Draw(items[:1])).of(Resident))
    # One ControlNet is estimated at 20 MB and the picture at 10.24; beside them is room for the checkpoint, and half of another ControlNet.
    link = run(Draw(items), memory=int((30.24 * MB + (alone + controlled) / 2) / 0.9))
    assert link.of(Resident)[-1].loads == 1
    assert len(link.of(Drawn)) == 3
    assert link.of(Failed) == []
    sizes = [report.bytes for report in link.of(Resident)]
    # Loaded, then one ControlNet comes, and from then on each leaves before the next one comes.
    assert sizes == [alone, controlled] * 3
