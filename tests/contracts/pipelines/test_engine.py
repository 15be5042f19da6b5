"""What the engine promises beside equal bits: progress, cancel, memory, errors, counters."""

import gc
import threading
import weakref
from collections.abc import Callable
from typing import Any

import greenlet
import numpy as np
import psutil
import pytest
import torch

from jobs.contract import Txt2ImgParameters
from jobs.errors import DrawingFailed, OutOfMemory, PictureInvalid
from pipelines.engine.state import State
from pipelines.families.base import Family

Make = Callable[..., Txt2ImgParameters]


def draw(family: Family, state: State) -> bytes:
    """Step to the end and close; return the picture's bytes."""
    while state.phase == "denoise":
        assert not family.step([state]).errors
    (picture,) = family.finish([state])
    state.close()
    return picture.array.tobytes()


@pytest.mark.parametrize(
    ("scheduler", "steps", "calls"),
    [
        ("Euler", 4, [1, 2, 3, 4]),
        ("Heun", 3, [0, 1, 1, 2, 3]),
        ("DPM2 a", 3, [0, 1, 1, 2, 3]),
        ("PLMS", 3, [0, 1, 2, 3]),
        ("LCM", 4, [1, 2, 3, 4]),
        ("Euler", 1, [1]),
        ("Heun", 1, [1]),
    ],
)
def test_progress_counts_steps_as_the_user_does(
    family: Family, parameters: Make, scheduler: str, steps: int, calls: list[int]
) -> None:
    """Second-order schedulers call twice per step, PLMS once more, and the total stays what was asked for."""
    state = family.prepare(parameters(scheduler=scheduler, steps=steps), 0)
    assert (state.step, state.total, state.phase) == (0, steps, "denoise")
    seen = []
    while state.phase == "denoise":
        family.step([state])
        seen.append(state.step)
    assert seen == calls
    phases = [state.phase]
    assert family.counters.denoise_calls == len(calls)
    family.finish([state])
    phases.append(state.phase)
    assert phases == ["decode", "done"]
    state.close()


@pytest.mark.parametrize("scheduler", ["Euler", "Heun", "DPM++ 2M Karras", "PLMS"])
def test_cost_foretells_the_calls(family: Family, parameters: Make, scheduler: str) -> None:
    """Admission may rely on the number of rows and, but for the odd warm-up, calls."""
    wanted = parameters(scheduler=scheduler, steps=5)
    cost = family.cost(wanted)
    draw(family, family.prepare(wanted, 0))
    assert family.counters.denoise_rows == cost.rows * family.counters.denoise_calls
    assert family.counters.denoise_calls - cost.calls in {0, 1}
    assert family.cost(parameters(guidance_scale=1.0)).rows == 1
    assert family.cost(parameters(width=64)).bytes == 2 * family.cost(parameters()).bytes


def test_step_leaves_finished_states_where_they_are(family: Family, parameters: Make) -> None:
    """States of different lengths can be stepped together to the end of the longest."""
    short, long = family.prepare(parameters(steps=2), 0), family.prepare(parameters(steps=5, seed=8), 0)
    while long.phase == "denoise":
        assert not family.step([short, long]).errors
    assert family.counters.denoise_calls == 7
    assert len(family.finish([short, long])) == 2
    assert len(family.finish([long, short])) == 2
    assert family.counters.decodes == 2
    short.close()
    long.close()


def test_close_frees_a_paused_run_at_once(family: Family, parameters: Make) -> None:
    """Cancel leaves nothing for the cycle collector: device memory is free when close returns."""
    gc.collect()
    gc.disable()
    try:
        for steps_taken in (0, 2, 4):
            state = family.prepare(parameters(), 0)
            for _ in range(steps_taken):
                family.step([state])
            body: Any = state._body  # noqa: SLF001 - it is the body that must go
            watched = [weakref.ref(body._pipe), weakref.ref(body.scheduler), weakref.ref(body._greenlet)]  # noqa: SLF001
            if body.latents is not None:
                watched.append(weakref.ref(body.latents))
            del body
            state.close()
            state.close()
            assert [ref() for ref in watched] == [None] * len(watched)
            assert not family.open_states
    finally:
        gc.enable()


def test_close_leaves_no_greenlet_behind(family: Family, parameters: Make) -> None:
    """Neither cancelled nor finished nor broken runs stay."""

    def count() -> int:
        return sum(issubclass(type(each), greenlet.greenlet) for each in gc.get_objects())

    gc.collect()
    before = count()
    for index in range(5):
        paused = family.prepare(parameters(), index)
        family.step([paused])
        draw(family, family.prepare(parameters(steps=1), index))
        with pytest.raises(DrawingFailed):
            family.prepare(parameters(width=60, height=62), index)
        paused.close()
    assert count() == before


def test_family_close_closes_what_is_open(loaded: Family, parameters: Make) -> None:
    """Unloading a model stops its runs."""
    family = type(loaded)(loaded.pipe, loaded.entry, loaded.preview_matrix, loaded.counters, loaded.shelf)
    states = [family.prepare(parameters(), index) for index in range(3)]
    family.close()
    family.close()
    assert not family.open_states
    assert all(state.ask is None for state in states)


def test_grad_mode_is_left_alone(family: Family, parameters: Make) -> None:
    """Pausing, ending and cancelling in any order neither switch gradients off outside nor on inside."""
    assert torch.is_grad_enabled()
    first, second, third = (family.prepare(parameters(steps=3 + index), index) for index in range(3))
    seen: list[bool] = []
    handle = family.pipe.unet.register_forward_hook(lambda *_: seen.append(torch.is_grad_enabled()))
    family.step([first, second, third])
    third.close()
    draw(family, first)
    draw(family, second)
    handle.remove()
    assert torch.is_grad_enabled()
    assert seen
    assert not any(seen)


def test_failed_model_call_can_be_tried_again(
    family: Family, parameters: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Out of memory leaves the run where it was: with room made, it goes on to the same bits."""
    wanted = draw(family, family.prepare(parameters(), 0))
    state, neighbour = family.prepare(parameters(), 0), family.prepare(parameters(seed=5), 0)
    family.step([state, neighbour])
    held: list[weakref.ref[Any]] = []

    def fail(*_args: Any, **_kwargs: Any) -> None:
        activations = torch.zeros(1000)
        held.append(weakref.ref(activations))
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")

    with monkeypatch.context() as patch:
        patch.setattr(family.pipe.unet, "forward", fail)
        report = family.step([state, neighbour])
    assert {type(failure) for failure in report.errors.values()} == {OutOfMemory}
    assert [ref() for ref in held] == [None, None]
    assert (state.step, neighbour.step, state.failure) == (1, 1, None)
    neighbour.close()
    assert draw(family, state) == wanted


def test_numbers_that_are_no_picture_are_told(
    family: Family, parameters: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A NaN from the decoder fails its own state; the other's picture is kept."""
    bad, good = family.prepare(parameters(), 0), family.prepare(parameters(), 1)
    while good.phase == "denoise":
        family.step([bad, good])
    decode = family.pipe.vae.decode
    calls: list[int] = []

    def broken(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        (image,) = decode(*args, **kwargs)
        return (image * float("nan"),) if len(calls) == 1 else (image,)

    with monkeypatch.context() as patch:
        patch.setattr(family.pipe.vae, "decode", broken)
        with pytest.raises(PictureInvalid):
            family.finish([bad, good])
    assert isinstance(bad.failure, PictureInvalid)
    (picture,) = family.finish([good])
    assert picture.index == 1
    assert len(calls) == 2
    bad.close()
    good.close()


def test_finish_refuses_a_run_that_is_not_over(family: Family, parameters: Make) -> None:
    """Finishing early is a mistake of the caller, said as such."""
    state = family.prepare(parameters(), 0)
    with pytest.raises(RuntimeError, match="decode"):
        family.finish([state])
    state.close()


def test_prepare_says_what_is_wrong(family: Family, parameters: Make) -> None:
    """A size or scheduler the pipeline cannot use is a failure with words, not a crash."""
    with pytest.raises(DrawingFailed, match="divisible by 8"):
        family.prepare(parameters(width=60), 0)
    with pytest.raises(DrawingFailed, match="nope"):
        family.prepare(parameters(scheduler="nope"), 0)
    assert not family.open_states


def test_state_belongs_to_its_thread(family: Family, parameters: Make) -> None:
    """Another thread is refused, and has not harmed the run."""
    wanted = draw(family, family.prepare(parameters(), 0))
    state = family.prepare(parameters(), 0)
    errors: list[Exception] = []

    def meddle() -> None:
        for call in (lambda: family.step([state]), state.close):
            try:
                call()
            except RuntimeError as error:
                errors.append(error)

    thread = threading.Thread(target=meddle)
    thread.start()
    thread.join()
    assert len(errors) == 2
    assert draw(family, state) == wanted


def test_many_paused_runs_take_little_memory(family: Family, parameters: Make) -> None:
    """200 paused runs cost their latents and a stack each, and give it back."""
    process = psutil.Process()
    warm = [family.prepare(parameters(), index) for index in range(20)]
    family.step(warm)
    for state in warm:
        state.close()
    gc.collect()
    before = process.memory_info().rss
    states = [family.prepare(parameters(), index % 64) for index in range(200)]
    family.step(states)
    assert process.memory_info().rss - before < 100 * 2**20
    for state in states:
        state.close()
    gc.collect()
    assert process.memory_info().rss - before < 50 * 2**20
    assert not family.open_states


def test_previews_change_and_cost_no_decode(family: Family, parameters: Make) -> None:
    """Every step shows something else, without the VAE."""
    state = family.prepare(parameters(steps=5), 0)
    assert state.preview() is None
    shown = []
    while state.phase == "denoise":
        family.step([state])
        preview = state.preview()
        assert preview is not None
        assert preview.shape == (32, 32, 3)
        assert preview.dtype == np.uint8
        shown.append(preview.tobytes())
    assert len(set(shown)) == 5
    assert family.counters.decodes == 0
    state.close()
