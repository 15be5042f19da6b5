"""LoRAs are told by the names and shapes of their tensors, in every layout people have."""

from collections.abc import Callable
from pathlib import Path

import pytest

from models_registry.detection import detect
from models_registry.entries import Kind, Layout
from models_registry.reading.bounded_files import Reads
from models_registry.refusals import ModelRefused
from tests.tensor_files import Shapes, write_tensors

#: Cross attention reads text features of this width in the shapes below.
WIDTH = 768
UNET = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k"
TEXT = "text_encoder.text_model.encoder.layers.0.self_attn.q_proj"
KOHYA = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"
KOHYA_LDM = "lora_unet_input_blocks_1_1_transformer_blocks_0_attn2_to_v"
KOHYA_TEXT = "lora_te_text_model_encoder_layers_0_self_attn_q_proj"
CONV = "lora_unet_down_blocks_0_resnets_0_conv1"


def plain(layer: str, rank: int = 4, inputs: int = WIDTH) -> Shapes:
    """Return kohya's tensors of one linear layer."""
    return {
        f"{layer}.alpha": (1,),
        f"{layer}.lora_down.weight": (rank, inputs),
        f"{layer}.lora_up.weight": (320, rank),
    }


def pair(layer: str, inputs: int, outputs: int, rank: int = 4) -> Shapes:
    """Return peft's tensors of one linear layer."""
    return {f"{layer}.lora_A.weight": (rank, inputs), f"{layer}.lora_B.weight": (outputs, rank)}


def loha(layer: str, rank: int = 4, inputs: int = WIDTH) -> Shapes:
    """Return LyCORIS' tensors of one LoHa layer."""
    return {
        f"{layer}.hada_w1_a": (320, rank),
        f"{layer}.hada_w1_b": (rank, inputs),
        f"{layer}.hada_w2_a": (320, rank),
        f"{layer}.hada_w2_b": (rank, inputs),
    }


#: Layout → tensors, variant, rank, width of the text features.
LAYOUTS: dict[str, tuple[Shapes, str, int | None, int | None]] = {
    "peft": (
        {f"{UNET}.lora_A.weight": (8, WIDTH), f"{UNET}.lora_B.weight": (320, 8)},
        "lora", 8, WIDTH,
    ),
    "diffusers": (
        {f"{UNET}.lora.down.weight": (8, WIDTH), f"{UNET}.lora.up.weight": (320, 8)},
        "lora", 8, WIDTH,
    ),
    "diffusers' processors": (
        {
            "unet.mid_block.attentions.0.transformer_blocks.0.attn2.processor.to_k_lora.down.weight": (4, 64),
            "unet.mid_block.attentions.0.transformer_blocks.0.attn2.processor.to_k_lora.up.weight": (320, 4),
        },
        "lora", 4, 64,
    ),
    "the UNet's alone": (
        {
            "mid_block.attentions.0.transformer_blocks.0.attn2.processor.to_v_lora.down.weight": (4, 64),
            "mid_block.attentions.0.transformer_blocks.0.attn2.processor.to_v_lora.up.weight": (320, 4),
        },
        "lora", 4, 64,
    ),
    "with text encoder": (
        {
            f"{UNET}.lora_A.weight": (8, 64), f"{UNET}.lora_B.weight": (320, 8),
            f"{TEXT}.lora_linear_layer.down.weight": (16, 64), f"{TEXT}.lora_linear_layer.up.weight": (64, 16),
        },
        "lora", 16, 64,
    ),
    "kohya": ({**plain(KOHYA), **plain(KOHYA_TEXT, rank=2)}, "lora", 4, WIDTH),
    "kohya, original blocks": (plain(KOHYA_LDM), "lora", 4, WIDTH),
    "kohya, text encoder alone": (plain(KOHYA_TEXT), "lora", 4, WIDTH),
    "self attention alone": (plain(KOHYA.replace("attn2_to_k", "attn1_to_k"), inputs=320), "lora", 4, None),
    "convolutions of one pixel": (
        {f"{CONV[:-6]}_proj_in.lora_down.weight": (4, 320, 1, 1), f"{CONV[:-6]}_proj_in.lora_up.weight": (320, 4, 1, 1)},
        "lora", 4, None,
    ),
    "LoCon": (
        {**plain(KOHYA), f"{CONV}.lora_down.weight": (4, 320, 3, 3), f"{CONV}.lora_up.weight": (320, 4, 1, 1)},
        "locon", 4, WIDTH,
    ),
    "LoCon with a middle": (
        {
            f"{CONV}.lora_down.weight": (4, 320, 1, 1), f"{CONV}.lora_up.weight": (320, 4, 1, 1),
            f"{CONV}.lora_mid.weight": (4, 4, 3, 3),
        },
        "locon", 4, None,
    ),
    "LoHa": (loha(KOHYA), "loha", 4, WIDTH),
    "LoHa with cores": (
        {**loha(CONV, inputs=320), f"{CONV}.hada_t1": (4, 4, 3, 3), f"{CONV}.hada_t2": (4, 4, 3, 3)},
        "loha", 4, None,
    ),
    "LoKr": (
        {f"{KOHYA}.lokr_w1": (4, 8), f"{KOHYA}.lokr_w2_a": (80, 6), f"{KOHYA}.lokr_w2_b": (6, 96)},
        "lokr", 6, WIDTH,
    ),
    "LoKr of whole matrices": (
        {f"{KOHYA}.lokr_w1": (4, 8), f"{KOHYA}.lokr_w2": (80, 96)},
        "lokr", None, WIDTH,
    ),
    "LoKr in four": (
        {
            f"{KOHYA}.lokr_w1_a": (4, 2), f"{KOHYA}.lokr_w1_b": (2, 8), f"{KOHYA}.lokr_w2_a": (80, 6),
            f"{KOHYA}.lokr_w2_b": (6, 96), f"{KOHYA}.alpha": (1,),
        },
        "lokr", 6, WIDTH,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LAYOUTS)
def test_detect_recognises_every_layout_of_loras(tmp_path: Path, name: str) -> None:
    """Kind, variant, rank and text width are read from names and shapes; the name is the file's."""
    shapes, variant, rank, width = LAYOUTS[name]
    path = write_tensors(tmp_path / "my style v1.2.safetensors", shapes)
    reads = Reads()
    entry = detect(path, reads)
    assert (entry.name, entry.kind, entry.layout, entry.path) == (
        "my style v1.2",
        Kind.LORA,
        Layout.SINGLE_FILE,
        path,
    )
    assert (entry.family, entry.variant, entry.rank, entry.text_width) == ("sd15", variant, rank, width)
    assert [component.name for component in entry.components] == ["lora"]
    # Three for the header, one for the fingerprint of so small a file.
    assert reads.reads <= 4


_BLOCK = "transformer.transformer_blocks.0.attn"
_FC1 = "_text_model_encoder_layers_0_mlp_fc1"
_FIRST_TEXT, _SECOND_TEXT = (
    f"{each}.text_model.encoder.layers.0.mlp.fc1" for each in ("text_encoder", "text_encoder_2")
)
#: Layout → tensors, metadata, family, width of the text features, width of the network.
FAMILIES: dict[str, tuple[Shapes, dict[str, str], str, int | None, int | None]] = {
    "SDXL by its text encoders": (plain(f"lora_te2{_FC1}", inputs=1280), {}, "sdxl", None, None),
    "SDXL by both text encoders": (
        {**plain(f"lora_te1{_FC1}", inputs=768), **plain(f"lora_te2{_FC1}", inputs=1280)}, {}, "sdxl", 2048, None,
    ),
    "SDXL of diffusers": ({**pair(_FIRST_TEXT, 32, 64), **pair(_SECOND_TEXT, 48, 96)}, {}, "sdxl", 80, None),
    "SDXL by its depth": (
        plain("lora_unet_input_blocks_4_1_transformer_blocks_1_attn1_to_k", inputs=640), {}, "sdxl", None, None,
    ),
    "SDXL by its width": (plain(KOHYA, inputs=2048), {}, "sdxl", 2048, None),
    "SD 2 by its width": (plain(KOHYA, inputs=1024), {}, "sd2", 1024, None),
    "SD 2 by what is around its attention": (
        {**plain(KOHYA, inputs=64), **plain("lora_unet_down_blocks_0_attentions_0_proj_in", inputs=32)}, {}, "sd2", 64, None,
    ),
    "SD 1 by what is around its attention": (
        {
            **plain(KOHYA, inputs=64),
            "lora_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight": (4, 32, 1, 1),
            "lora_unet_down_blocks_0_attentions_0_proj_in.lora_up.weight": (32, 4, 1, 1),
        },
        {}, "sd15", 64, None,
    ),
    "SD 1 with its first level": (
        {**plain(KOHYA), **plain(KOHYA.replace("attn2_to_k", "attn1_to_q"), inputs=320)}, {}, "sd15", 768, 320,
    ),
    "SD 1, original blocks": (
        plain("lora_unet_input_blocks_1_1_transformer_blocks_0_attn1_to_q", inputs=320), {}, "sd15", None, 320,
    ),
    "FLUX of kohya": (plain("lora_unet_double_blocks_0_img_attn_qkv", inputs=3072), {}, "flux", None, 3072),
    "FLUX of kohya, single blocks": (
        {
            "lora_unet_single_blocks_0_linear1.lora_down.weight": (4, 3072),
            "lora_unet_single_blocks_0_linear1.lora_up.weight": (7 * 3072, 4),
            **plain(f"lora_te1{_FC1}", inputs=768),
        },
        {}, "flux", None, 3072,
    ),
    "FLUX of diffusers": (pair("transformer.single_transformer_blocks.0.attn.to_q", 128, 128), {}, "flux", None, 128),
    "FLUX of diffusers, two streams alone": (pair(f"{_BLOCK}.add_q_proj", 3072, 3072), {}, "flux", None, 3072),
    "FLUX of OneTrainer": (
        plain("lora_transformer_single_transformer_blocks_0_attn_to_q", inputs=3072), {}, "flux", None, 3072,
    ),
    "FLUX of peft": (
        pair("base_model.model.single_transformer_blocks.0.attn.to_q", 3072, 3072), {}, "flux", None, 3072,
    ),
    "SD 3 of peft": (pair("base_model.model.transformer_blocks.0.attn.add_q_proj", 1536, 1536), {}, "sd3", None, 1536),
    "SD 1 of peft": (pair(f"base_model.model.{UNET.removeprefix('unet.')}", WIDTH, 320), {}, "sd15", WIDTH, None),
    "SDXL of peft": (
        {**pair(f"base_model.model.{_FIRST_TEXT}", 32, 64), **pair(f"base_model.model.{_SECOND_TEXT}", 48, 96)},
        {}, "sdxl", 80, None,
    ),
    "FLUX of BFL": (pair("diffusion_model.double_blocks.0.txt_attn.qkv", 3072, 9216), {}, "flux", None, 3072),
    "FLUX of BFL, bare": (pair("double_blocks.0.img_attn.qkv", 128, 384), {}, "flux", None, 128),
    "FLUX with its text": (
        {**pair("transformer.context_embedder", 4096, 3072), **pair("transformer.single_transformer_blocks.0.proj_mlp", 3072, 8)},
        {}, "flux", 4096, None,
    ),
    "FLUX.2 by what its single blocks read": (
        {
            **pair("diffusion_model.double_blocks.0.img_attn.qkv", 3072, 9216),
            **pair("diffusion_model.single_blocks.0.linear1", 3072, 9 * 3072),
        },
        {}, "flux2", None, 3072,
    ),
    "FLUX.1 by what its single blocks read": (
        pair("diffusion_model.single_blocks.0.linear1", 3072, 7 * 3072), {}, "flux", None, 3072,
    ),
    "FLUX.2 by its gates": (
        {
            "lora_unet_double_blocks_0_img_mlp_0.lora_down.weight": (4, 64),
            "lora_unet_double_blocks_0_img_mlp_0.lora_up.weight": (384, 4),
            "lora_unet_double_blocks_0_img_mlp_0.alpha": (),
        },
        {}, "flux2", None, None,
    ),
    "FLUX.2 by what its single blocks give": (
        pair("single_blocks.0.linear2", 4 * 3072, 3072), {}, "flux2", None, None,
    ),
    "FLUX.1 by the other half of its text's layers": (
        pair("double_blocks.0.txt_mlp.2", 4 * 3072, 3072), {}, "flux", None, None,
    ),
    "FLUX.2 9B, attention alone": (pair("double_blocks.0.img_attn.qkv", 4096, 12288), {}, "flux2", None, 4096),
    "FLUX.2 dev, attention alone": (pair(f"{_BLOCK}.to_q", 6144, 6144), {}, "flux2", None, 6144),
    "FLUX.2 4B, attention alone, by its words": (
        pair("double_blocks.0.img_attn.qkv", 3072, 9216), {"ss_base_model_version": "flux2_klein_4b"}, "flux2", None, 3072,
    ),
    "FLUX.2 4B of diffusers, attention alone, by its words": (
        pair(f"{_BLOCK}.to_q", 3072, 3072), {"modelspec.architecture": "flux-2-klein/lora"}, "flux2", None, 3072,
    ),
    "FLUX.1 by its blocks, whatever it is called": (
        pair("double_blocks.18.img_attn.qkv", 3072, 9216), {"modelspec.title": "flux.2 look"}, "flux", None, 3072,
    ),
    "FLUX.2 of diffusers": (
        {
            **pair("transformer.single_transformer_blocks.0.attn.to_qkv_mlp_proj", 4096, 9 * 4096),
            **pair("transformer.context_embedder", 12288, 4096),
        },
        {}, "flux2", 12288, 4096,
    ),
    "FLUX.2 by what is shared": (
        pair("transformer.double_stream_modulation_img.linear", 3072, 6 * 3072), {}, "flux2", None, None,
    ),
    "SD 3 of kohya": (plain("lora_unet_joint_blocks_0_x_block_attn_qkv", inputs=1536), {}, "sd3", None, 1536),
    "SD 3 native": (pair("diffusion_model.joint_blocks.0.context_block.attn.qkv", 2432, 7296), {}, "sd3", None, 2432),
    "SD 3 of diffusers": (pair(f"{_BLOCK}.add_q_proj", 1536, 1536), {}, "sd3", None, 1536),
    "SD 3.5 large of diffusers": (pair(f"{_BLOCK}.to_q", 2432, 2432), {}, "sd3", None, 2432),
    "Qwen-Image of diffusers": (
        pair("transformer.transformer_blocks.0.img_mlp.net.2", 12288, 3072), {}, "qwenimage", None, None,
    ),
    "Qwen-Image of ComfyUI": (
        {
            **pair("diffusion_model.transformer_blocks.0.txt_mod.1", 128, 768),
            **pair("diffusion_model.transformer_blocks.0.attn.to_q", 128, 128),
        },
        {}, "qwenimage", None, 128,
    ),
    "Qwen-Image of kohya": (
        {**plain("lora_unet_transformer_blocks_0_img_mod_1", inputs=3072), **plain("lora_unet_txt_in", inputs=3584)},
        {}, "qwenimage", 3584, None,
    ),
    "Qwen-Image of a trainer, attention alone": (
        {
            f"transformer_blocks.{block}.attn.add_q_proj.lora_{half}.default.weight": shape
            for block in (0, 59) for half, shape in (("A", (4, 3072)), ("B", (3072, 4)))
        },
        {}, "qwenimage", None, 3072,
    ),
    "Qwen-Image by its words": (
        pair(f"{_BLOCK}.to_q", 3072, 3072), {"modelspec.architecture": "Qwen-Image/lora"}, "qwenimage", None, 3072,
    ),
    "Z-Image of ComfyUI": (pair("diffusion_model.layers.0.attention.to_q", 3840, 3840), {}, "zimage", None, 3840),
    "Z-Image of kohya": (
        {**plain("lora_unet_layers_0_attention_qkv", inputs=3840), **plain("lora_unet_cap_embedder_1", inputs=2560)},
        {}, "zimage", 2560, 3840,
    ),
    "Z-Image of diffusers": (
        {
            **pair("transformer.context_refiner.1.feed_forward.w1", 3840, 10240),
            **pair("transformer.noise_refiner.0.attention.to_v", 3840, 3840),
        },
        {}, "zimage", None, 3840,
    ),
    "a small SD 3 by its blocks": (pair("transformer.transformer_blocks.21.attn.to_q", 64, 64), {}, "sd3", None, 64),
    "a small SD 3.5 medium": (pair("transformer.transformer_blocks.0.attn2.to_q", 64, 64), {}, "sd3", None, 64),
    "a small SD 3 by its words": (
        pair(f"{_BLOCK}.to_q", 64, 64), {"modelspec.architecture": "stable-diffusion-3-medium/lora"}, "sd3", None, 64,
    ),
    "a small FLUX by its words": (pair(f"{_BLOCK}.to_q", 64, 64), {"ss_base_model_version": "flux1"}, "flux", None, 64),
}  # fmt: skip


@pytest.mark.parametrize("name", FAMILIES)
def test_detect_tells_what_a_lora_was_made_for(tmp_path: Path, name: str) -> None:
    """The layers that it changes, and their widths, tell the family and which of its sizes."""
    shapes, metadata, family, text_width, width = FAMILIES[name]
    entry = detect(write_tensors(tmp_path / "style.safetensors", shapes, metadata=metadata), Reads())
    assert (entry.kind, entry.family, entry.text_width, entry.width) == (Kind.LORA, family, text_width, width)


REFUSED: dict[str, tuple[Shapes, str, str]] = {
    "neither FLUX by its widths": (
        pair("diffusion_model.single_blocks.0.linear1", 3072, 8 * 3072),
        "unrecognised",
        "another FLUX",
    ),
    "FLUX.2 with a layer of FLUX.1": (
        {
            **pair("transformer.single_transformer_blocks.0.attn.to_out", 4 * 3072, 3072),
            **pair("transformer.time_text_embed.text_embedder.linear_1", 768, 3072),
        },
        "unrecognised",
        "a layer that FLUX.2 does not have",
    ),
    "a layer that Qwen-Image does not have": (
        {**pair("transformer.transformer_blocks.0.img_mlp.net.2", 64, 64), **pair("transformer.single.0", 64, 64)},
        "unrecognised",
        "Qwen-Image does not have: 'single_0'",
    ),
    "a layer that Z-Image does not have": (
        {**pair("layers.0.attention.to_q", 64, 64), **pair("layer_norm", 64, 64)},
        "unrecognised",
        "Z-Image does not have",
    ),
    "Stable Cascade": (plain("lora_prior_unet_a"), "unrecognised", "Stable Cascade"),
    "T5 alone": (plain("lora_te3_encoder_block_0_layer_0_SelfAttention_q"), "unrecognised", "does not say of which"),
    "a layer that FLUX does not have": (
        {**pair("transformer.single_transformer_blocks.0.attn.to_q", 64, 64), **pair("transformer.decoder.0", 64, 64)},
        "unrecognised",
        "FLUX.1 does not have: 'decoder_0'",
    ),
    "two widths of FLUX": (
        {
            **pair("transformer.single_transformer_blocks.0.attn.to_q", 64, 64),
            **pair("transformer.transformer_blocks.0.attn.to_q", 32, 32),
        },
        "weights_mismatch",
        "several widths: [32, 64]",
    ),
    "another network": (
        {"net.a.lora_A.weight": (4, 64), "net.a.lora_B.weight": (64, 4)},
        "unrecognised",
        "does not have: 'net_a'",
    ),
    "DoRA": ({**plain(KOHYA), f"{KOHYA}.dora_scale": (320, 1)}, "unrecognised", "DoRA"),
    "OFT": ({f"{KOHYA}.oft_blocks": (4, 8, 8)}, "unrecognised", "unknown kind"),
    "full differences": ({**plain(KOHYA), f"{CONV}.diff": (320, 320)}, "unrecognised", "unknown kind"),
    "half of a pair": ({f"{KOHYA}.lora_down.weight": (4, WIDTH)}, "weights_mismatch", "has only down"),
    "alpha alone": ({**plain(KOHYA), f"{CONV}.alpha": (1,)}, "weights_mismatch", "has only alpha"),
    "three of four": (
        {name: shape for name, shape in loha(KOHYA).items() if not name.endswith("w2_b")},
        "weights_mismatch",
        "hada_w2_a",
    ),
    "halves that do not fit": (
        {f"{KOHYA}.lora_down.weight": (4, WIDTH), f"{KOHYA}.lora_up.weight": (320, 8)},
        "weights_mismatch",
        "do not fit",
    ),
    "no matrices": (
        {f"{KOHYA}.lora_down.weight": (WIDTH,), f"{KOHYA}.lora_up.weight": (320, 4)},
        "weights_mismatch",
        "no matrices",
    ),
    "two widths": (
        {**plain(KOHYA), **plain(KOHYA_TEXT, inputs=64)},
        "weights_mismatch",
        "several widths: [64, 768]",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_detect_refuses_loras_that_cannot_be_used(tmp_path: Path, name: str) -> None:
    """Those of other families, of unknown kinds, and those in pieces are refused with code, file and reason."""
    shapes, code, reason = REFUSED[name]
    path = write_tensors(tmp_path / "style.safetensors", shapes)
    with pytest.raises(ModelRefused) as caught:
        detect(path, Reads())
    assert (caught.value.code, caught.value.path) == (code, path)
    assert reason in caught.value.reason


def test_fingerprint_of_a_file_does_not_depend_on_its_name(tmp_path: Path) -> None:
    """Two files of equal bytes are one LoRA to whoever loads it; other bytes are another."""
    first = write_tensors(tmp_path / "a.safetensors", plain(KOHYA))
    second = write_tensors(tmp_path / "b/c.safetensors", plain(KOHYA))
    assert detect(first, Reads()).fingerprint == detect(second, Reads()).fingerprint
    raw = bytearray(second.read_bytes())
    raw[-1] = 1
    second.write_bytes(raw)
    assert detect(first, Reads()).fingerprint != detect(second, Reads()).fingerprint


def test_header_of_a_lora_may_tell_much(tmp_path: Path) -> None:
    """Trainers write hundreds of kilobytes of captions' statistics into small files."""
    path = write_tensors(
        tmp_path / "a.safetensors", plain(KOHYA), metadata={"ss_tag_frequency": "x" * 900 * 1024, "ss_v2": "False"}
    )
    assert detect(path, Reads()).rank == 4


@pytest.mark.parametrize(
    "damage",
    [
        lambda raw: raw[:-1],
        lambda raw: raw[: len(raw) // 2],
        lambda raw: raw + b"\0",
        lambda _: b"",
        lambda _: b"PK\x03\x04",
    ],
)
def test_damaged_files_are_refused_by_name(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    """A file that was cut, grew, or is something else is refused, and says which file it is."""
    path = write_tensors(tmp_path / "style.safetensors", plain(KOHYA))
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ModelRefused) as caught:
        detect(path, Reads())
    assert caught.value.path == path
    assert caught.value.code in {"offsets_invalid", "header_truncated", "not_safetensors", "pickle_refused"}
