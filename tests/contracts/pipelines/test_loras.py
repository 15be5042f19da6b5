"""LoRA stacks: alone, together and taking turns, and that they leave no trace."""

import gc
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from jobs.contract import Txt2ImgParameters
from pipelines.engine.checkpoint import Checkpoint, CheckpointMismatchError
from pipelines.families.base import Family
from pipelines.loaders import LOADERS
from pipelines.shelf import Shelf
from tests.contracts.pipelines.lora_jobs import draw, entry_of, finish, inputs_of, loras, with_own_shelf
from tests.lora_layouts import make, write_kohya

Make = Callable[..., Txt2ImgParameters]


@pytest.fixture
def family(family: Family) -> Family:
    """Return a family with a shelf of its own, so that loads are counted from none."""
    return with_own_shelf(family)


@pytest.fixture
def style(family: Family, tmp_path: Path) -> Path:
    """Return a LoRA for both components."""
    return write_kohya(make("lora", family.pipe.unet, family.pipe.text_encoder, seed=1), tmp_path / "style.safetensors")


@pytest.fixture
def other(family: Family, tmp_path: Path) -> Path:
    """Return a LoHa for the UNet alone."""
    return write_kohya(make("loha", family.pipe.unet, seed=2), tmp_path / "other.safetensors")


def test_switching_is_free_and_leaves_no_trace(family: Family, parameters: Make, style: Path, other: Path) -> None:
    """Off, A, B, A, off: the same bits whenever it is the same stack, and every file is read once."""
    stacks = [[], loras((style, 1.0)), loras((other, 1.0))]
    pictures = [
        draw(family, parameters(steps=2, loras=stacks[turn]), inputs_of(style, other)) for turn in (0, 1, 2, 1, 0)
    ]
    assert pictures[0] == pictures[4]
    assert pictures[1] == pictures[3]
    assert len(set(pictures)) == 3
    assert family.counters.component_loads == 2


def test_no_weight_is_written(family: Family, parameters: Make, style: Path, other: Path) -> None:
    """The base keeps its bits and its storage while stacks come and go, also when a run is left in the middle."""
    tensors = {
        name: tensor
        for part in ("unet", "text_encoder")
        for name, tensor in getattr(family.pipe, part).state_dict().items()
    }
    before = {name: (tensor.data_ptr(), tensor.clone()) for name, tensor in tensors.items()}
    draw(family, parameters(steps=2, loras=loras((style, 1.0), (other, -2.0))), inputs_of(style, other))
    state = family.prepare(parameters(loras=loras((style, 1.0))), 0, inputs_of(style))
    family.step([state])
    state.close()
    for name, (pointer, kept) in before.items():
        assert tensors[name].data_ptr() == pointer
        assert torch.equal(tensors[name], kept)


def test_closed_family_leaves_no_hook(family: Family, parameters: Make, style: Path) -> None:
    """The modules are as they were before, and a model that saw no LoRA never had a hook."""

    def hooks() -> int:
        parts = (family.pipe.unet, family.pipe.text_encoder)
        return sum(len(module._forward_hooks) for part in parts for module in part.modules())  # noqa: SLF001

    # transformers leaves its own once it was asked for hidden states.
    before = hooks()
    draw(family, parameters(steps=1))
    assert hooks() == before
    for _ in range(2):
        draw(family, parameters(steps=1, loras=loras((style, 1.0))), inputs_of(style))
    layers = hooks() - before
    assert layers == len([name for name in load_file(style) if name.endswith(".alpha")])
    family.adapters.close()
    assert hooks() == before


def test_interleaved_stacks_equal_solo(family: Family, parameters: Make, style: Path, other: Path) -> None:
    """Jobs with different stacks take turns step by step, beside one that is cancelled, and none sees another's."""
    handed = inputs_of(style, other)
    wanted = [
        parameters(),
        parameters(loras=loras((style, 1.0))),
        parameters(loras=loras((other, 0.7)), seed=9),
        parameters(loras=loras((other, 0.5), (style, -0.5)), scheduler="Euler a"),
    ]
    solo = [draw(family, each, handed) for each in wanted]
    assert len(set(solo)) == 4
    states = [family.prepare(each, 0, handed) for each in wanted]
    neighbour = family.prepare(parameters(loras=loras((style, 2.0))), 0, handed)
    family.step([*states, neighbour])
    neighbour.close()
    for state in reversed(states):
        family.step([state])
    while any(state.phase == "denoise" for state in states):
        assert not family.step(states).errors
    assert [finish(family, state) for state in states] == solo


def test_failed_call_leaves_no_stack_behind(
    family: Family, parameters: Make, style: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After an error in the middle of a call the next job draws its own bits."""
    base = draw(family, parameters())
    state = family.prepare(parameters(loras=loras((style, 1.0))), 0, inputs_of(style))

    def fail(*_args: Any, **_kwargs: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(family.pipe.unet.conv_out, "forward", fail)
        assert family.step([state]).errors
    assert draw(family, parameters()) == base
    state.close()


def test_order_of_a_stack_changes_no_bit(family: Family, parameters: Make, style: Path, other: Path) -> None:
    """A stack is a set: the same LoRAs in another order draw the same picture."""
    handed = inputs_of(style, other)
    one = parameters(steps=2, loras=loras((style, 0.3), (other, 0.7)))
    two = parameters(steps=2, loras=loras((other, 0.7), (style, 0.3)))
    assert draw(family, one, handed) == draw(family, two, handed)


def test_weight_zero_is_the_base(family: Family, parameters: Make, style: Path) -> None:
    """Nothing is added, bit for bit; the text encoder's weight follows unless it is given."""
    base = draw(family, parameters(steps=2))
    assert draw(family, parameters(steps=2, loras=loras((style, 0.0))), inputs_of(style)) == base
    assert draw(family, parameters(steps=2, loras=loras((style, 0.0, 1.0))), inputs_of(style)) != base
    full = draw(family, parameters(steps=2, loras=loras((style, 1.0))), inputs_of(style))
    assert draw(family, parameters(steps=2, loras=loras((style, 1.0, 1.0))), inputs_of(style)) == full
    assert draw(family, parameters(steps=2, loras=loras((style, 1.0, 0.0))), inputs_of(style)) not in {base, full}


def test_files_of_equal_content_are_one(family: Family, parameters: Make, style: Path) -> None:
    """Under two names they are loaded once."""
    twin = style.with_name("twin.safetensors")
    twin.write_bytes(style.read_bytes())
    handed = inputs_of(style, twin)
    one = draw(family, parameters(steps=1, loras=loras((style, 0.5))), handed)
    assert draw(family, parameters(steps=1, loras=loras((twin, 0.5))), handed) == one
    assert family.counters.component_loads == 1
    assert family.shelf.bytes > 0


def test_what_left_the_shelf_is_free(family: Family, parameters: Make, style: Path) -> None:
    """Hooks and bindings hold no LoRA: evicted and used by no run, it is gone at once."""
    draw(family, parameters(steps=1, loras=loras((style, 1.0))), inputs_of(style))
    lora = family.shelf.take(entry_of(style))
    watched = [weakref.ref(lora), *(weakref.ref(delta) for layers in lora.deltas.values() for delta in layers.values())]
    del lora
    gc.collect()
    assert all(ref() is not None for ref in watched)
    family.shelf.clear()
    gc.collect()
    assert not [ref for ref in watched if ref() is not None]


def test_checkpoint_resumes_under_its_stack_and_no_other(
    family: Family, parameters: Make, style: Path, other: Path
) -> None:
    """A run goes on to the same bits from its checkpoint; a file replaced under the same name is another job's."""
    wanted = parameters(loras=loras((style, 0.8)))
    solo = draw(family, wanted, inputs_of(style))
    state = family.prepare(wanted, 0, inputs_of(style))
    family.step([state])
    kept = Checkpoint.from_bytes(state.checkpoint().to_bytes())
    state.close()
    assert finish(family, family.prepare(wanted, 0, inputs_of(style), resume=kept)) == solo
    style.write_bytes(other.read_bytes())
    with pytest.raises(CheckpointMismatchError):
        family.prepare(wanted, 0, inputs_of(style), resume=kept)


def test_half_precision_model_takes_half_precision_loras(family: Family, style: Path) -> None:
    """A LoRA lies on the shelf at the model's precision."""
    shelf = Shelf(LOADERS, torch.device("cpu"), torch.bfloat16, family.counters)
    lora = shelf.take(entry_of(style))
    assert {delta.down.dtype for layers in lora.deltas.values() for delta in layers.values()} == {torch.bfloat16}
    assert lora.bytes * 2 == family.shelf.take(entry_of(style)).bytes
