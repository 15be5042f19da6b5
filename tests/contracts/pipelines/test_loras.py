"""LoRA stacks: what they add, in every layout, alone, together and taking turns, and that they leave no trace."""

import copy
import gc
import hashlib
import json
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from jobs.contract import Txt2ImgParameters
from jobs.errors import ModelDamaged, ModelMissing
from jobs.inputs import Inputs
from models_registry.entries import Kind, Layout, ModelEntry
from pipelines.engine.checkpoint import Checkpoint, CheckpointMismatchError
from pipelines.engine.state import State
from pipelines.families.base import Family
from pipelines.loaders import LOADERS
from pipelines.prompts import prompt_embeddings
from pipelines.shelf import Shelf
from tests.lora_layouts import ALPHA, MAKERS, RANK, Made, make, write_diffusers, write_kohya

Make = Callable[..., Txt2ImgParameters]
Put = dict[str, dict[str, Made]]


def entry_of(path: Path) -> ModelEntry:
    """Describe a LoRA as the registry would."""
    digest = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "0" * 64
    return ModelEntry(
        name=path.stem,
        kind=Kind.LORA,
        layout=Layout.SINGLE_FILE,
        family="sd15",
        path=path,
        fingerprint=digest,
        components=(),
    )


def inputs_of(*paths: Path) -> Inputs:
    """Hand LoRAs over under the names of their files."""
    entries = [entry_of(path) for path in paths]
    return Inputs({entry.ref: entry for entry in entries})


@pytest.fixture
def family(family: Family) -> Family:
    """Return a family with a shelf of its own, so that loads are counted from none."""
    family.shelf = Shelf(LOADERS, torch.device("cpu"), torch.float32, family.counters)
    family.adapters = type(family.adapters)(family.pipe, family.shelf)
    return family


@pytest.fixture
def style(family: Family, tmp_path: Path) -> Path:
    """Return a LoRA for both components."""
    return write_kohya(make("lora", family.pipe.unet, family.pipe.text_encoder, seed=1), tmp_path / "style.safetensors")


@pytest.fixture
def other(family: Family, tmp_path: Path) -> Path:
    """Return a LoHa for the UNet alone."""
    return write_kohya(make("loha", family.pipe.unet, seed=2), tmp_path / "other.safetensors")


def finish(family: Family, state: State) -> bytes:
    """Step to the end, and return latents and picture."""
    while state.phase == "denoise":
        assert not family.step([state]).errors
    latents = state._body.latents  # noqa: SLF001 - the picture's 8 bits would hide a difference
    assert latents is not None
    kept = latents.numpy().tobytes()
    (picture,) = family.finish([state])
    state.close()
    return kept + picture.array.tobytes()


def draw(family: Family, parameters: Txt2ImgParameters, inputs: Inputs | None = None) -> bytes:
    """Draw one picture."""
    return finish(family, family.prepare(parameters, 0, inputs or Inputs()))


def loras(*weighted: tuple[Path, float] | tuple[Path, float, float]) -> list[dict[str, Any]]:
    """Write a stack as a request does."""
    names = ("name", "weight", "text_encoder_weight")
    return [dict(zip(names, (path.stem, *weights), strict=False)) for path, *weights in weighted]


def answer(family: Family, parameters: Txt2ImgParameters, inputs: Inputs) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the prompt's embeddings and one answer of the UNet under a job's stack."""
    generator = torch.Generator().manual_seed(5)
    sample = torch.randn(1, 4, 16, 16, generator=generator)
    hidden = torch.randn(1, 77, 32, generator=generator)
    with torch.no_grad():
        adapted = family.adapters.adapt(parameters, inputs)
        with adapted.applied():
            return adapted.embeddings["prompt_embeds"], family.pipe.unet(sample, 500, hidden)[0]


def merged(family: Family, parameters: Txt2ImgParameters, stack: Sequence[tuple[Put, float, float]]) -> tuple[Any, Any]:
    """Return the same as `answer`, with everything worked into copies of the weights by hand."""
    # Hooks would be copied along with the modules.
    family.adapters.close()
    pipe = copy.copy(family.pipe)
    for component in ("unet", "text_encoder"):
        module = copy.deepcopy(getattr(family.pipe, component))
        for made, unet_weight, text_weight in stack:
            weight = unet_weight if component == "unet" else text_weight
            for path, (_, delta) in made[component].items():
                module.get_submodule(path).weight.data += weight * delta
        vars(pipe)[component] = module
    generator = torch.Generator().manual_seed(5)
    sample = torch.randn(1, 4, 16, 16, generator=generator)
    hidden = torch.randn(1, 77, 32, generator=generator)
    with torch.no_grad():
        embeddings = prompt_embeddings(pipe, parameters.prompt, None)["prompt_embeds"]
        return embeddings, pipe.unet(sample, 500, hidden)[0]


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("weight", [0.8, -0.5])
def test_every_kind_adds_what_its_formula_says(
    family: Family, parameters: Make, tmp_path: Path, kind: str, weight: float
) -> None:
    """Added to the outputs or worked into the weights by hand is the same, for linear layers and convolutions, of either sign."""
    made = make(kind, family.pipe.unet, family.pipe.text_encoder)
    path = write_kohya(made, tmp_path / "it.safetensors")
    wanted = parameters(loras=loras((path, weight)))
    base = answer(family, parameters(), Inputs())
    for found, by_hand, plain in zip(
        answer(family, wanted, inputs_of(path)), merged(family, wanted, [(made, weight, weight)]), base, strict=True
    ):
        assert torch.allclose(found, by_hand, atol=1e-5, rtol=1e-4)
        assert not torch.allclose(found, plain, atol=1e-2)


def test_stack_adds_up_with_weights_of_its_own_for_the_text_encoder(
    family: Family, parameters: Make, tmp_path: Path
) -> None:
    """Two LoRAs, each with two weights, are the sum of both in each component."""
    one, two = (make("lora", family.pipe.unet, family.pipe.text_encoder, seed=seed) for seed in (1, 2))
    paths = [write_kohya(made, tmp_path / f"{name}.safetensors") for name, made in (("one", one), ("two", two))]
    wanted = parameters(loras=loras((paths[0], 0.5, -1.0), (paths[1], 0.25, 0.75)))
    found = answer(family, wanted, inputs_of(*paths))
    for each, by_hand in zip(found, merged(family, wanted, [(one, 0.5, -1.0), (two, 0.25, 0.75)]), strict=True):
        assert torch.allclose(each, by_hand, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    "ends",
    [
        (".lora_A.weight", ".lora_B.weight"),
        (".lora.down.weight", ".lora.up.weight"),
        (".lora_linear_layer.down.weight", ".lora_linear_layer.up.weight"),
    ],
)
def test_layouts_of_diffusers_equal_kohyas(
    family: Family, parameters: Make, tmp_path: Path, ends: tuple[str, str]
) -> None:
    """The same numbers under other names draw the same bits; alpha 2 of rank 4 is a half, which loses none."""
    made = make("lora", family.pipe.unet, family.pipe.text_encoder)
    first = write_kohya(made, tmp_path / "kohya.safetensors")
    second = write_diffusers(made, tmp_path / "diffusers.safetensors", ends)
    pictures = {
        draw(family, parameters(steps=2, loras=loras((path, 0.5))), inputs_of(path)) for path in (first, second)
    }
    assert len(pictures) == 1
    assert draw(family, parameters(steps=2)) not in pictures


def test_original_block_names_equal_those_of_diffusers(family: Family, parameters: Make, tmp_path: Path) -> None:
    """`input_blocks_4_1` is `down_blocks_1_attentions_0`: the same bits, and the text encoder's part with it."""
    made = make("lora", family.pipe.unet, family.pipe.text_encoder)
    first = write_kohya(made, tmp_path / "new.safetensors")
    second = write_kohya(made, tmp_path / "old.safetensors", original=True)
    assert any("input_blocks" in name for name in load_file(second))
    pictures = {
        draw(family, parameters(steps=2, loras=loras((path, 1.0))), inputs_of(path)) for path in (first, second)
    }
    assert len(pictures) == 1


def test_attention_processors_of_the_first_layout_are_read(family: Family, parameters: Make, tmp_path: Path) -> None:
    """`attn1.processor.to_out_lora` without a component is `attn1.to_out.0` of the UNet."""
    made = make("lora", family.pipe.unet)
    kept: Put = {
        "unet": {path: each for path, each in made["unet"].items() if ".attn1.to_" in path},
        "text_encoder": {},
    }
    first = write_diffusers(kept, tmp_path / "new.safetensors")
    renamed = {}
    for name, tensor in load_file(first).items():
        old = name.removeprefix("unet.").replace(".to_out.0", ".to_out").replace("attn1.", "attn1.processor.")
        renamed[old.replace(".lora_A", "_lora.down").replace(".lora_B", "_lora.up")] = tensor
    second = tmp_path / "old.safetensors"
    save_file(renamed, second)
    pictures = {
        draw(family, parameters(steps=2, loras=loras((path, 1.0))), inputs_of(path)) for path in (first, second)
    }
    assert len(pictures) == 1


@pytest.mark.parametrize(
    ("config", "scale"),
    [
        ({"lora_alpha": ALPHA}, ALPHA / RANK),
        ({"lora_alpha": ALPHA, "use_rslora": True}, ALPHA / RANK**0.5),
        ({"lora_alpha": 1, "alpha_pattern": {"to_q": 8}}, None),
        ({}, 1.0),
    ],
)
def test_alpha_of_pefts_configuration_counts(
    family: Family, parameters: Make, tmp_path: Path, config: dict[str, Any], scale: float | None
) -> None:
    """What diffusers writes beside the tensors scales them; without it they are taken as they are."""
    made = make("lora", family.pipe.unet)
    plain = write_diffusers(made, tmp_path / "plain.safetensors")
    told = tmp_path / "told.safetensors"
    metadata = {"lora_adapter_metadata": json.dumps({f"unet.{name}": value for name, value in config.items()})}
    save_file(load_file(plain), told, metadata)

    def scaled(path: str) -> float:
        # On top of what `write_diffusers` and `delta` hold both.
        return (8 if path.endswith("to_q") else 1) / RANK if scale is None else scale

    hand: Put = {
        "unet": {path: (parts, delta * scaled(path)) for path, (parts, delta) in made["unet"].items()},
        "text_encoder": {},
    }
    wanted = parameters(loras=loras((told, 1.0)))
    found = answer(family, wanted, inputs_of(told))[1]
    assert torch.allclose(found, merged(family, wanted, [(hand, 1.0, 1.0)])[1], atol=1e-5, rtol=1e-4)


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
    """The modules are as they were read, and a model that saw no LoRA never had a hook."""

    def hooks() -> int:
        parts = (family.pipe.unet, family.pipe.text_encoder)
        return sum(len(module._forward_hooks) for part in parts for module in part.modules())  # noqa: SLF001

    draw(family, parameters(steps=1))
    assert hooks() == 0
    for _ in range(2):
        draw(family, parameters(steps=1, loras=loras((style, 1.0))), inputs_of(style))
    layers = hooks()
    assert layers == len([name for name in load_file(style) if name.endswith(".alpha")])
    family.adapters.close()
    assert hooks() == 0


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


def _rename(weights: dict[str, torch.Tensor], end: str, to: str) -> str:
    """Rename the first tensor that ends so; return its new name."""
    name = min(each for each in weights if each.endswith(end))
    new = name.removesuffix(end) + to
    weights[new] = weights.pop(name)
    return new


def _unknown(weights: dict[str, torch.Tensor]) -> str:
    return _rename(weights, ".alpha", ".beta")


def _foreign_component(weights: dict[str, torch.Tensor]) -> str:
    weights["lora_te1_text_model_encoder_layers_0_mlp_fc1.alpha"] = torch.tensor(1.0)
    return "lora_te1_text_model_encoder_layers_0_mlp_fc1.alpha"


def _no_such_layer(weights: dict[str, torch.Tensor]) -> str:
    name = "lora_unet_down_blocks_7_attentions_0_proj_in"
    weights[f"{name}.lora_down.weight"], weights[f"{name}.lora_up.weight"] = torch.ones(4, 8), torch.ones(8, 4)
    return name


def _half_missing(weights: dict[str, torch.Tensor]) -> str:
    name = min(each for each in weights if each.endswith(".lora_up.weight"))
    del weights[name]
    return name.removesuffix(".lora_up.weight")


def _other_width(weights: dict[str, torch.Tensor]) -> str:
    name = max(each for each in weights if each.endswith("to_q.lora_down.weight"))
    weights[name] = torch.ones(RANK, 768)
    return name.removesuffix(".lora_down.weight")


def _ranks_differ(weights: dict[str, torch.Tensor]) -> str:
    name = min(each for each in weights if each.endswith("to_q.lora_down.weight"))
    weights[name] = torch.ones(RANK + 1, weights[name].shape[1])
    return name.removesuffix(".lora_down.weight")


def _no_number(weights: dict[str, torch.Tensor]) -> str:
    name = min(each for each in weights if each.endswith(".lora_up.weight"))
    weights[name][0] = float("nan")
    return name


def _dora(weights: dict[str, torch.Tensor]) -> str:
    return _rename(weights, ".alpha", ".dora_scale")


def _whole_numbers(weights: dict[str, torch.Tensor]) -> str:
    name = min(each for each in weights if each.endswith(".lora_up.weight"))
    weights[name] = weights[name].to(torch.int8)
    return name


def _long_alpha(weights: dict[str, torch.Tensor]) -> str:
    name = min(each for each in weights if each.endswith(".alpha"))
    weights[name] = torch.ones(3)
    return name


@pytest.mark.parametrize(
    "harm",
    [
        _unknown,
        _foreign_component,
        _no_such_layer,
        _half_missing,
        _other_width,
        _ranks_differ,
        _no_number,
        _dora,
        _whole_numbers,
        _long_alpha,
    ],
)
def test_what_is_no_lora_for_this_model_is_named(
    family: Family, parameters: Make, style: Path, harm: Callable[[dict[str, torch.Tensor]], str]
) -> None:
    """File and tensor are named, nothing is half applied, whatever it weighs, and the next job draws its own bits."""
    base = draw(family, parameters(steps=1))
    weights = load_file(style)
    tensor = harm(weights)
    save_file(weights, style)
    for weight in (1.0, 0.0):
        with pytest.raises(ModelDamaged) as caught:
            family.prepare(parameters(loras=loras((style, weight))), 0, inputs_of(style))
        assert str(style) in caught.value.message
        assert tensor in caught.value.message
    assert draw(family, parameters(steps=1)) == base


@pytest.mark.parametrize("content", [b"", b"{}", None])
def test_files_that_are_none_are_named(family: Family, parameters: Make, style: Path, content: bytes | None) -> None:
    """A cut, an empty and a missing file are told apart from a foreign one."""
    handed = inputs_of(style)
    style.write_bytes(style.read_bytes()[:-10] if content is None else content)
    with pytest.raises(ModelDamaged, match=r"style\.safetensors"):
        family.prepare(parameters(loras=loras((style, 1.0))), 0, handed)
    style.unlink()
    with pytest.raises(ModelMissing, match=r"style\.safetensors"):
        family.prepare(parameters(loras=loras((style, 1.0))), 0, handed)
    with pytest.raises(ModelMissing, match="nowhere"):
        family.prepare(parameters(loras=[{"name": "nowhere"}]), 0, handed)


def test_dora_of_pefts_configuration_is_refused(family: Family, parameters: Make, tmp_path: Path) -> None:
    """It is told as such, and not drawn as a LoRA."""
    plain = write_diffusers(make("lora", family.pipe.unet), tmp_path / "plain.safetensors")
    save_file(load_file(plain), plain, {"lora_adapter_metadata": json.dumps({"unet.use_dora": True})})
    with pytest.raises(ModelDamaged, match=r"plain\.safetensors is a DoRA"):
        family.prepare(parameters(loras=loras((plain, 1.0))), 0, inputs_of(plain))
