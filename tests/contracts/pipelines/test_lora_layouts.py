"""LoRA, LoCon, LoHa and LoKr in every layout: what they add is what their formulas say, under whichever names."""

import copy
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from jobs.contract import Txt2ImgParameters
from jobs.inputs import Inputs
from pipelines.families.base import Family
from pipelines.prompts import prompt_embeddings
from tests.contracts.pipelines.lora_jobs import draw, inputs_of, loras
from tests.lora_layouts import ALPHA, MAKERS, RANK, Made, make, write_diffusers, write_kohya

Make = Callable[..., Txt2ImgParameters]
Put = dict[str, dict[str, Made]]


def answer(family: Family, parameters: Txt2ImgParameters, inputs: Inputs) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the prompt's embeddings and one answer of the UNet under a job's stack."""
    generator = torch.Generator().manual_seed(5)
    sample = torch.randn(1, 4, 16, 16, generator=generator)
    hidden = torch.randn(1, 77, 32, generator=generator)
    with torch.no_grad():
        adapted = family.adapters.adapt(
            parameters, inputs, lambda _words: prompt_embeddings(family.pipe, parameters.prompt, None)
        )
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


def test_pefts_own_prefix_is_taken_off(family: Family, parameters: Make, tmp_path: Path) -> None:
    """A UNet that peft saves by itself begins every name with `base_model.model.` and names no component."""
    made = {"unet": make("lora", family.pipe.unet)["unet"], "text_encoder": {}}
    first = write_diffusers(made, tmp_path / "pipeline.safetensors")
    second = tmp_path / "peft.safetensors"
    save_file(
        {f"base_model.model.{name.removeprefix('unet.')}": each for name, each in load_file(first).items()}, second
    )
    pictures = {
        draw(family, parameters(steps=2, loras=loras((path, 1.0))), inputs_of(path)) for path in (first, second)
    }
    assert len(pictures) == 1
    assert draw(family, parameters(steps=2)) not in pictures


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
