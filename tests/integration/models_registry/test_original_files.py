"""Files in the original layout of every family and variant are recognised; what they lack is named, or read from beside them."""

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.loaders import single_file_utils
from safetensors.torch import load_file, save_file
from transformers import CLIPTextModel

from models_registry.detection import detect
from models_registry.entries import Kind, Layout
from models_registry.reading.bounded_files import Reads
from models_registry.refusals import ModelRefused
from tests.original_files import NETWORK, lay_beside, open_clip, write_file
from tests.original_transformers import original_flux, original_sd3
from tests.tensor_files import Shapes, write_tensors
from tests.tiny import transformers, unets

Build = Callable[[Path], Path]
BUILDERS: Mapping[tuple[str, str], Build] = {**unets.CHECKPOINTS, **transformers.BUILDERS}
NAMES = {("sd3", "3.5-large-turbo"): "sd3.5_large_turbo", ("flux", "depth"): "flux1-depth-dev"}
#: Its types cover only a part of it.
UTILITIES: Any = single_file_utils


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Build], Path]:
    """Return a function that builds a tiny checkpoint once for the session; never change it."""
    built: dict[Build, Path] = {}

    def build(builder: Build) -> Path:
        if builder not in built:
            built[builder] = builder(tmp_path_factory.mktemp("saved") / "tiny")
        return built[builder]

    return build


Saved = Callable[[Build], Path]


# A network that reads the guidance scale has no original layout: LCM's single files are merges without it.
@pytest.mark.parametrize(("family", "variant"), sorted(BUILDERS.keys() - {("sdxl", "lcm-full")}))
def test_detect_recognises_every_variant(saved: Saved, tmp_path: Path, family: str, variant: str) -> None:
    """A whole checkpoint in one file is what its folder is, but for how it lies, in counted reads."""
    folder = saved(BUILDERS[family, variant])
    named = shutil.copytree(folder, tmp_path / NAMES.get((family, variant), "model"))
    path = write_file(named, tmp_path / "files" / f"{named.name}.safetensors")
    reads = Reads()
    entry, whole = detect(path, reads), detect(named, Reads())
    assert (entry.kind, entry.layout, entry.family, entry.variant) == (
        Kind.CHECKPOINT,
        Layout.SINGLE_FILE,
        family,
        variant,
    )
    for fact in ("native_size", "latent_factor", "latent_channels", "text_width", "text_layers", "width"):
        assert getattr(entry, fact) == getattr(whole, fact), fact
    assert [component.name for component in entry.components] == [component.name for component in whole.components]
    assert reads.reads < 10 * reads.files


def test_transformers_are_written_as_diffusers_reads_them(saved: Saved) -> None:
    """The writers of these tests are the converse of diffusers' own converters, so that what is recognised is what people have."""
    for builder in (transformers.build_sd3_medium, transformers.build_sd35_medium):
        weights = load_file(saved(builder) / "transformer/diffusion_pytorch_model.safetensors")
        back = UTILITIES.convert_sd3_transformer_checkpoint_to_diffusers(dict(original_sd3(weights)))
        assert back.keys() == weights.keys()
        assert all(torch.equal(back[name], tensor) for name, tensor in weights.items())


def test_flux_is_written_as_diffusers_reads_it(saved: Saved, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same of FLUX.1, whose converter knows the published width alone: it is cut by ours here."""
    weights = load_file(saved(transformers.build_flux_dev) / "transformer/diffusion_pytorch_model.safetensors")
    width = weights["x_embedder.weight"].shape[0]
    split = torch.split

    def cut(tensor: torch.Tensor, sizes: Any, dim: int = 0) -> Any:
        return split(tensor, [size * width // 3072 for size in sizes], dim)

    monkeypatch.setattr(UTILITIES.torch, "split", cut)
    back = UTILITIES.convert_flux_transformer_checkpoint_to_diffusers(dict(original_flux(weights)))
    assert back.keys() == weights.keys()
    assert all(torch.equal(back[name], tensor) for name, tensor in weights.items())


def test_text_encoders_are_written_as_diffusers_reads_them(saved: Saved) -> None:
    """And of OpenCLIP's text encoders."""
    folder = saved(unets.build_sd2) / "text_encoder"
    model = CLIPTextModel.from_pretrained(folder)
    written = {
        f"cond_stage_model.model.{name}": each
        for name, each in open_clip(load_file(folder / "model.safetensors")).items()
    }
    back = UTILITIES.convert_open_clip_checkpoint(model, written)
    assert {name.removeprefix("text_model.") for name in back} == {
        name.removeprefix("text_model.") for name in load_file(folder / "model.safetensors")
    }


ENCODERS = ("vae", "text_encoder", "text_encoder_2", "text_encoder_3")


@pytest.mark.parametrize(
    ("builder", "bare", "words"),
    [
        (transformers.build_flux_dev, True, ("FLUX.1", "no VAE", "no text encoder", "model.config/text_encoder_2")),
        (transformers.build_flux_dev, False, ("FLUX.1", "no VAE")),
        (transformers.build_sd3_medium, True, ("Stable Diffusion 3", "no VAE", "second text encoder")),
        (unets.build_sdxl, False, ("SDXL", "no VAE", "second text encoder")),
        (unets.build_sd2, False, ("no VAE", "no text encoder")),
    ],
)
def test_networks_alone_are_told_what_they_lack(
    saved: Saved, tmp_path: Path, builder: Build, *, bare: bool, words: tuple[str, ...]
) -> None:
    """A file with the network alone is refused with what is missing, and offered once that lies beside it."""
    folder = saved(builder)
    path = write_file(folder, tmp_path / "model.safetensors", without=ENCODERS, bare=bare, beside=False)
    lay_network(folder, path)
    with pytest.raises(ModelRefused) as caught:
        detect(path, Reads())
    assert caught.value.code == "unrecognised"
    assert all(word in caught.value.reason for word in words), caught.value.reason
    lay_beside(folder, path, *(name for name in (*ENCODERS, "scheduler") if (folder / name).is_dir()))
    for tokenizer in folder.glob("tokenizer*"):
        lay_beside(folder, path, tokenizer.name)
    entry, whole = detect(path, Reads()), detect(folder, Reads())
    assert (entry.family, entry.variant, entry.width) == (whole.family, whole.variant, whole.width)
    assert {each.name: each.parameters for each in entry.components} == {
        each.name: each.parameters for each in whole.components
    }
    before = entry.fingerprint
    vae = path.with_name("model.config") / "vae/diffusion_pytorch_model.safetensors"
    save_file({name: tensor + 1 for name, tensor in load_file(vae).items()}, vae)
    assert detect(path, Reads()).fingerprint != before


def lay_network(folder: Path, path: Path) -> None:
    """Lay the configuration of the network beside a file: tiny ones are of no published size."""
    name = "unet" if (folder / "unet").is_dir() else "transformer"
    place = path.with_name(f"{path.stem}.config") / name
    place.mkdir(parents=True)
    shutil.copy(folder / name / "config.json", place)


def test_sd3_may_come_without_t5(saved: Saved, tmp_path: Path) -> None:
    """The published file for small machines has two text encoders."""
    path = write_file(saved(transformers.build_sd3_without_t5), tmp_path / "small.safetensors")
    entry = detect(path, Reads())
    assert [each.name for each in entry.components] == ["transformer", "vae", "text_encoder", "text_encoder_2"]


#: The published sizes of each family, told by a handful of tensors.
CLIP_L = {"text_model.embeddings.token_embedding.weight": (49408, 768)}
CLIP_G = {"text_model.embeddings.token_embedding.weight": (49408, 1280)}
OPEN_G = {"token_embedding.weight": (49408, 1280)}
T5 = {"shared.weight": (32128, 4096)}


def below(start: str, shapes: Shapes) -> Shapes:
    """Return shapes under longer names."""
    return {f"{start}{name}": shape for name, shape in shapes.items()}


def vae(start: str, channels: int) -> Shapes:
    """Return what tells a VAE of published size."""
    return below(
        start,
        {
            **{f"encoder.down.{level}.block.0.conv1.weight": (8, 8, 3, 3) for level in range(4)},
            "decoder.conv_in.weight": (512, channels, 3, 3),
        },
    )


def unet(width: int, words: int, channels: int = 4, **more: tuple[int, ...]) -> Shapes:
    """Return what tells a UNet."""
    return below(
        NETWORK,
        {
            "input_blocks.0.0.weight": (width, channels, 3, 3),
            "input_blocks.4.1.transformer_blocks.0.attn2.to_k.weight": (64, words),
            "out.2.weight": (4, width, 3, 3),
            **{name.replace("__", "."): shape for name, shape in more.items()},
        },
    )


SDXL = {
    **unet(320, 2048), **vae("first_stage_model.", 4), **below("conditioner.embedders.0.transformer.", CLIP_L),
    **below("conditioner.embedders.1.model.", OPEN_G),
}  # fmt: skip
SD2 = {
    **unet(320, 1024),
    **vae("first_stage_model.", 4),
    **below("cond_stage_model.model.", {"token_embedding.weight": (49408, 1024)}),
}
SD3_TEXTS = {
    **below("text_encoders.clip_l.transformer.", CLIP_L), **below("text_encoders.clip_g.transformer.", CLIP_G),
    **below("text_encoders.t5xxl.transformer.", T5),
}  # fmt: skip


def sd3(width: int, **more: tuple[int, ...]) -> Shapes:
    """Return what tells a Stable Diffusion 3 of published size."""
    named = {name.replace("__", "."): shape for name, shape in more.items()}
    network = {
        "x_embedder.proj.weight": (width, 16, 2, 2), "context_embedder.weight": (width, 4096),
        "joint_blocks.0.context_block.attn.qkv.weight": (64, 64), **named,
    }  # fmt: skip
    return {**below(NETWORK, network), **vae("first_stage_model.", 16), **SD3_TEXTS}


def flux(inputs: int, *, guided: bool = True, start: str = NETWORK) -> Shapes:
    """Return what tells a FLUX.1 of published size, as ComfyUI saves it."""
    network = {
        "img_in.weight": (3072, inputs), "txt_in.weight": (3072, 4096), "double_blocks.0.img_attn.qkv.weight": (64, 64),
        **({"guidance_in.in_layer.weight": (64, 64)} if guided else {}),
    }  # fmt: skip
    return {
        **below(start, network), **vae("vae.", 16), **below("text_encoders.clip_l.transformer.", CLIP_L),
        **below("text_encoders.t5xxl.transformer.", T5),
    }  # fmt: skip


NORM = {"joint_blocks__0__x_block__attn__ln_q__weight": (64,)}
#: Name of a file → tensors, metadata, family, variant, native size.
PUBLISHED: dict[str, tuple[Shapes, dict[str, str], str, str, int]] = {
    "512-base-ema": (SD2, {}, "sd2", "base", 512),
    "v2-1_768-ema-pruned": (SD2, {"modelspec.prediction_type": "v"}, "sd2", "v", 768),
    "768-v-ema": (SD2, {}, "sd2", "v", 768),
    "sd2-by-its-architecture": (SD2, {"modelspec.architecture": "stable-diffusion-v2-768-v"}, "sd2", "v", 768),
    "512-inpainting-ema": ({**SD2, **unet(320, 1024, 9)}, {}, "sd2", "inpaint", 512),
    "sd_xl_base_1.0": (SDXL, {}, "sdxl", "base", 1024),
    "sd_xl_turbo_1.0_fp16": (SDXL, {}, "sdxl", "turbo", 512),
    "renamed turbo": (SDXL, {"modelspec.architecture": "stable-diffusion-xl-turbo-v1"}, "sdxl", "turbo", 512),
    "DreamShaperXL_Lightning": (SDXL, {}, "sdxl", "lightning", 1024),
    "juggernaut-lcm": (SDXL, {}, "sdxl", "lcm", 1024),
    "noobaiXLNAIXL_vPred10": ({**SDXL, "v_pred": ()}, {}, "sdxl", "v", 1024),
    "noob-vpred": (SDXL, {}, "sdxl", "v", 1024),
    "ponyDiffusionV6XL": (SDXL, {"modelspec.resolution": "1024x1024"}, "sdxl", "base", 1024),
    "sdxl-inpaint": ({**SDXL, **unet(320, 2048, 9)}, {}, "sdxl", "inpaint", 1024),
    "sd_xl_refiner_1.0": (
        {**unet(384, 1280), **vae("first_stage_model.", 4), **below("conditioner.embedders.0.model.", OPEN_G)},
        {}, "sdxl", "refiner", 1024,
    ),
    "sd3_medium_incl_clips_t5xxlfp16": (sd3(1536), {}, "sd3", "medium", 1024),
    "sd3.5_medium": (sd3(1536, joint_blocks__0__x_block__attn2__qkv__weight=(64, 64), **NORM), {}, "sd3", "3.5-medium", 1024),
    "sd3.5_large": (sd3(2432, **NORM), {}, "sd3", "3.5-large", 1024),
    "sd3.5_large_turbo": (sd3(2432, **NORM), {}, "sd3", "3.5-large-turbo", 1024),
    "flux1-dev-fp8": (flux(64), {}, "flux", "dev", 1024),
    "flux1-schnell-fp8": (flux(64, guided=False), {}, "flux", "schnell", 1024),
    "flux-all-in-one, bare": (flux(64, start=""), {}, "flux", "dev", 1024),
    "flux1-fill-dev": (flux(384), {}, "flux", "fill", 1024),
    "flux1-canny-dev": (flux(128), {}, "flux", "canny", 1024),
    "flux1-depth-dev": (flux(128), {}, "flux", "depth", 1024),
    "some control": (flux(128), {"modelspec.title": "Depth for FLUX"}, "flux", "depth", 1024),
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_sizes_need_nothing_beside_them(tmp_path: Path, name: str) -> None:
    """A file of published size is told by its tensors, then by what it says of itself, then by its name."""
    shapes, metadata, family, variant, size = PUBLISHED[name]
    reads = Reads()
    entry = detect(write_tensors(tmp_path / f"{name}.safetensors", shapes, metadata=metadata), reads)
    assert (entry.family, entry.variant, entry.native_size) == (family, variant, size)
    assert reads.bytes < 2**20
    assert reads.reads < 25


def test_velocity_shows_in_a_layer(tmp_path: Path) -> None:
    """Where nobody says what a Stable Diffusion 2.x predicts, the spread of one layer tells, in a single read more."""
    layer = f"{NETWORK}output_blocks.11.1.transformer_blocks.0.norm1.bias"
    for spread, variant in ((0.02, "base"), (0.2, "v")):
        path = write_tensors(tmp_path / f"{variant}-model.safetensors", {**SD2, layer: (320,)}, dtype="F16")
        before = Reads()
        detect(path, before)
        values = np.random.default_rng(1).normal(0, spread, 320).astype("<f2").tobytes()
        raw = path.read_bytes()[: -len(values)]
        path.write_bytes(raw + values)
        reads = Reads()
        assert detect(path, reads).variant == variant
        assert reads.reads == before.reads


REFUSED: dict[str, tuple[Shapes, str, str]] = {
    "a SDXL of another size": ({**SDXL, **unet(64, 2048)}, "config_invalid", "model.config/unet/config.json"),
    "a FLUX of another size": (
        {**flux(64), f"{NETWORK}img_in.weight": (128, 64)}, "config_invalid", "model.config/transformer/config.json",
    ),
    "a FLUX of other channels": (flux(96), "unrecognised", "96 channels"),
    "a FLUX with another VAE": ({**flux(64), **vae("vae.", 4)}, "config_invalid", "model.config/vae/config.json"),
    "another T5": (
        {**flux(64), "text_encoders.t5xxl.transformer.shared.weight": (32128, 1024)}, "config_invalid", "text_encoder_2/config.json",
    ),
    "a FLUX that reads other words": (
        {**flux(64), f"{NETWORK}txt_in.weight": (3072, 1024)}, "weights_mismatch", "text features of width [1024]",
    ),
    "a FLUX without a layer": (
        {name: shape for name, shape in flux(64).items() if "img_in" not in name}, "weights_mismatch", "no tensor",
    ),
    "a transformer in diffusers' names": (
        {"single_transformer_blocks.0.attn.to_q.weight": (64, 64), "x_embedder.weight": (3072, 64)}, "unrecognised", "diffusers' names",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_detect_refuses_what_does_not_fit(tmp_path: Path, name: str) -> None:
    """Other sizes without a configuration, and parts of other models, are refused with code, file and reason."""
    shapes, code, reason = REFUSED[name]
    with pytest.raises(ModelRefused) as caught:
        detect(write_tensors(tmp_path / "model.safetensors", shapes), Reads())
    assert caught.value.code == code, str(caught.value)
    assert reason in caught.value.reason
