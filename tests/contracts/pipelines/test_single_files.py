"""Checkpoints and VAEs in the original layout: the bits of the folder they were made from, and a name for what is broken."""

import gzip
import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig, CLIPTextModel

from jobs.contract import Txt2ImgParameters
from jobs.errors import ModelDamaged, ModelMissing
from models_registry.entries import Kind, Layout, ModelEntry
from models_registry.kinds.single_files import config_folder
from models_registry.vocabularies.clip import find_merges
from pipelines.engine.engine import Counters
from pipelines.families.base import Family
from pipelines.loaders import LOADERS
from pipelines.loading import load
from pipelines.original.component import below, build_text_encoder, build_unet, build_vae
from pipelines.original.published import published
from pipelines.original.tokenizer import clip_tokenizer
from pipelines.shelf import Shelf
from tests.original_layout import original_text_encoder, original_vae, whole_checkpoint, write_original

Make = Callable[..., Txt2ImgParameters]
EntryOf = Callable[[Path], ModelEntry]
Weights = dict[str, torch.Tensor]

#: The library ships no types for these classes.
_DIFFUSERS: Any = diffusers


def single(entry: ModelEntry) -> ModelEntry:
    """Describe a single file as the registry would."""
    return entry.model_copy(update={"layout": Layout.SINGLE_FILE})


@pytest.fixture
def file(tiny_sd15_folder: Path, tmp_path: Path) -> Path:
    """Return the tiny model as one file that a test may break."""
    return write_original(tiny_sd15_folder, tmp_path / "tiny.safetensors")


def draw(family: Family, parameters: Txt2ImgParameters) -> bytes:
    """Draw one picture."""
    state = family.prepare(parameters, 0)
    try:
        while state.phase == "denoise":
            assert not family.step([state]).errors
        return family.finish([state])[0].array.tobytes()
    finally:
        state.close()


def test_single_file_draws_the_bits_of_its_folder(
    loaded: Family, file: Path, entry_of: EntryOf, parameters: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every weight finds its place again, and nothing is asked of the network."""

    def refuse(*_args: object) -> None:
        raise AssertionError("a connection was attempted")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    counters = Counters()
    family = load(single(entry_of(file)), "cpu", counters=counters)
    assert counters.loads == 1
    for part in ("unet", "vae", "text_encoder"):
        wanted = getattr(loaded.pipe, part).state_dict()
        found = getattr(family.pipe, part).state_dict()
        assert found.keys() == wanted.keys()
        assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    prompt = "a red circle, " * 8
    assert draw(family, parameters(prompt=prompt)) == draw(loaded, parameters(prompt=prompt))
    family.close()


def test_nine_channels_make_an_inpainting_pipeline(file: Path, entry_of: EntryOf) -> None:
    """The width of the first convolution tells what the checkpoint is for."""
    weights = load_file(file)
    name = "model.diffusion_model.input_blocks.0.0.weight"
    weights[name] = torch.cat([weights[name], torch.zeros(8, 5, 3, 3)], dim=1)
    save_file(weights, file)
    config = config_folder(file) / "unet/config.json"
    config.write_text(config.read_text().replace('"in_channels": 4', '"in_channels": 9'))
    family = load(single(entry_of(file)), "cpu")
    assert isinstance(family.pipe, diffusers.StableDiffusionInpaintPipeline)
    assert family.pipe.unet.config.in_channels == 9
    assert torch.equal(family.pipe.unet.conv_in.weight, weights[name])
    family.close()


def test_half_precision_file_is_drawn_in_full_on_a_cpu(file: Path, entry_of: EntryOf, parameters: Make) -> None:
    """Stored as fp16, it loads as float32."""
    save_file({name: tensor.half() for name, tensor in load_file(file).items()}, file)
    family = load(single(entry_of(file)), "cpu")
    assert {each.dtype for each in family.pipe.unet.parameters()} == {torch.float32}
    draw(family, parameters(steps=1))
    family.close()


def _drop(name: str) -> Callable[[Weights], None]:
    def harm(weights: Weights) -> None:
        del weights[name]

    return harm


def _reshape(name: str) -> Callable[[Weights], None]:
    def harm(weights: Weights) -> None:
        weights[name] = torch.zeros(3)

    return harm


def _add(name: str) -> Callable[[Weights], None]:
    def harm(weights: Weights) -> None:
        weights[name] = torch.zeros(3)

    return harm


def _without(prefix: str) -> Callable[[Weights], None]:
    def harm(weights: Weights) -> None:
        for name in [each for each in weights if each.startswith(prefix)]:
            del weights[name]

    return harm


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        (_drop("model.diffusion_model.middle_block.1.proj_in.weight"), "lacks 1 tensors, mid_block.attentions.0"),
        (_drop("first_stage_model.decoder.mid.attn_1.q.weight"), "lacks 1 tensors"),
        (_drop("cond_stage_model.transformer.text_model.final_layer_norm.weight"), "final_layer_norm"),
        (_reshape("model.diffusion_model.out.2.bias"), "conv_out.bias"),
        (_reshape("first_stage_model.quant_conv.bias"), "quant_conv.bias"),
        (_add("model.diffusion_model.input_blocks.1.0.in_layers.2.extra"), "knows nothing of"),
        (_without("model.diffusion_model."), "lacks"),
        (_without("first_stage_model."), "holds no vae, and none lies beside it as tiny.config/vae"),
        (_without("cond_stage_model."), "holds no text_encoder"),
    ],
)
def test_damaged_file_is_named(file: Path, entry_of: EntryOf, harm: Callable[[Weights], None], told: str) -> None:
    """Missing, misshapen and surplus tensors never draw."""
    weights = load_file(file)
    harm(weights)
    save_file(weights, file)
    with pytest.raises((ModelDamaged, ModelMissing), match=f"tiny.safetensors.*{told}"):
        load(single(entry_of(file)), "cpu")


def test_cut_and_missing_files_are_named(file: Path, entry_of: EntryOf) -> None:
    """Half a file is damaged, none is missing."""
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ModelDamaged, match=r"tiny\.safetensors"):
        load(single(entry_of(file)), "cpu")
    file.unlink()
    with pytest.raises(ModelMissing, match=r"tiny\.safetensors"):
        load(single(entry_of(file)), "cpu")


@pytest.mark.parametrize("component", ["unet", "vae", "text_encoder"])
def test_unusual_sizes_without_a_configuration_are_refused(file: Path, entry_of: EntryOf, component: str) -> None:
    """Heads and groups cannot be told from widths, so that nothing is guessed where the widths are not those everyone knows."""
    shutil.rmtree(config_folder(file) / component)
    with pytest.raises(ModelDamaged, match=rf"tiny\.safetensors is no ordinary.*tiny\.config/{component}"):
        load(single(entry_of(file)), "cpu")


@pytest.mark.parametrize("part", ["unet/config.json", "scheduler/scheduler_config.json"])
def test_broken_configuration_is_named(file: Path, entry_of: EntryOf, part: str) -> None:
    """Broken JSON beside the file is a damaged model."""
    (config_folder(file) / part).write_text("{")
    with pytest.raises(ModelDamaged, match=Path(part).name):
        load(single(entry_of(file)), "cpu")


@pytest.mark.parametrize("channels", [4, 9])
def test_ordinary_sizes_need_no_configuration(channels: int) -> None:
    """The full-size model, by shapes alone: every tensor of Stable Diffusion 1.5 has its place."""
    with torch.device("meta"):
        unet = _DIFFUSERS.UNet2DConditionModel(in_channels=channels, cross_attention_dim=768, attention_head_dim=8)
        blocks = 4
        vae = _DIFFUSERS.AutoencoderKL(
            block_out_channels=(128, 256, 512, 512),
            down_block_types=("DownEncoderBlock2D",) * blocks,
            up_block_types=("UpDecoderBlock2D",) * blocks,
            layers_per_block=2,
        )
        text = CLIPTextModel(
            CLIPTextConfig(vocab_size=49408, hidden_size=768, intermediate_size=3072, num_attention_heads=12)
        )
    weights = whole_checkpoint(
        unet.state_dict(),
        vae.state_dict(),
        {"cond_stage_model.transformer.": original_text_encoder(text.state_dict())},
    )
    assert "model.diffusion_model.output_blocks.11.1.transformer_blocks.0.attn2.to_k.weight" in weights
    path, usual, half = Path("v1-5.safetensors"), published("sd15", "base"), torch.float16
    unet = build_unet(path, weights, "Stable Diffusion 1.x", usual["unet"], half)
    assert sum(each.numel() for each in unet.parameters()) > 859_000_000
    assert unet.config.in_channels == channels
    assert sum(each.numel() for each in build_vae(path, weights, "sd15", half).parameters()) > 83_000_000
    own = below(weights, "cond_stage_model.transformer.")
    text = build_text_encoder(path, own, "text_encoder", "Stable Diffusion 1.x", usual["text_encoder"], half)
    assert text.config.num_hidden_layers == 12


def test_scheduler_is_the_familys_without_a_configuration(file: Path, entry_of: EntryOf) -> None:
    """The noise schedule that Stable Diffusion 1.x was trained with."""
    shutil.rmtree(config_folder(file) / "scheduler")
    family = load(single(entry_of(file)), "cpu")
    config = family.pipe.scheduler.config
    assert (config.beta_start, config.beta_end, config.beta_schedule) == (0.00085, 0.012, "scaled_linear")
    family.close()


def test_tokenizer_is_looked_for_beside_the_file_and_among_packages(
    file: Path, entry_of: EntryOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without either the message says what to install; one of another vocabulary is refused."""
    shutil.rmtree(config_folder(file) / "tokenizer")
    monkeypatch.setattr("models_registry.vocabularies.clip._PACKAGES", ("no_such_package",))
    with pytest.raises(ModelMissing, match="pip install open-clip-torch"):
        load(single(entry_of(file)), "cpu")
    package = tmp_path / "vocabulary_package"
    package.mkdir()
    (package / "__init__.py").write_text("raise AssertionError('it must not be imported')")
    (package / "bpe_simple_vocab_16e6.txt.gz").write_bytes(gzip.compress(b'"version"\nr e\nre d</w>\n'))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("models_registry.vocabularies.clip._PACKAGES", ("vocabulary_package",))
    with pytest.raises(ModelDamaged, match=r"tiny\.safetensors knows \d+ tokens"):
        load(single(entry_of(file)), "cpu")


def test_merges_become_clips_tokens(tmp_path: Path) -> None:
    """Bytes, bytes at the end of a word, merges and two marks, in this order; small letters and words apart."""
    path = tmp_path / "merges.txt.gz"
    path.write_bytes(gzip.compress(b'"version"\nr e\nre d</w>\n'))
    tokenizer = clip_tokenizer(path)
    assert len(tokenizer) == 256 + 256 + 2 + 2
    red, letter, start, end = 513, 256 + ord("a") - ord("!"), 514, 515
    assert tokenizer("RED a red").input_ids == [start, red, letter, red, end]
    assert tokenizer.model_max_length == 77
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (start, end, end)


def test_installed_vocabulary_is_clips_own() -> None:
    """The numbers that every published Stable Diffusion 1.x was trained on."""
    merges = find_merges()
    if merges is None:
        if os.environ.get("CI"):
            pytest.fail("open-clip-torch is not installed")
        pytest.skip("open-clip-torch is not installed")
    tokenizer = clip_tokenizer(merges)
    assert len(tokenizer) == 49408
    assert tokenizer("a photo of a cat").input_ids == [49406, 320, 1125, 539, 320, 2368, 49407]


def vae_entry(path: Path, layout: Layout) -> ModelEntry:
    """Describe a VAE as the registry would."""
    return ModelEntry(
        name=path.stem, kind=Kind.VAE, layout=layout, family="sd15", path=path, fingerprint="5" * 64, components=()
    )


@pytest.mark.parametrize("names", ["checkpoint", "original", "diffusers"])
def test_vae_file_holds_the_bits_of_its_folder(
    loaded: Family, tiny_sd15_folder: Path, tmp_path: Path, names: str
) -> None:
    """In a checkpoint's names, the original's or diffusers', with the configuration beside it."""
    weights = load_file(tiny_sd15_folder / "vae/diffusion_pytorch_model.safetensors")
    path = tmp_path / "own.safetensors"
    if names == "diffusers":
        save_file(weights, path)
    else:
        prefix = "first_stage_model." if names == "checkpoint" else ""
        save_file({prefix + name: tensor for name, tensor in original_vae(weights).items()}, path)
    config_folder(path).mkdir()
    shutil.copy(tiny_sd15_folder / "vae/config.json", config_folder(path))
    counters = Counters()
    shelf = Shelf(LOADERS, torch.device("cpu"), torch.float32, counters)
    vae: Any = shelf.take(vae_entry(path, Layout.SINGLE_FILE))
    wanted = loaded.pipe.vae.state_dict()
    assert vae.state_dict().keys() == wanted.keys()
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in vae.state_dict().items())
    assert counters.component_loads == 1
    assert shelf.bytes > 0
