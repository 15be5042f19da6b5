"""LoRAs of Qwen-Image in every layout of its trainers: the same numbers under other names draw the same bits, near those of diffusers."""

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
from tests.contracts.pipelines.flow_calls import entry_of
from tests.contracts.pipelines.lora_jobs import all_draw_alike, inputs_of, loras, refuses_layer, two_steps
from tests.contracts.pipelines.running import end
from tests.tiny.qwenimage import TEXT, WIDTH, build_qwenimage

#: The library ships no types for these classes.
_DIFFUSERS: Any = diffusers
RANK, ALPHA = 4, 2.0
#: Of the second block, what trainers train: in and out.
_BLOCK = "transformer_blocks.1"
LAYERS: Mapping[str, tuple[int, int]] = {
    **{f"{_BLOCK}.attn.{name}": (WIDTH, WIDTH) for name in ("to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "to_add_out")},
    f"{_BLOCK}.img_mlp.net.0.proj": (WIDTH, 4 * WIDTH),
    f"{_BLOCK}.txt_mlp.net.2": (4 * WIDTH, WIDTH),
    f"{_BLOCK}.img_mod.1": (WIDTH, 6 * WIDTH),
    f"{_BLOCK}.txt_mod.1": (WIDTH, 6 * WIDTH),
    "txt_in": (TEXT, WIDTH),
}  # fmt: skip
#: Beginning of the names, what lies between their parts, ends of both halves, whether alpha lies beside or was worked in.
LAYOUTS: Mapping[str, tuple[str, str, tuple[str, str], bool]] = {
    "kohya": ("lora_unet_", "_", ("lora_down.weight", "lora_up.weight"), True),
    "comfy": ("diffusion_model.", ".", ("lora_down.weight", "lora_up.weight"), True),
    "lightning": ("", ".", ("lora_down.weight", "lora_up.weight"), True),
    "diffsynth": ("", ".", ("lora_A.default.weight", "lora_B.default.weight"), False),
    "diffusers": ("transformer.", ".", ("lora_A.weight", "lora_B.weight"), False),
    "peft": ("base_model.model.", ".", ("lora_A.weight", "lora_B.weight"), False),
}


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Family:
    """Return the tiny model, loaded once."""
    folder = build_qwenimage(tmp_path_factory.mktemp("qwenimage") / "tiny")
    return load(entry_of(folder, "qwenimage", "base"), "cpu")


@pytest.fixture
def parameters() -> Callable[..., Txt2ImgParameters]:
    """Return a maker of jobs of two steps."""
    return two_steps(3.0)


def write(layout: str, path: Path, layers: Mapping[str, tuple[int, int]] = LAYERS) -> Path:
    """Write the same random numbers in a layout."""
    start, join, (down, up), beside = LAYOUTS[layout]
    generator, tensors = torch.Generator().manual_seed(5), {}
    for layer, (inputs, outputs) in layers.items():
        name = start + layer.replace(".", join)
        tensors[f"{name}.{down}"] = torch.randn(RANK, inputs, generator=generator) * 0.3
        drawn = torch.randn(outputs, RANK, generator=generator) * 0.3
        # Alpha over the rank is a half, which loses no bit.
        tensors[f"{name}.{up}"] = drawn if beside else drawn * (ALPHA / RANK)
        if beside:
            tensors[f"{name}.alpha"] = torch.tensor(ALPHA)
    save_file(tensors, path)
    return path


def test_every_layout_is_recognised_and_draws_the_same_bits(
    family: Family, parameters: Callable[..., Txt2ImgParameters], tmp_path: Path
) -> None:
    """kohya's, ComfyUI's, that of Lightning, DiffSynth's, diffusers', peft's."""
    paths = [write(layout, tmp_path / f"{layout}.safetensors") for layout in LAYOUTS]
    for path in paths:
        found = detect(path, Reads())
        assert (found.family, found.width, found.text_width, found.rank) == ("qwenimage", WIDTH, TEXT, RANK)
    all_draw_alike(family, parameters, paths)


@pytest.mark.parametrize("layout", ["kohya", "diffusers"])
def test_diffusers_draws_nearly_the_same(
    family: Family, parameters: Callable[..., Txt2ImgParameters], tmp_path: Path, layout: str
) -> None:
    """Its loading of the same file leads to the same latents, but for rounding."""
    path = write(layout, tmp_path / "it.safetensors")
    wanted = parameters(loras=loras((path, 1.0)), negative_prompt="blue")
    found = end(family, family.prepare(wanted, 0, inputs_of(path)))
    pipe = _DIFFUSERS.QwenImagePipeline.from_pretrained(family.entry.path, local_files_only=True)
    pipe.set_progress_bar_config(disable=True)
    pipe.load_lora_weights(path)
    right = pipe(
        wanted.prompt,
        negative_prompt="blue",
        true_cfg_scale=3.0,
        width=64,
        height=48,
        num_inference_steps=2,
        generator=torch.Generator().manual_seed(7),
        output_type="latent",
    ).images
    assert torch.allclose(torch.from_numpy(found.latents), right, atol=1e-3)


@pytest.mark.parametrize(
    "name",
    ["text_encoder.model.layers.0.self_attn.q_proj", "transformer.transformer_blocks.7.attn.to_q", "joint_blocks.0.x_block.attn.qkv"],
)  # fmt: skip
def test_what_was_made_for_another_model_is_refused(
    family: Family, parameters: Callable[..., Txt2ImgParameters], tmp_path: Path, name: str
) -> None:
    """A layer of the text encoder, one that is not there, one of Stable Diffusion 3, by its tensor's name."""
    refuses_layer(family, parameters, tmp_path / "other.safetensors", name, WIDTH)
