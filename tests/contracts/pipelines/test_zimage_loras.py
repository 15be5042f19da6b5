"""LoRAs of Z-Image in every layout of its trainers: the same numbers under other names draw the same bits, near those of diffusers."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import diffusers
import pytest
import torch
from safetensors.torch import save_file

from jobs.contract import Txt2ImgParameters
from models_registry.detection import detect
from models_registry.reading.bounded_files import Reads
from pipelines.families.base import Family
from pipelines.loading import load
from tests.contracts.pipelines.flow_calls import entry_of
from tests.contracts.pipelines.lora_jobs import all_draw_alike, inputs_of, loras, refuses_layer, two_steps
from tests.contracts.pipelines.running import end
from tests.tiny.zimage import QWEN, WIDTH, build_base

#: The library ships no types for these classes.
_DIFFUSERS: Any = diffusers
RANK, ALPHA = 4, 2.0
#: Original name of a layer → its names in diffusers, its inputs, and its outputs.
LAYERS: Final[Mapping[str, tuple[Sequence[str], int, int]]] = {
    **{
        f"{block}.attention.qkv": ([f"{block}.attention.to_{part}" for part in "qkv"], WIDTH, 3 * WIDTH)
        for block in ("layers.1", "noise_refiner.0", "context_refiner.0")
    },
    "layers.1.attention.out": (["layers.1.attention.to_out.0"], WIDTH, WIDTH),
    "layers.1.feed_forward.w1": (["layers.1.feed_forward.w1"], WIDTH, WIDTH * 8 // 3),
    "layers.1.adaLN_modulation.0": (["layers.1.adaLN_modulation.0"], WIDTH, 4 * WIDTH),
    "cap_embedder.1": (["cap_embedder.1"], QWEN, WIDTH),
    "x_embedder": (["all_x_embedder.2-1"], 64, WIDTH),
    "final_layer.linear": (["all_final_layer.2-1.linear"], WIDTH, 64),
}
#: Those that diffusers converts from a trainer's names.
CONVERTED: Final = ("layers.1.feed_forward.w1", "layers.1.attention.out", "layers.1.adaLN_modulation.0")
#: Whether layers have the original's names; what stands before them and between their parts; ends; whether alpha lies beside.
LAYOUTS: Final[Mapping[str, tuple[bool, str, str, tuple[str, str], bool]]] = {
    "kohya": (True, "lora_unet_", "_", ("lora_down.weight", "lora_up.weight"), True),
    "comfy": (True, "diffusion_model.", ".", ("lora_A.weight", "lora_B.weight"), False),
    "bare": (True, "", ".", ("lora_down.weight", "lora_up.weight"), True),
    "comfy, split": (False, "diffusion_model.", ".", ("lora_A.weight", "lora_B.weight"), False),
    "diffsynth": (False, "", ".", ("lora_A.default.weight", "lora_B.default.weight"), False),
    "diffusers": (False, "transformer.", ".", ("lora_A.weight", "lora_B.weight"), False),
    "peft": (False, "base_model.model.", ".", ("lora_A.weight", "lora_B.weight"), False),
}


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Family:
    """Return the tiny model, loaded once."""
    return load(entry_of(build_base(tmp_path_factory.mktemp("zimage") / "tiny"), "zimage", "base"), "cpu")


@pytest.fixture
def parameters() -> Callable[..., Txt2ImgParameters]:
    """Return a maker of jobs of two steps."""
    return two_steps(3.0)


def write(layout: str, path: Path, layers: Sequence[str] = tuple(LAYERS)) -> Path:
    """Write the same random numbers in a layout."""
    original, start, join, (down, up), beside = LAYOUTS[layout]
    tensors = {}
    for name in layers:
        generator = torch.Generator().manual_seed(len(name))
        apart, inputs, outputs = LAYERS[name]
        first = torch.randn(RANK, inputs, generator=generator) * 0.3
        second = torch.randn(outputs, RANK, generator=generator) * 0.3
        names = [name] if original else apart
        for each, part in zip(names, second.chunk(len(names)), strict=True):
            named = start + each.replace(".", join)
            tensors[f"{named}.{down}"] = first.clone()
            # Alpha over the rank is a half, which loses no bit.
            tensors[f"{named}.{up}"] = (part if beside else part * (ALPHA / RANK)).contiguous()
            if beside:
                tensors[f"{named}.alpha"] = torch.tensor(ALPHA)
    save_file(tensors, path)
    return path


def test_every_layout_is_recognised_and_draws_the_same_bits(
    family: Family, parameters: Callable[..., Txt2ImgParameters], tmp_path: Path
) -> None:
    """kohya's, ComfyUI's with one matrix or three, the bare original's, DiffSynth's, diffusers', peft's."""
    paths = [write(layout, tmp_path / f"{layout}.safetensors") for layout in LAYOUTS]
    for path in paths:
        found = detect(path, Reads())
        assert (found.family, found.width, found.text_width, found.rank) == ("zimage", WIDTH, QWEN, RANK)
    all_draw_alike(family, parameters, paths)


@pytest.mark.parametrize(("layout", "layers"), [("kohya", CONVERTED), ("diffusers", tuple(LAYERS))])
def test_diffusers_draws_nearly_the_same(
    family: Family,
    parameters: Callable[..., Txt2ImgParameters],
    tmp_path: Path,
    layout: str,
    layers: Sequence[str],
) -> None:
    """Its loading of the same file leads to the same latents, but for rounding."""
    path = write(layout, tmp_path / "it.safetensors", layers)
    wanted = parameters(loras=loras((path, 1.0)), negative_prompt="blue")
    found = end(family, family.prepare(wanted, 0, inputs_of(path)))
    plain = end(family, family.prepare(parameters(negative_prompt="blue"), 0, inputs_of(path)))
    pipe = _DIFFUSERS.ZImagePipeline.from_pretrained(family.entry.path, local_files_only=True)
    pipe.set_progress_bar_config(disable=True)
    pipe.load_lora_weights(path)
    right = pipe(
        wanted.prompt,
        negative_prompt="blue",
        guidance_scale=3.0,
        width=64,
        height=48,
        num_inference_steps=2,
        generator=torch.Generator().manual_seed(7),
        output_type="latent",
    ).images
    assert torch.allclose(torch.from_numpy(found.latents), right, atol=1e-3)
    assert not torch.allclose(torch.from_numpy(plain.latents), right, atol=1e-2)


@pytest.mark.parametrize(
    "name",
    ["text_encoder.layers.0.self_attn.q_proj", "transformer.layers.7.attention.to_q", "double_blocks.0.img_attn.qkv"],
)
def test_what_was_made_for_another_model_is_refused(
    family: Family, parameters: Callable[..., Txt2ImgParameters], tmp_path: Path, name: str
) -> None:
    """A layer of the text encoder, one that is not there, one of FLUX.1, by its tensor's name."""
    refuses_layer(family, parameters, tmp_path / "other.safetensors", name, WIDTH)
