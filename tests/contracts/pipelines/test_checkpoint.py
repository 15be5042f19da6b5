"""Checkpoints as data: what is in the bytes, and what is refused."""

import io
from collections.abc import Callable
from typing import Any

import diffusers
import numpy as np
import pytest
import torch

from jobs.contract import Txt2ImgParameters
from pipelines.engine import checkpoint as module
from pipelines.engine.checkpoint import Checkpoint, CheckpointMismatchError, CheckpointUnavailableError
from pipelines.families.base import Family

Make = Callable[..., Txt2ImgParameters]


def keep(family: Family, parameters: Txt2ImgParameters, steps: int = 2) -> bytes:
    """Return a checkpoint taken after some steps."""
    state = family.prepare(parameters, 0)
    for _ in range(steps):
        family.step([state])
    data = state.checkpoint().to_bytes()
    state.close()
    return data


def test_checkpoint_is_plain_data_and_small(family: Family, parameters: Make) -> None:
    """No pickled code, the diffusers version inside, and little beside the latents."""
    data = keep(family, parameters(scheduler="UniPC"))
    content = torch.load(io.BytesIO(data), weights_only=True)
    assert content["diffusers"] == diffusers.__version__
    latents = content["latents"].numel() * 4
    # UniPC keeps two model outputs and the last sample beside the latents.
    assert len(data) < 4 * latents + 30_000


def test_checkpoint_holds_what_changed_alone(family: Family, parameters: Make) -> None:
    """Of Euler's attributes only its place in the schedule is written."""
    state = family.prepare(parameters(), 0)
    family.step([state])
    assert set(state.checkpoint().scheduler) <= {"_step_index", "is_scale_input_called"}
    state.close()


def test_checkpoint_exists_between_steps_only(family: Family, parameters: Make) -> None:
    """Before the first step there is nothing to keep, after the end nothing to resume."""
    state = family.prepare(parameters(steps=1), 0)
    with pytest.raises(CheckpointUnavailableError):
        state.checkpoint()
    family.step([state])
    state.checkpoint()
    family.finish([state])
    with pytest.raises(CheckpointUnavailableError):
        state.checkpoint()
    state.close()


@pytest.mark.parametrize(
    "change", [{"seed": 8}, {"prompt": "a blue circle"}, {"steps": 5}, {"scheduler": "Euler a"}, {"width": 64}]
)
def test_checkpoint_of_another_request_is_refused(family: Family, parameters: Make, change: dict[str, Any]) -> None:
    """Resuming something else would draw a chimera."""
    kept = Checkpoint.from_bytes(keep(family, parameters()))
    with pytest.raises(CheckpointMismatchError):
        family.prepare(parameters(**change), 0, resume=kept)
    assert not family.open_states


def test_checkpoint_of_another_model_is_refused(family: Family, loaded: Family, parameters: Make) -> None:
    """The same name over other bytes is another model."""
    kept = Checkpoint.from_bytes(keep(family, parameters()))
    other = type(loaded)(
        loaded.pipe,
        loaded.entry.model_copy(update={"fingerprint": "1" * 64}),
        loaded.preview_matrix,
        loaded.counters,
        loaded.shelf,
    )
    with pytest.raises(CheckpointMismatchError):
        other.prepare(parameters(), 0, resume=kept)


def test_checkpoint_may_move_to_a_job_that_draws_the_same(family: Family, parameters: Make) -> None:
    """Labels, priority and the number of pictures do not change a picture's bits."""
    kept = Checkpoint.from_bytes(keep(family, parameters()))
    state = family.prepare(parameters(labels={"a": "b"}, num_images=3, priority=0), 0, resume=kept)
    assert state.step == 2
    state.close()


def test_checkpoint_of_another_diffusers_is_refused(
    family: Family, parameters: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A scheduler's attributes mean nothing to another version."""
    data = keep(family, parameters())
    monkeypatch.setattr(diffusers, "__version__", "0.1.0")
    with pytest.raises(CheckpointMismatchError, match=r"0\.1\.0"):
        Checkpoint.from_bytes(data)


def test_damaged_checkpoint_is_refused(family: Family, parameters: Make) -> None:
    """Cut, empty or foreign bytes are told, never run."""
    data = keep(family, parameters())
    foreign = io.BytesIO()
    torch.save({"format": 1}, foreign)
    for bad in (b"", b"no zip", data[: len(data) // 2], foreign.getvalue()):
        with pytest.raises(CheckpointMismatchError):
            Checkpoint.from_bytes(bad)


def test_scheduler_values_survive_the_round_trip() -> None:
    """Tensors, arrays, numbers, lists and tuples come back as they were; objects are refused by name."""

    class Fake:
        def __init__(self) -> None:
            self.same = torch.arange(3)
            self.history: list[Any] = [None]

    scheduler = Fake()
    before = module.snapshot(scheduler)
    scheduler.history[0] = torch.ones(2, dtype=torch.float16)
    values: dict[str, Any] = {"a": np.arange(3.0), "b": (1, None, "x"), "c": np.float32(0.5), "d": True}
    vars(scheduler).update(values)
    changed = module.changes(scheduler, before)
    assert set(changed) == {"history", *values}
    other = Fake()
    module.restore(other, module.snapshot(other), changed, torch.device("cpu"))
    assert other.history[0].dtype == torch.float16
    assert np.array_equal(vars(other)["a"], values["a"])
    assert {name: vars(other)[name] for name in "bcd"} == {name: values[name] for name in "bcd"}
    vars(scheduler)["opaque"] = object()
    with pytest.raises(CheckpointUnavailableError, match="opaque"):
        module.changes(scheduler, before)
