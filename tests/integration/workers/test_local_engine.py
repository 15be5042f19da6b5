"""The torch engine draws with real pipelines of random weights; one real agent uses it in its own process."""

from pathlib import Path
from uuid import uuid4

import numpy as np
import psutil
import pytest
import torch

from jobs.contract import Txt2ImgParameters
from jobs.errors import OutOfMemory
from jobs.inputs import Inputs
from models_registry.entries import ModelEntry
from models_registry.scanning.scan import scan
from pipelines.engine.engine import StepReport
from pipelines.engine.state import State
from pipelines.families.base import Family
from pipelines.loading import load
from tests.contracts.pipelines.conftest import build_tiny_sd15
from tests.integration.workers.local_run import WEIGHTS, entry, run
from tests.integration.workers.yard import Yard
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
    Report,
    Resident,
    Stepped,
    Stopped,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a diffusers folder with a tiny random pipeline."""
    torch.set_num_threads(1)
    return build_tiny_sd15(tmp_path_factory.mktemp("models") / "tiny")


def item(model: ModelEntry, **changes: object) -> Item:
    """Return an item of two pictures of four steps."""
    parameters = Txt2ImgParameters(
        model=model.name,
        prompt="a red circle",
        width=64,
        height=64,
        steps=4,
        guidance_scale=5.0,
        scheduler="Euler",
        seed=7,
        preview_every=2,
        num_images=2,
    ).model_copy(update=changes)
    return Item(uuid4(), 1, parameters, Inputs({model.ref: model}))


def drawn_by_hand(item: Item, index: int) -> bytes:
    """Draw one picture with the pipeline alone."""
    assert item.entry is not None
    assert isinstance(item.parameters, Txt2ImgParameters)
    family = load(item.entry, "cpu")
    state = family.prepare(item.parameters, index)
    while state.phase == "denoise":
        assert not family.step([state]).errors
    [picture] = family.finish([state])
    state.close()
    family.close()
    return picture.array.tobytes()


def test_local_engine_draws_what_the_pipeline_draws(folder: Path) -> None:
    """Pictures equal the pipeline's own bit for bit; steps, previews and phases are reported as they happen."""
    wanted = item(entry(folder))
    link = run(Draw((wanted,)))
    pictures = link.of(Pictured)
    assert [(picture.index, picture.seed) for picture in pictures] == [(0, 7), (1, 8)]
    for picture in pictures:
        assert picture.rgb == drawn_by_hand(wanted, picture.index)
    assert [report.step for report in link.of(Stepped)] == list(range(1, 9))
    previews = link.of(Previewed)
    assert [(preview.image, preview.step) for preview in previews] == [(0, 2), (0, 4), (1, 2), (1, 4)]
    assert all(len(preview.rgb) == preview.width * preview.height * 3 for preview in previews)
    phases = [report.phase for report in link.of(PhaseBegan)]
    assert phases == ["load", *["encode", "step", "decode"] * 2]
    assert isinstance(link.reports[-1], Drawn)


@pytest.mark.parametrize("scheduler", ["Heun", "DPM++ SDE Karras", "PLMS"])
def test_local_engine_counts_steps_as_people_do(folder: Path, scheduler: str) -> None:
    """A scheduler that calls the model twice a step still makes as many steps as were asked for."""
    link = run(Draw((item(entry(folder), scheduler=scheduler, num_images=1),)))
    assert [report.step for report in link.of(Stepped)] == [1, 2, 3, 4]
    assert len(link.of(Drawn)) == 1


def test_local_engine_keeps_models_while_memory_allows(folder: Path, tmp_path: Path) -> None:
    """A model is loaded once; when two do not fit, the one used longest ago leaves."""
    models = {"a": entry(folder, "a"), "b": entry(build_tiny_sd15(tmp_path / "other", seed=1), "b")}
    items = [item(models[name], num_images=1, steps=1) for name in ("a", "a", "b", "a")]
    ample = run(Draw(items))
    assert [report.loads for report in ample.of(Resident)] == [1, 2]
    weights = sum(path.stat().st_size for path in folder.glob("*/*.safetensors"))
    # The pictures' activations, what a model says it weighs, and half of what the other one really does.
    tight = run(Draw(items), memory=int((64 * 64 * 10_000 + 2 * WEIGHTS + weights // 2) / 0.9))
    assert [[key[0] for key in report.models] for report in tight.of(Resident)] == [["a"], ["b"], ["a"]]
    assert tight.of(Resident)[-1].loads == 3
    assert len(tight.of(Drawn)) == 4


def test_local_engine_stops_at_the_next_step(folder: Path) -> None:
    """A cancelled item stops after the step it is in, and leaves no trace in the next picture."""
    first, second = item(entry(folder)), item(entry(folder), num_images=1)

    def cancel_at_two(report: Report) -> Command | None:
        return Cancel(first.job, 1) if isinstance(report, Stepped) and report.step == 2 else None

    link = run(Draw((first, second)), answer=cancel_at_two)
    assert max(report.step for report in link.of(Stepped) if report.job == first.job) == 2
    assert link.of(Stopped) == [Stopped(first.job, 1)]
    assert link.of(Pictured)[0].rgb == drawn_by_hand(second, 0)
    assert link.of(Resident)[-1].loads == 1


def test_local_engine_reports_a_missing_model(folder: Path, tmp_path: Path) -> None:
    """Files that are not there fail that item alone."""
    missing, fine = item(entry(tmp_path / "nowhere", "gone")), item(entry(folder))
    link = run(Draw((missing, fine)))
    assert [(report.job, report.code) for report in link.of(Failed)] == [(missing.job, "model_missing")]
    assert [report.job for report in link.of(Drawn)] == [fine.job]


class ScarceMemory:
    """Let the pipeline's step run out of memory a number of times: a small device, without needing one."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, times: int) -> None:
        self._times = times
        self._step = Family.step

        def step(family: Family, states: list[State]) -> StepReport:
            return self.step(family, states)

        monkeypatch.setattr(Family, "step", step)

    def step(self, family: Family, states: list[State]) -> StepReport:
        """Fail as a model call does that leaves its run where it was, then work."""
        if self._times > 0:
            self._times -= 1
            return StepReport({state: OutOfMemory("the device has too little memory") for state in states})
        return self._step(family, states)


def test_local_engine_reports_out_of_memory_and_goes_on(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Out of memory fails that item; the next one is drawn with the model that stayed."""
    ScarceMemory(monkeypatch, times=1)
    first, second = item(entry(folder)), item(entry(folder), num_images=1)
    link = run(Draw((first, second)))
    assert [(report.job, report.code) for report in link.of(Failed)] == [(first.job, "out_of_memory")]
    assert link.of(Pictured)[0].rgb == drawn_by_hand(second, 0)
    assert link.of(Resident)[-1].loads == 1


def test_local_engine_makes_room_before_it_gives_up(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With another model loaded, running out of memory costs that model its place and the job nothing."""
    other, wanted = item(entry(folder, "other"), num_images=1, steps=1), item(entry(folder), num_images=1)
    expected = drawn_by_hand(wanted, 0)
    begun: list[bool] = []

    def run_short(report: Report) -> None:
        if isinstance(report, PhaseBegan) and report.job == wanted.job and report.phase == "step" and not begun:
            begun.append(True)
            ScarceMemory(monkeypatch, times=1)

    link = run(Draw((other, wanted)), answer=run_short)
    assert link.of(Failed) == []
    assert link.of(Pictured)[-1].rgb == expected
    assert [key.partition("@")[0] for key in link.of(Resident)[-1].models] == ["tiny"]


def libraries(process: psutil.Process) -> set[str]:
    """Return the names of the files a process has mapped."""
    return {Path(mapped.path).name for mapped in process.memory_maps()}


def test_agent_draws_with_torch_in_another_process(yard: Yard, folder: Path) -> None:
    """A real agent has a real engine draw; torch lives in the engine, and not in the agent."""
    scan(yard.line, [folder.parent])
    agent = yard.start_agent(engine="local", threads=1)
    job = yard.submit(model="tiny", steps=2)
    yard.until_state(job, "succeeded", 120)
    process = psutil.Process(agent.process.pid)
    assert not any(name.startswith("libtorch") for name in libraries(process))
    engine = agent.engine()
    assert engine is not None
    assert any(name.startswith("libtorch") for name in libraries(engine))
    assert np.prod([yard.images(job)[0][side] for side in ("width", "height")]) == 64 * 64
