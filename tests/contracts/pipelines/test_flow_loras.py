"""LoRAs of Stable Diffusion 3 and FLUX.1 in every layout: the same numbers under other names draw the same bits."""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from jobs.contract import Txt2ImgParameters
from jobs.errors import ModelDamaged
from jobs.inputs import Inputs
from pipelines.families.base import Family
from pipelines.loading import load
from pipelines.original.transformer_names import transformer_names
from tests.contracts.pipelines.flow_calls import entry_of
from tests.contracts.pipelines.lora_jobs import all_draw_alike, draw, inputs_of, loras, two_steps
from tests.tiny import transformers as tiny

Tensors = dict[str, torch.Tensor]
RANK, ALPHA = 4, 2.0
#: Layers that adapters for these models are trained on, by their original names.
_ENDS = (
    "qkv",
    "attn.proj",
    "attn2.proj",
    "mlp.0",
    "mlp.2",
    "mlp.fc1",
    "mlp.fc2",
    "linear1",
    "linear2",
    "mod.lin",
    "modulation.lin",
)


@pytest.fixture(scope="module", params=["sd3", "flux"])
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Family:
    """Return a tiny checkpoint of each family, loaded once."""
    folder = tmp_path_factory.mktemp("models")
    if request.param == "sd3":
        return load(entry_of(tiny.build_sd35_medium(folder / "tiny"), "sd3", "3.5-medium"), "cpu")
    return load(entry_of(tiny.build_flux_dev(folder / "tiny"), "flux", "dev"), "cpu")


@pytest.fixture
def family(loaded: Family) -> Iterator[Family]:
    """Return the family without a hook of another test."""
    yield loaded
    loaded.adapters.close()
    loaded.adapters = type(loaded.adapters)(loaded.pipe, loaded.shelf, loaded.hosted)


@pytest.fixture
def parameters() -> Callable[..., Txt2ImgParameters]:
    """Return a maker of jobs of two steps."""
    return two_steps(3.0)


def names_of(family: Family) -> Mapping[str, Sequence[str]]:
    """Return the layers that are trained here: original name → names in diffusers."""
    paths = [path for path, _ in family.pipe.transformer.named_modules()]
    return {name: layers for name, layers in transformer_names(paths).items() if name.endswith(_ENDS)}


def make(family: Family) -> Mapping[str, tuple[torch.Tensor, torch.Tensor]]:
    """Return random factors of each layer, by its original name: rank x inputs, outputs x rank."""
    generator = torch.Generator().manual_seed(5)
    made = {}
    for name, layers in names_of(family).items():
        weights = [family.pipe.transformer.get_submodule(layer).weight for layer in layers]
        rows = sum(weight.shape[0] for weight in weights)
        made[name] = tuple(
            torch.randn(*shape, generator=generator) * 0.3 for shape in ((RANK, weights[0].shape[1]), (rows, RANK))
        )
    return made  # type: ignore[return-value]


def _encoder_part() -> Tensors:
    """Return a LoRA of one layer of CLIP, as diffusers and kohya write it but for the names."""
    generator = torch.Generator().manual_seed(6)
    return {
        "down": torch.randn(RANK, tiny.CLIP_L, generator=generator),
        "up": torch.randn(tiny.CLIP_L, RANK, generator=generator),
    }


def write_kohya(made: Mapping[str, tuple[torch.Tensor, torch.Tensor]], path: Path) -> Path:
    """Write as kohya does: original names, queries, keys and values in one, alpha beside."""
    tensors: Tensors = {}
    for name, (down, up) in made.items():
        start = f"lora_unet_{name.replace('.', '_')}"
        tensors |= {f"{start}.lora_down.weight": down, f"{start}.lora_up.weight": up}
        tensors[f"{start}.alpha"] = torch.tensor(ALPHA)
    clip = _encoder_part()
    start = "lora_te1_text_model_encoder_layers_0_self_attn_q_proj"
    tensors |= {f"{start}.lora_down.weight": clip["down"], f"{start}.lora_up.weight": clip["up"]}
    tensors[f"{start}.alpha"] = torch.tensor(ALPHA)
    save_file(tensors, path)
    return path


def write_original(made: Mapping[str, tuple[torch.Tensor, torch.Tensor]], path: Path, prefix: str) -> Path:
    """Write as ComfyUI and the trainers of FLUX.1 do: original names with their dots, alpha worked in."""
    tensors: Tensors = {}
    for name, (down, up) in made.items():
        tensors |= {f"{prefix}{name}.lora_A.weight": down, f"{prefix}{name}.lora_B.weight": up * (ALPHA / RANK)}
    save_file({**tensors, **_clip_of_diffusers()}, path)
    return path


def _clip_of_diffusers() -> Tensors:
    clip = _encoder_part()
    start = "text_encoder.text_model.encoder.layers.0.self_attn.q_proj"
    return {f"{start}.lora_A.weight": clip["down"], f"{start}.lora_B.weight": clip["up"] * (ALPHA / RANK)}


def write_diffusers(
    family: Family, made: Mapping[str, tuple[torch.Tensor, torch.Tensor]], path: Path, prefix: str, join: str = "."
) -> Path:
    """Write as diffusers does: each layer by itself."""
    ends = (".lora_A.weight", ".lora_B.weight") if join == "." else (".lora_down.weight", ".lora_up.weight")
    tensors: Tensors = {}
    for name, layers in names_of(family).items():
        down, up = made[name]
        rows = [family.pipe.transformer.get_submodule(layer).weight.shape[0] for layer in layers]
        for layer, part in zip(layers, torch.split(up, rows), strict=True):
            start = prefix + layer.replace(".", join)
            tensors |= {f"{start}{ends[0]}": down.clone(), f"{start}{ends[1]}": part * (ALPHA / RANK)}
    save_file({**tensors, **_clip_of_diffusers()}, path)
    return path


def test_every_layout_draws_the_same_bits(
    family: Family, parameters: Callable[..., Txt2ImgParameters], tmp_path: Path
) -> None:
    """kohya's, ComfyUI's, the bare original's, diffusers', peft's: alpha 2 of rank 4 is a half, which loses none."""
    made = make(family)
    assert any(len(layers) > 1 for layers in names_of(family).values())
    paths = [
        write_kohya(made, tmp_path / "kohya.safetensors"),
        write_original(made, tmp_path / "comfy.safetensors", "diffusion_model."),
        write_original(made, tmp_path / "bare.safetensors", ""),
        write_diffusers(family, made, tmp_path / "diffusers.safetensors", "transformer."),
        write_diffusers(family, made, tmp_path / "plain.safetensors", ""),
        write_diffusers(family, made, tmp_path / "peft.safetensors", "base_model.model."),
        write_diffusers(family, made, tmp_path / "trainer.safetensors", "lora_transformer_", "_"),
    ]
    all_draw_alike(family, parameters, paths)


def test_it_adds_what_its_formula_says(
    family: Family, parameters: Callable[..., Txt2ImgParameters], tmp_path: Path
) -> None:
    """Added to the outputs or worked into the weights by hand is the same, and the model is as it was afterwards."""
    made = make(family)
    path = write_kohya(made, tmp_path / "it.safetensors")
    wanted = parameters(loras=loras((path, 0.8)))
    before = draw(family, parameters())
    merged = copy.deepcopy(family.pipe.transformer)
    for name, layers in names_of(family).items():
        down, up = made[name]
        modules = [merged.get_submodule(layer) for layer in layers]
        added = (up @ down) * (0.8 * ALPHA / RANK)
        for module, part in zip(modules, torch.split(added, [each.weight.shape[0] for each in modules]), strict=True):
            module.weight.data += part
    state = family.prepare(wanted, 0, inputs_of(path))
    assert state.ask is not None
    with torch.no_grad():
        with state.applied():
            found = state.ask.perform()[0]
        by_hand = merged(*state.ask.args, **state.ask.kwargs)[0]
        plain = state.ask.perform()[0]
    state.close()
    assert torch.allclose(found, by_hand, atol=1e-4, rtol=1e-3)
    assert not torch.allclose(found, plain, atol=1e-2)
    assert draw(family, parameters()) == before


def test_halves_are_those_with_room_for_large_numbers(
    loaded: Family, parameters: Callable[..., Txt2ImgParameters], tmp_path: Path
) -> None:
    """On a device of half precision the model and what is added to it are held in the other 16 bits, in which these models were trained."""
    family = load(loaded.entry, "cpu", torch.float16)
    assert {family.pipe.transformer.dtype, family.pipe.vae.dtype, family.pipe.text_encoder_2.dtype} == {torch.bfloat16}
    path = write_kohya(make(family), tmp_path / "it.safetensors")
    entry = next(iter(inputs_of(path).models.values())).model_copy(update={"family": loaded.entry.family})
    wanted = parameters(loras=loras((path, 0.5)))
    assert draw(family, wanted, Inputs({entry.ref: entry})) != draw(family, parameters())
    family.close()


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("lora_unet_double_blocks_9_img_attn_qkv", (RANK, 32)),
        ("lora_unet_single_blocks_0_linear1", (RANK, 48)),
        ("lora_te3_encoder_block_0_layer_0_SelfAttention_q", (RANK, 64)),
        ("lora_unet_down_blocks_0_attentions_0_proj_in", (RANK, 32)),
    ],
)
def test_what_was_made_for_another_model_is_refused(
    family: Family,
    parameters: Callable[..., Txt2ImgParameters],
    tmp_path: Path,
    name: str,
    shape: tuple[int, int],
) -> None:
    """A layer that is not here, of another width, or of a text encoder that takes none, with the tensor's name."""
    path = tmp_path / "other.safetensors"
    save_file({f"{name}.lora_down.weight": torch.ones(shape), f"{name}.lora_up.weight": torch.ones(96, RANK)}, path)
    with pytest.raises(ModelDamaged, match="made for another model"):
        family.prepare(parameters(loras=loras((path, 1.0))), 0, inputs_of(path))
    assert load_file(path)
