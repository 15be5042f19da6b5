"""The contract of the step engine, bit for bit: however a run is stepped, its numbers are those of the plain call."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch

from jobs.contract import Txt2ImgParameters, image_seed
from jobs.inputs import Inputs
from models_registry.entries import ModelEntry
from pipelines.engine.checkpoint import Checkpoint
from pipelines.families.base import Family
from pipelines.loading import load
from tests.contracts.pipelines.resuming import Interrupted
from tests.contracts.pipelines.running import PLAIN, Result, end, plain_scheduler, take_step

Make = Callable[..., Txt2ImgParameters]


#: Kept after every pass of the loop, inside the steps of second-order schedulers too; the others in the middle and at the end.
_EVERY_BOUNDARY = frozenset({"Euler a", "DPM++ 2M SDE", "DPM++ SDE", "UniPC", "Heun", "PLMS"})
every_scheduler = pytest.mark.parametrize("scheduler", PLAIN)


class Plain:
    """Draw with diffusers alone."""

    def __init__(self, folder: Path) -> None:
        pipeline_class: Any = diffusers.StableDiffusionPipeline
        self._pipe = pipeline_class.from_pretrained(folder, safety_checker=None, local_files_only=True)
        self._pipe.set_progress_bar_config(disable=True)
        self._config = self._pipe.scheduler.config

    def __call__(self, parameters: Txt2ImgParameters, index: int = 0) -> Result:
        """Draw one picture of a job."""
        self._pipe.scheduler = plain_scheduler(parameters.scheduler, self._config)
        kept: dict[str, torch.Tensor] = {}

        def keep(_pipe: Any, _step: int, _timestep: Any, tensors: dict[str, torch.Tensor]) -> dict[str, Any]:
            kept.update(tensors)
            return {}

        image = self._pipe(
            parameters.prompt,
            negative_prompt=parameters.negative_prompt,
            width=parameters.width,
            height=parameters.height,
            num_inference_steps=parameters.steps,
            guidance_scale=parameters.guidance_scale,
            generator=torch.Generator("cpu").manual_seed(image_seed(parameters, index)),
            callback_on_step_end=keep,
        ).images[0]
        return Result(kept["latents"].numpy(), np.asarray(image))


@pytest.fixture(scope="module")
def plain(tiny_sd15_folder: Path) -> Plain:
    """Return diffusers' own pipeline over the same files."""
    return Plain(tiny_sd15_folder)


@every_scheduler
def test_stepped_run_equals_the_plain_call(plain: Plain, family: Family, parameters: Make, scheduler: str) -> None:
    """Pausing at every model call changes nothing, with and without guidance."""
    for guidance in (5.0, 1.0):
        wanted = parameters(scheduler=scheduler, guidance_scale=guidance, negative_prompt="blue")
        assert end(family, family.prepare(wanted, 0)).same(plain(wanted))


@every_scheduler
def test_interleaved_runs_equal_their_plain_calls(
    plain: Plain, family: Family, parameters: Make, scheduler: str
) -> None:
    """Two runs over one set of weights, one joining late, do not see each other."""
    first = parameters(scheduler=scheduler, steps=5)
    second = parameters(
        scheduler=scheduler, steps=4, prompt="a blue square", seed=99 if scheduler != "DPM++ SDE" else 7
    )
    one = family.prepare(first, 0)
    take_step(family, [one])
    two = family.prepare(second, 0)
    for _ in range(3):
        take_step(family, [two, one])
    assert end(family, one).same(plain(first))
    assert end(family, two).same(plain(second))


@every_scheduler
def test_run_beside_a_cancelled_neighbour_equals_the_plain_call(
    plain: Plain, family: Family, parameters: Make, scheduler: str
) -> None:
    """A neighbour that is stopped in the middle leaves nothing behind."""
    wanted = parameters(scheduler=scheduler)
    neighbour = family.prepare(parameters(scheduler=scheduler, seed=3, steps=9), 0)
    state = family.prepare(wanted, 0)
    take_step(family, [neighbour, state])
    take_step(family, [neighbour])
    neighbour.close()
    assert end(family, state).same(plain(wanted))


@every_scheduler
def test_run_beside_a_broken_neighbour_equals_the_plain_call(
    plain: Plain, family: Family, parameters: Make, scheduler: str
) -> None:
    """A neighbour whose pipeline raises is reported, and only it."""
    wanted = parameters(scheduler=scheduler)
    neighbour, state = family.prepare(parameters(seed=3), 0), family.prepare(wanted, 0)
    neighbour._body.scheduler.sigmas = None  # noqa: SLF001 - something must break
    report = family.step([neighbour, state])
    assert list(report.errors) == [neighbour]
    assert report.errors[neighbour].code == "drawing_failed"
    assert list(family.step([neighbour, state]).errors) == [neighbour]
    neighbour.close()
    assert end(family, state).same(plain(wanted))


@pytest.fixture(scope="module")
def resumed_elsewhere(
    tiny_sd15_folder: Path, entry_of: Callable[[Path], ModelEntry], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, list[Result]]:
    """Interrupt a run of every scheduler after each pass; return what a new process makes of the checkpoints."""
    interrupted = Interrupted(tmp_path_factory.mktemp("checkpoints"))
    entry = entry_of(tiny_sd15_folder)
    family = load(entry, "cpu")
    for scheduler in PLAIN:
        wanted = _resumable(scheduler)
        state = family.prepare(wanted, 0)
        while state.phase == "denoise":
            take_step(family, [state])
            if scheduler in _EVERY_BOUNDARY or state.step in {2, 4}:
                interrupted.keep(scheduler, wanted, state)
        state.close()
    family.close()
    return interrupted.resume(Inputs({entry.ref: entry}), seconds=120)


def _resumable(scheduler: str) -> Txt2ImgParameters:
    return Txt2ImgParameters(
        model="tiny-sd15",
        prompt="a red circle",
        width=32,
        height=32,
        steps=4,
        guidance_scale=5.0,
        scheduler=scheduler,
        seed=7,
        preview_every=0,
    )


@every_scheduler
def test_run_resumed_in_a_new_process_equals_the_plain_call(
    plain: Plain, resumed_elsewhere: dict[str, list[Result]], scheduler: str
) -> None:
    """A checkpoint of a step boundary, the last one too, leads another process to the same bits."""
    wanted = plain(_resumable(scheduler))
    assert len(resumed_elsewhere[scheduler]) >= (4 if scheduler in _EVERY_BOUNDARY else 2)
    assert [result.same(wanted) for result in resumed_elsewhere[scheduler]].count(False) == 0


def test_resumed_run_can_be_kept_again(plain: Plain, family: Family, parameters: Make) -> None:
    """A run handed from worker to worker stays exact, and tells where it stands."""
    wanted = parameters(scheduler="DPM++ 2M SDE", steps=6)
    checkpoint: Checkpoint | None = None
    for step in range(1, 6):
        state = family.prepare(wanted, 0, resume=checkpoint)
        assert (state.step, state.total, state.phase) == (step - 1, 6, "denoise")
        take_step(family, [state])
        checkpoint = Checkpoint.from_bytes(state.checkpoint().to_bytes())
        state.close()
    assert end(family, family.prepare(wanted, 0, resume=checkpoint)).same(plain(wanted))


def test_picture_of_a_job_equals_a_single_job_with_its_seed(plain: Plain, family: Family, parameters: Make) -> None:
    """Picture i of a job is the picture of seed + i, whatever its neighbours."""
    job = parameters(num_images=4, seed=7, scheduler="Euler a")
    states = [family.prepare(job, index) for index in range(4)]
    while states[0].phase == "denoise":
        take_step(family, states)
    pictures = family.finish(states)
    for state in states:
        state.close()
    assert [(picture.index, picture.seed) for picture in pictures] == [(0, 7), (1, 8), (2, 9), (3, 10)]
    assert len({picture.array.tobytes() for picture in pictures}) == 4
    for picture in pictures:
        single = parameters(seed=picture.seed, scheduler="Euler a")
        assert np.array_equal(picture.array, plain(single).picture)


def test_seed_wraps_behind_the_last_one(family: Family, parameters: Make) -> None:
    """Seeds live in 0 … 2**64 - 1; the one after the last is 0."""
    last = parameters(seed=2**64 - 1, num_images=2)
    first = family.prepare(last, 0)
    assert first.seed == 2**64 - 1
    wrapped = family.prepare(last, 1)
    assert wrapped.seed == 0
    first.close()
    assert end(family, wrapped).same(end(family, family.prepare(parameters(seed=0), 0)))
