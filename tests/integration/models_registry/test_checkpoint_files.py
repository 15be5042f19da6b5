"""Checkpoints in one file: an ordinary Stable Diffusion 1.x, others with their configuration beside them."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from models_registry.detection import detect
from models_registry.entries import Kind, Layout
from models_registry.families import tasks_of
from models_registry.reading.bounded_files import Reads
from models_registry.refusals import ModelRefused
from models_registry.scanning.scan import scan
from tests.tensor_files import Shapes, write_tensors

Copy = Callable[..., Path]
UNET = "model.diffusion_model."
VAE = "first_stage_model."
TEXT = "cond_stage_model.transformer.text_model."


def checkpoint(*, channels: int = 4, width: int = 320, words: int = 768, vae: int = 512, levels: int = 4) -> Shapes:
    """Return the tensors that tell a checkpoint, each once."""
    return {
        f"{UNET}input_blocks.0.0.weight": (width, channels, 3, 3),
        f"{UNET}input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight": (width, words),
        f"{UNET}out.2.weight": (4, width, 3, 3),
        **{f"{VAE}encoder.down.{level}.block.0.conv1.weight": (8, 8, 3, 3) for level in range(levels)},
        f"{VAE}decoder.conv_in.weight": (vae, 4, 3, 3),
        f"{TEXT}embeddings.token_embedding.weight": (100, words),
        f"{TEXT}embeddings.position_embedding.weight": (77, words),
        "model_ema.decay": (),
    }


def test_detect_recognises_an_ordinary_checkpoint(tmp_path: Path) -> None:
    """Family, sizes and components of a single file are those of the layout; it needs nothing beside it."""
    layers = {f"{TEXT}encoder.layers.{number}.mlp.fc1.bias": (4,) for number in range(12)}
    path = write_tensors(tmp_path / "Dream v8.safetensors", {**checkpoint(), **layers})
    reads = Reads()
    entry = detect(path, reads)
    assert (entry.name, entry.kind, entry.layout, entry.family, entry.variant) == (
        "Dream v8",
        Kind.CHECKPOINT,
        Layout.SINGLE_FILE,
        "sd15",
        "base",
    )
    assert (entry.native_size, entry.latent_factor, entry.latent_channels, entry.text_width) == (512, 8, 4, 768)
    assert entry.text_layers == 12
    parameters = {component.name: component.parameters for component in entry.components}
    assert parameters == {
        "unet": 320 * 4 * 9 + 320 * 768 + 4 * 320 * 9,
        "vae": 4 * 8 * 8 * 9 + 512 * 4 * 9,
        "text_encoder": 177 * 768 + 12 * 4,
    }
    assert reads.reads <= 4


def test_detect_knows_nine_channels(tmp_path: Path) -> None:
    """A file whose network reads a mask inpaints and does nothing else."""
    entry = detect(write_tensors(tmp_path / "paint.safetensors", checkpoint(channels=9)), Reads())
    assert (entry.variant, tasks_of(entry)) == ("inpaint", frozenset({"inpaint"}))


def test_native_size_is_what_the_file_says(tmp_path: Path) -> None:
    """A trainer's word about the size is taken when it can be drawn."""
    for told, size in (("768x768", 768), ("512x768", 512), ("100x100", 512), ("9999x9999", 512), ("much", 512)):
        path = write_tensors(tmp_path / "a.safetensors", checkpoint(), metadata={"modelspec.resolution": told})
        assert detect(path, Reads()).native_size == size


def beside(path: Path, folder: Path) -> Path:
    """Lay the configurations of a diffusers folder beside a single file."""
    target = path.with_name(f"{path.stem}.config")
    for name in ("unet", "vae", "text_encoder", "scheduler", "tokenizer"):
        shutil.copytree(folder / name, target / name, ignore=shutil.ignore_patterns("*.safetensors"))
    return target


#: The sizes of the fixture's pipeline, in the original layout.
TINY: dict[str, int] = {"width": 8, "words": 16, "vae": 4}


def test_detect_reads_the_configuration_beside_a_file(sd15: Copy, tmp_path: Path) -> None:
    """A model of other sizes is offered with its own native size; each file beside it is part of what it is."""
    path = write_tensors(tmp_path / "small.safetensors", checkpoint(**TINY))
    folder = beside(path, sd15())
    (folder / "imagefleet.json").write_text('{"steps": 12, "guidance_scale": 3, "scheduler": "Euler"}')
    entry = detect(path, Reads())
    assert (entry.native_size, entry.text_width, entry.default_steps, entry.default_scheduler) == (128, 16, 12, "Euler")
    seen = {entry.fingerprint}
    for file, key in (
        ("unet/config.json", "norm_eps"),
        ("vae/config.json", "scaling_factor"),
        ("text_encoder/config.json", "layer_norm_eps"),
        ("scheduler/scheduler_config.json", "beta_end"),
    ):
        config = json.loads((folder / file).read_text()) | {key: 0.031}
        (folder / file).write_text(json.dumps(config))
        seen.add(detect(path, Reads()).fingerprint)
    tokenizer = folder / "tokenizer/tokenizer.json"
    tokenizer.write_text(tokenizer.read_text() + " ")
    seen.add(detect(path, Reads()).fingerprint)
    assert len(seen) == 6


def change(file: str, **values: Any) -> Callable[[Path], None]:
    """Return what changes a configuration beside a file."""

    def apply(folder: Path) -> None:
        config = json.loads((folder / file).read_text()) | values
        (folder / file).write_text(json.dumps(config))

    return apply


BESIDE: dict[str, tuple[str, Callable[[Path], object]]] = {
    "none": ("config_invalid", shutil.rmtree),
    "none of the VAE": ("config_invalid", lambda folder: shutil.rmtree(folder / "vae")),
    "an empty one": ("file_unreadable", lambda folder: (folder / "unet/config.json").unlink()),
    "code": ("config_key_refused", change("unet/config.json", auto_map={})),
    "another class": ("class_refused", change("vae/config.json", _class_name="Mine")),
    "another scheduler": ("class_refused", change("scheduler/scheduler_config.json", _class_name="Mine")),
    "v-prediction": ("unrecognised", change("scheduler/scheduler_config.json", prediction_type="v_prediction")),
    "other channels": ("weights_mismatch", change("unet/config.json", in_channels=9)),
    "another width": ("weights_mismatch", change("unet/config.json", cross_attention_dim=32)),
    "another VAE": ("weights_mismatch", change("vae/config.json", block_out_channels=[8, 8, 8, 8])),
    "another text encoder": ("weights_mismatch", change("text_encoder/config.json", hidden_size=32)),
    "no tokens": ("config_invalid", lambda folder: (folder / "tokenizer/tokenizer.json").unlink()),
    "impossible advice": ("config_invalid", lambda folder: (folder / "imagefleet.json").write_text('{"steps": 0}')),
}


@pytest.mark.parametrize("name", BESIDE)
def test_detect_refuses_what_the_configuration_does_not_describe(sd15: Copy, tmp_path: Path, name: str) -> None:
    """A configuration beside a file is checked as one in a folder is, and against the file."""
    code, damage = BESIDE[name]
    path = write_tensors(tmp_path / "small.safetensors", checkpoint(**TINY))
    damage(beside(path, sd15()))
    with pytest.raises(ModelRefused) as caught:
        detect(path, Reads())
    assert caught.value.code == code
    assert "small" in str(caught.value.path)


def without(*starts: str) -> Shapes:
    """Return a checkpoint's tensors but those that begin so."""
    return {name: shape for name, shape in checkpoint().items() if not name.startswith(starts)}


REFUSED: dict[str, tuple[Shapes, str, str]] = {
    "SDXL's UNet alone": (
        {**without("cond_stage_model."), f"{UNET}label_emb.0.0.weight": (8, 8)},
        "unrecognised",
        "is SDXL and holds no",
    ),
    "another network": ({f"{UNET}blocks.0.weight": (8, 8)}, "unrecognised", "of no family"),
    "Chroma": (
        {"distilled_guidance_layer.in_proj.weight": (8, 8), "double_blocks.0.a": (8, 8)},
        "unrecognised",
        "Chroma",
    ),
    "Qwen-Image alone": (
        {
            f"{UNET}transformer_blocks.0.img_mod.1.weight": (8, 8),
            f"{UNET}img_in.weight": (3072, 64),
            f"{UNET}txt_in.weight": (3072, 3584),
        },
        "unrecognised",
        "no VAE and no text encoder and no tokenizer",
    ),
    "Qwen-Image-Edit": (
        {"transformer_blocks.0.img_mod.1.weight": (8, 8), "__index_timestep_zero__": (1,)},
        "unrecognised",
        "Qwen-Image-Edit",
    ),
    "FLUX.2 alone": (
        {
            "double_stream_modulation_img.lin.weight": (18432, 3072),
            "double_blocks.0.img_attn.qkv.weight": (9216, 3072),
            "img_in.weight": (3072, 128),
            "txt_in.weight": (3072, 7680),
        },
        "unrecognised",
        "is FLUX.2 and holds no VAE and no text encoder and no tokenizer",
    ),
    "FLUX.2 dev alone": (
        {
            "double_stream_modulation_img.lin.weight": (36864, 6144),
            "guidance_in.in_layer.weight": (6144, 256),
            "img_in.weight": (6144, 128),
            "txt_in.weight": (6144, 15360),
        },
        "unrecognised",
        "is FLUX.2 and holds no VAE and no text encoder and no tokenizer",
    ),
    "Z-Image alone": (
        {
            f"{UNET}layers.0.adaLN_modulation.0.weight": (8, 8),
            f"{UNET}x_embedder.weight": (3840, 64),
            f"{UNET}cap_embedder.1.weight": (3840, 2560),
        },
        "unrecognised",
        "no VAE and no text encoder and no tokenizer",
    ),
    "Z-Image Omni": ({f"{UNET}siglip_embedder.0.weight": (8,)}, "unrecognised", "Z-Image Omni"),
    "Lumina 2": ({f"{UNET}layers.0.adaLN_modulation.1.weight": (8, 8)}, "unrecognised", "Lumina 2"),
    "quantised": ({**checkpoint(), f"{UNET}out.2.weight.absmax": (8,)}, "unrecognised", "quantised"),
    "velocity": ({**checkpoint(), "v_pred": ()}, "unrecognised", "v_prediction"),
    "pix2pix": (checkpoint(channels=8), "unrecognised", "instruct-pix2pix"),
    "the UNet alone": (without(VAE, "cond_stage_model."), "unrecognised", "no VAE"),
    "no text encoder": (without("cond_stage_model."), "unrecognised", "no text encoder"),
    "no words": (without(f"{TEXT}embeddings.token"), "weights_mismatch", "token_embedding"),
    "no cross attention": (without(f"{UNET}input_blocks.1"), "weights_mismatch", "width"),
    "half a VAE": (without(f"{VAE}decoder"), "weights_mismatch", "no tensor"),
    "a VAE without a level": (without(f"{VAE}encoder.down.1"), "weights_mismatch", "VAE in pieces"),
    "a VAE of five levels": (checkpoint(levels=5), "unrecognised", "latent cells"),
    "a layer without dimensions": (
        {**checkpoint(), f"{UNET}input_blocks.0.0.weight": (8,)},
        "weights_mismatch",
        "too few dimensions",
    ),
    "a VAE of other latents": (
        {**checkpoint(), f"{VAE}decoder.conv_in.weight": (512, 16, 3, 3)},
        "weights_mismatch",
        "latent channels",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_detect_refuses_other_checkpoints(tmp_path: Path, name: str) -> None:
    """Other families, other kinds and pieces are refused with code, file and reason."""
    shapes, code, reason = REFUSED[name]
    path = write_tensors(tmp_path / "model.safetensors", shapes)
    with pytest.raises(ModelRefused) as caught:
        detect(path, Reads())
    assert (caught.value.code, caught.value.path) == (code, path)
    assert reason in caught.value.reason


def test_detect_refuses_what_the_file_says_of_itself(tmp_path: Path) -> None:
    """A file whose metadata says that it predicts something else than noise is refused."""
    path = write_tensors(tmp_path / "a.safetensors", checkpoint(), metadata={"modelspec.prediction_type": "v"})
    with pytest.raises(ModelRefused) as caught:
        detect(path, Reads())
    assert caught.value.code == "unrecognised"


def test_scan_does_not_take_the_configuration_for_a_model(conn: Any, sd15: Copy, tmp_path: Path) -> None:
    """The folder beside a file is no model in pieces; the same folder without its file is one."""
    place = tmp_path / "files"
    path = write_tensors(place / "small.safetensors", checkpoint(**TINY))
    beside(path, sd15())
    report = scan(conn, [place])
    assert ([ref.name for ref in report.found], report.refused) == (["small"], ())
    path.rename(place / "other.txt")
    assert [refusal.code for refusal in scan(conn, [place]).refused] == ["unrecognised"]


#: One telling tensor of each published model that is not drawn here, under the name that its authors gave it.
ELSEWHERE: dict[str, str] = {
    "double_stream_blocks.0.block.attn1.to_q.weight": "HiDream",
    "double_layers.0.attn.w1q.weight": "AuraFlow",
    "txt_in.individual_token_refiner.blocks.0.norm1.weight": "Hunyuan Video",
    "patchify_proj.weight": "LTX-Video",
    "clip_txt_mapper.weight": "Stable Cascade",
    "clip_mapper.weight": "Stable Cascade",
    "head.modulation": "Wan",
    "blocks.0.cross_attn.q_linear.weight": "PixArt or Sana",
}


@pytest.mark.parametrize("start", ["", UNET])
@pytest.mark.parametrize("name", ELSEWHERE)
def test_detect_names_what_is_drawn_elsewhere(tmp_path: Path, name: str, start: str) -> None:
    """Who drops in a model of another kind is told which one it is, however its tensors are prefixed."""
    path = write_tensors(tmp_path / "model.safetensors", {f"{start}{name}": (8, 8)})
    with pytest.raises(ModelRefused, match=f"is a checkpoint of {ELSEWHERE[name]}, which is not supported yet"):
        detect(path, Reads())
