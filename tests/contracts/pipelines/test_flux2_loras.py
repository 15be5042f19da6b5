"""LoRAs of FLUX.2 in every layout: the same numbers under other names draw the same bits, near those of diffusers."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from safetensors.torch import save_file

from jobs.contract import Txt2ImgParameters
from models_registry.detection import detect
from models_registry.reading.bounded_files import Reads
from pipelines.families.base import Family
from pipelines.loading import load
from pipelines.original.transformer_names import transformer_names
from tests.contracts.pipelines.flow_calls import entry_of
from tests.contracts.pipelines.lora_jobs import all_draw_alike, inputs_of, loras, refuses_layer, two_steps
from tests.contracts.pipelines.running import end
from tests.tiny.flux2 import BUILDERS, LENGTH, TEXT, WIDTH

#: The library ships no types for these classes.
_DIFFUSERS: Any = diffusers
Factors = Mapping[str, tuple[torch.Tensor, torch.Tensor]]
RANK, ALPHA = 4, 2.0
#: Original names of the layers that are trained here: in both kinds of blocks, and around them.
_TRAINED = ("double_blocks.1.", "single_blocks.0.", "txt_in", "double_stream_modulation_txt.lin")
_LAYOUTS = ("kohya", "comfy", "bare", "diffusers", "plain", "peft", "trainer")


@pytest.fixture(scope="module", params=["klein", "dev"])
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Family:
    """Return each tiny model, loaded once."""
    folder = BUILDERS["flux2", request.param](tmp_path_factory.mktemp("flux2") / "tiny")
    return load(entry_of(folder, "flux2", request.param), "cpu")


@pytest.fixture
def parameters() -> Callable[..., Txt2ImgParameters]:
    """Return a maker of jobs of two steps."""
    return two_steps(0.0)


def _layers(family: Family) -> Mapping[str, list[str]]:
    """Return original names of layers → their names in diffusers."""
    names = transformer_names(path for path, _ in family.pipe.transformer.named_modules())
    return {name: list(layers) for name, layers in names.items() if name.startswith(_TRAINED)}


def _rows(family: Family, layers: list[str]) -> list[int]:
    return [family.pipe.transformer.get_submodule(layer).weight.shape[0] for layer in layers]


def _made(family: Family) -> Factors:
    """Return random factors of each layer, by its original name: rank x inputs, outputs x rank."""
    generator = torch.Generator().manual_seed(5)
    made: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
    for name, layers in _layers(family).items():
        inputs = family.pipe.transformer.get_submodule(layers[0]).weight.shape[1]
        down = torch.randn(RANK, inputs, generator=generator) * 0.3
        made[name] = (down, torch.randn(sum(_rows(family, layers)), RANK, generator=generator) * 0.3)
    return made


def write(family: Family, layout: str, path: Path) -> Path:
    """Write the same numbers in a layout; alpha over the rank is a half, which loses no bit."""
    tensors: dict[str, torch.Tensor] = {}
    for name, (down, up) in _made(family).items():
        if layout == "kohya":
            start = f"lora_unet_{name.replace('.', '_')}"
            tensors |= {f"{start}.lora_down.weight": down, f"{start}.lora_up.weight": up}
            tensors[f"{start}.alpha"] = torch.tensor(ALPHA)
            continue
        if layout in {"comfy", "bare"}:
            start = f"diffusion_model.{name}" if layout == "comfy" else name
            tensors |= {f"{start}.lora_A.weight": down, f"{start}.lora_B.weight": up * (ALPHA / RANK)}
            continue
        start, join, ends = {
            "diffusers": ("transformer.", ".", ("lora_A.weight", "lora_B.weight")),
            "plain": ("", ".", ("lora_A.weight", "lora_B.weight")),
            "peft": ("base_model.model.", ".", ("lora_A.weight", "lora_B.weight")),
            "trainer": ("lora_transformer_", "_", ("lora_down.weight", "lora_up.weight")),
        }[layout]
        layers = _layers(family)[name]
        for layer, part in zip(layers, torch.split(up, _rows(family, layers)), strict=True):
            own = f"{start}{layer.replace('.', join)}"
            tensors |= {f"{own}.{ends[0]}": down.clone(), f"{own}.{ends[1]}": part * (ALPHA / RANK)}
    save_file(tensors, path)
    return path


def test_every_layout_is_recognised_and_draws_the_same_bits(
    family: Family, parameters: Callable[..., Txt2ImgParameters], tmp_path: Path
) -> None:
    """kohya's, ComfyUI's, the bare original's, diffusers', peft's."""
    assert len(_layers(family)) == 12
    paths = [write(family, layout, tmp_path / f"{layout}.safetensors") for layout in _LAYOUTS]
    for path in paths:
        found = detect(path, Reads())
        assert (found.family, found.width, found.text_width, found.rank) == ("flux2", WIDTH, 3 * TEXT, RANK)
    all_draw_alike(family, parameters, paths)


@pytest.mark.parametrize("layout", ["comfy", "diffusers"])
def test_diffusers_draws_nearly_the_same(
    family: Family, parameters: Callable[..., Txt2ImgParameters], tmp_path: Path, layout: str
) -> None:
    """Its loading of the same file leads to the same latents, but for rounding."""
    path = write(family, layout, tmp_path / "it.safetensors")
    wanted = parameters(loras=loras((path, 1.0)))
    found = end(family, family.prepare(wanted, 0, inputs_of(path)))
    pipe = _DIFFUSERS.DiffusionPipeline.from_pretrained(family.entry.path, local_files_only=True)
    pipe.set_progress_bar_config(disable=True)
    pipe.load_lora_weights(path)
    kept: dict[str, torch.Tensor] = {}

    def keep(_pipe: Any, _step: int, _timestep: Any, tensors: dict[str, torch.Tensor]) -> dict[str, Any]:
        kept.update(tensors)
        return {}

    size = {"width": 64, "height": 48, "num_inference_steps": 2, "max_sequence_length": LENGTH}
    generator = torch.Generator().manual_seed(7)
    pipe(
        prompt=wanted.prompt,
        **size,
        generator=generator,
        callback_on_step_end=keep,
        guidance_scale=0.0,
        output_type="latent",
    )
    assert torch.allclose(torch.from_numpy(found.latents), kept["latents"], atol=1e-3)
    plain = end(family, family.prepare(parameters(), 0))
    assert not torch.allclose(torch.from_numpy(plain.latents), kept["latents"], atol=1e-2)


@pytest.mark.parametrize(
    "name",
    [
        "text_encoder.model.layers.0.self_attn.q_proj",
        "transformer.transformer_blocks.7.attn.to_q",
        "transformer.single_transformer_blocks.0.attn.to_q",
        "double_blocks.0.img_mod.lin",
    ],
)
def test_what_was_made_for_another_model_is_refused(
    family: Family, parameters: Callable[..., Txt2ImgParameters], tmp_path: Path, name: str
) -> None:
    """A layer of the text encoder, one that is not there, two of FLUX.1, by the tensor's name."""
    refuses_layer(family, parameters, tmp_path / "other.safetensors", name, WIDTH)
