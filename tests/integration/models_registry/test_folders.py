"""Folders of every family and variant are recognised, whole or in pieces; what does not fit together is refused."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from models_registry.detection import detect
from models_registry.entries import Kind, Layout
from models_registry.families import FAMILIES
from models_registry.reading.bounded_files import Reads
from models_registry.refusals import ModelRefused
from tests.tiny import flux2, qwenimage, transformers, unets, zimage
from tests.tiny.families import BUILDERS

Build = Callable[[Path], Path]
#: Variants whose weights and settings are those of another one: their names tell them apart.
NAMES = {("sd3", "3.5-large-turbo"): "sd3.5_large_turbo", ("flux", "depth"): "FLUX.1-Depth-dev"}
FIRST_LAYERS = (
    "conv_in.weight",
    "x_embedder.weight",
    "pos_embed.proj.weight",
    "img_in.weight",
    "all_x_embedder.2-1.weight",
)
TRANSFORMER = "transformer/diffusion_pytorch_model"


def change(path: Path, **values: Any) -> None:
    """Change values of a JSON file; an ellipsis removes the key."""
    config = json.loads(path.read_text()) | values
    path.write_text(json.dumps({key: value for key, value in config.items() if value is not ...}))


def change_inside(path: Path, key: str, **values: Any) -> None:
    """Change values of an object in a JSON file."""
    change(path, **{key: json.loads(path.read_text())[key] | values})


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Build], Path]:
    """Return a function that builds a tiny checkpoint once for the session; never change it."""
    built: dict[Build, Path] = {}

    def build(builder: Build) -> Path:
        if builder not in built:
            built[builder] = builder(tmp_path_factory.mktemp("saved") / "tiny")
        return built[builder]

    return build


@pytest.fixture
def copy(saved: Callable[[Build], Path], tmp_path: Path) -> Callable[..., Path]:
    """Return a function that puts a copy of a tiny checkpoint, which a test may change, under a name."""

    def put(builder: Build, name: str = "model") -> Path:
        return Path(shutil.copytree(saved(builder), tmp_path / name))

    return put


Copy = Callable[..., Path]


def test_every_variant_has_a_builder() -> None:
    """No variant of any family is left out here."""
    assert BUILDERS.keys() == {(family.name, variant) for family in FAMILIES.values() for variant in family.variants}


@pytest.mark.parametrize(("family", "variant"), sorted(BUILDERS))
def test_detect_recognises_every_variant(copy: Copy, family: str, variant: str) -> None:
    """Family, variant and sizes are those of what diffusers saved, in counted reads."""
    folder = copy(BUILDERS[family, variant], NAMES.get((family, variant), "model"))
    reads = Reads()
    entry = detect(folder, reads)
    assert (entry.kind, entry.layout, entry.family, entry.variant) == (
        Kind.CHECKPOINT,
        Layout.DIFFUSERS,
        family,
        variant,
    )
    index = json.loads((folder / "model_index.json").read_text())
    weights = [name for name in index if (folder / name).is_dir() and list((folder / name).glob("*.safetensors"))]
    assert {component.name for component in entry.components} == set(weights)
    denoiser = load_file(folder / entry.components[0].name / "diffusion_pytorch_model.safetensors")
    config = json.loads((folder / entry.components[0].name / "config.json").read_text())
    read = next(key for key in ("cross_attention_dim", "joint_attention_dim", "cap_feat_dim") if key in config)
    assert entry.text_width == config[read]
    first = next(name for name in FIRST_LAYERS if name in denoiser)
    assert entry.width == denoiser[first].shape[0]
    vae = json.loads((folder / "vae/config.json").read_text())
    assert entry.latent_channels == vae.get("latent_channels", vae.get("z_dim"))
    assert entry.latent_factor == 8
    if "sample_size" in config:
        assert entry.native_size == 8 * config["sample_size"]
    # A header is three reads at most, the rest is configurations and samples.
    assert reads.reads < 10 * reads.files


@pytest.mark.parametrize(
    ("builder", "told", "variant"),
    [
        (unets.build_sdxl, "turbo", "turbo"),
        (unets.build_sdxl_lightning, "base", "base"),
        (transformers.build_sd35_large, "3.5-large-turbo", "3.5-large-turbo"),
        (transformers.build_flux_canny, "depth", "depth"),
        (zimage.build_base, "turbo", "turbo"),
        (zimage.build_turbo, "base", "base"),
    ],
)
def test_the_author_tells_what_nothing_else_tells(copy: Copy, builder: Build, told: str, variant: str) -> None:
    """`imagefleet.json` says the variant where weights and settings leave several open."""
    folder = copy(builder)
    (folder / "imagefleet.json").write_text(json.dumps({"variant": told}))
    assert detect(folder, Reads()).variant == variant


@pytest.mark.parametrize(
    ("name", "variant"),
    [
        ("DreamXL_Turbo-v2", "turbo"),
        ("juggernautxlLightning", "lightning"),
        ("my-LCM", "lcm"),
        ("turbocharged", "base"),
        ("model", "base"),
    ],
)
def test_a_name_tells_what_nothing_else_tells(copy: Copy, name: str, variant: str) -> None:
    """A word of its own in the folder's name is taken; without one it is the ordinary variant."""
    folder = copy(unets.build_sdxl, name)
    assert detect(folder, Reads()).variant == variant


def test_a_name_does_not_outweigh_the_scheduler(copy: Copy) -> None:
    """What the configuration says stands, whatever the folder is called."""
    assert detect(copy(unets.build_sdxl_v, "turbo"), Reads()).variant == "v"
    assert detect(copy(unets.build_sdxl_refiner, "lightning"), Reads()).variant == "refiner"
    assert detect(copy(unets.build_sd2_v, "base"), Reads()).variant == "v"


def test_detect_knows_published_widths(copy: Copy) -> None:
    """Stable Diffusion 2.x is told from 1.x by the width of its text features where that is a published one."""
    folder = copy(unets.build_sd15)
    change(folder / "unet/config.json", cross_attention_dim=1024)
    change(folder / "text_encoder/config.json", hidden_size=1024)
    with pytest.raises(ModelRefused) as caught:
        detect(folder, Reads())
    assert "1024" in caught.value.reason


def shard(folder: Path, stem: str, count: int = 2) -> None:
    """Cut the weights of a component into several files, as the libraries save large ones."""
    whole = load_file(folder / f"{stem}.safetensors")
    (folder / f"{stem}.safetensors").unlink()
    places: dict[str, str] = {}
    for number in range(count):
        name = f"{stem}-{number + 1:05}-of-{count:05}.safetensors"
        part = {key: whole[key] for place, key in enumerate(sorted(whole)) if place % count == number}
        save_file(part, folder / name)
        places |= dict.fromkeys(part, name)
    size = sum(tensor.nbytes for tensor in whole.values())
    index = {"metadata": {"total_size": size + 2**40}, "weight_map": places}
    (folder / f"{stem}.safetensors.index.json").write_text(json.dumps(index))


def test_weights_in_several_files_are_one_component(copy: Copy) -> None:
    """A folder whose components lie in pieces is the same model, and each piece is part of what it is."""
    folder = copy(transformers.build_flux_dev)
    whole = detect(folder, Reads())
    shard(folder / "transformer", "diffusion_pytorch_model", 3)
    shard(folder / "text_encoder_2", "model")
    reads = Reads()
    entry = detect(folder, reads)
    # A digest is that of files: the same weights cut otherwise are found equal when they are loaded.
    assert [each.model_copy(update={"digest": ""}) for each in entry.components] == [
        each.model_copy(update={"digest": ""}) for each in whole.components
    ]
    seen = {whole.fingerprint, entry.fingerprint}
    for piece in sorted((folder / "transformer").glob("*.safetensors")):
        weights = load_file(piece)
        save_file({name: tensor + 1 for name, tensor in weights.items()}, piece)
        seen.add(detect(folder, Reads()).fingerprint)
    assert len(seen) == 5


def test_half_precision_files_are_taken(copy: Copy) -> None:
    """Weights that are only there as `fp16` are those that are loaded."""
    folder = copy(unets.build_sdxl)
    for name in ("unet", "vae"):
        path = folder / name / "diffusion_pytorch_model.safetensors"
        save_file(
            {key: tensor.to(torch.float16) for key, tensor in load_file(path).items()}, path.with_suffix(".fp16.st")
        )
        path.with_suffix(".fp16.st").rename(path.with_suffix(".fp16.safetensors"))
        path.unlink()
    assert {each.name: each.dtype for each in detect(folder, Reads()).components} == {
        "unet": "F16",
        "vae": "F16",
        "text_encoder": "F32",
        "text_encoder_2": "F32",
    }


def _index(folder: Path) -> Path:
    shard(folder / "transformer", "diffusion_pytorch_model")
    return folder / f"{TRANSFORMER}.safetensors.index.json"


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-8])


def _renamed(folder: Path, name: str) -> None:
    index = _index(folder)
    places = json.loads(index.read_text())["weight_map"]
    change(index, weight_map={key: name if key == min(places) else value for key, value in places.items()})


def _moved(folder: Path) -> None:
    index = _index(folder)
    places = json.loads(index.read_text())["weight_map"]
    other = next(value for value in places.values() if value != places[min(places)])
    change(index, weight_map=places | {min(places): other})


def _both(folder: Path) -> None:
    whole = folder / f"{TRANSFORMER}.safetensors"
    kept = whole.read_bytes()
    _index(folder)
    whole.write_bytes(kept)


def _inner(folder: Path, key: str, **values: Any) -> None:
    path = folder / "text_encoder/config.json"
    change(path, **{key: json.loads(path.read_text())[key] | values})


DAMAGE: dict[str, tuple[Build, str, str, Callable[[Path], object]]] = {
    "a piece is away": (
        transformers.build_flux_dev,
        "weights_missing",
        "00002-of-00002",
        lambda f: _index(f).with_name("diffusion_pytorch_model-00002-of-00002.safetensors").unlink(),
    ),
    "a piece is cut": (
        transformers.build_flux_dev,
        "offsets_invalid",
        "00001-of-00002",
        lambda f: _cut(_index(f).with_name("diffusion_pytorch_model-00001-of-00002.safetensors")),
    ),
    "an index that leads outside": (
        transformers.build_flux_dev,
        "config_invalid",
        "index.json",
        lambda f: _renamed(f, "../../other/diffusion_pytorch_model-00001-of-00002.safetensors"),
    ),
    "an index of a pickle": (
        transformers.build_flux_dev,
        "config_invalid",
        "index.json",
        lambda f: _renamed(f, "pytorch_model.bin"),
    ),
    "an index of more files": (
        transformers.build_flux_dev,
        "config_invalid",
        "index.json",
        lambda f: _renamed(f, "diffusion_pytorch_model-00003-of-00003.safetensors"),
    ),
    "an index of nothing": (
        transformers.build_flux_dev,
        "config_invalid",
        "index.json",
        lambda f: change(_index(f), weight_map={}),
    ),
    "tensors in another piece": (transformers.build_flux_dev, "weights_mismatch", "of-00002", _moved),
    "whole and in pieces": (transformers.build_flux_dev, "config_invalid", "index.json", _both),
    "another VAE": (
        transformers.build_flux_dev,
        "config_invalid",
        "transformer/config.json",
        lambda f: change(f / "vae/config.json", latent_channels=4),
    ),
    "another T5": (
        transformers.build_flux_dev,
        "config_invalid",
        "transformer/config.json",
        lambda f: change(f / "text_encoder_2/config.json", d_model=32),
    ),
    "another CLIP": (
        transformers.build_flux_dev,
        "config_invalid",
        "transformer/config.json",
        lambda f: change(f / "text_encoder/config.json", hidden_size=32),
    ),
    "control without guidance": (
        transformers.build_flux_canny,
        "unrecognised",
        "transformer/config.json",
        lambda f: change(f / "transformer/config.json", guidance_embeds=False),
    ),
    "channels of nobody": (
        transformers.build_flux_dev,
        "unrecognised",
        "transformer/config.json",
        lambda f: change(f / "transformer/config.json", in_channels=96),
    ),
    "code in a T5": (
        transformers.build_flux_dev,
        "config_key_refused",
        "text_encoder_2/config.json",
        lambda f: change(f / "text_encoder_2/config.json", auto_map={}),
    ),
    "a scheduler of noise": (
        transformers.build_flux_dev,
        "class_refused",
        "model_index.json",
        lambda f: change(f / "model_index.json", scheduler=["diffusers", "EulerDiscreteScheduler"]),
    ),
    "settings of sentencepiece": (
        transformers.build_flux_dev,
        "class_refused",
        "tokenizer_2",
        lambda f: change(f / "tokenizer_2/tokenizer_config.json", sp_model_kwargs={"model_file": "/etc/passwd"}),
    ),
    "T5 without a tokenizer": (
        transformers.build_sd3_medium,
        "config_invalid",
        "model_index.json",
        lambda f: change(f / "model_index.json", tokenizer_3=[None, None]),
    ),
    "a pooled text of nobody": (
        transformers.build_sd3_medium,
        "config_invalid",
        "transformer/config.json",
        lambda f: change(f / "transformer/config.json", pooled_projection_dim=8),
    ),
    "a wider transformer": (
        transformers.build_sd3_medium,
        "weights_mismatch",
        "transformer",
        lambda f: change(f / "transformer/config.json", num_attention_heads=4),
    ),
    "a VAE of FLUX.1": (
        flux2.build_klein,
        "class_refused",
        "model_index.json",
        lambda f: change(f / "model_index.json", vae=["diffusers", "AutoencoderKL"]),
    ),
    "a VAE of fewer channels": (
        flux2.build_klein,
        "config_invalid",
        "transformer/config.json",
        lambda f: change(f / "vae/config.json", latent_channels=16),
    ),
    "klein by dev's name": (
        flux2.build_klein,
        "class_refused",
        "model_index.json",
        lambda f: change(f / "model_index.json", _class_name="Flux2Pipeline"),
    ),
    "klein with the transformer of dev": (
        flux2.build_klein,
        "class_refused",
        "text_encoder/config.json",
        lambda f: change(f / "transformer/config.json", guidance_embeds=True),
    ),
    "dev with the transformer of klein": (
        flux2.build_dev,
        "class_refused",
        "text_encoder/config.json",
        lambda f: change(f / "transformer/config.json", guidance_embeds=False),
    ),
    "dev with the tokenizer of klein": (
        flux2.build_dev,
        "class_refused",
        "model_index.json",
        lambda f: change(f / "model_index.json", tokenizer=["transformers", "Qwen2Tokenizer"]),
    ),
    "a Mistral inside that is none": (
        flux2.build_dev,
        "class_refused",
        "text_encoder/config.json",
        lambda f: change_inside(f / "text_encoder/config.json", "text_config", model_type="llama"),
    ),
    "eyes of another kind": (
        flux2.build_dev,
        "class_refused",
        "text_encoder/config.json",
        lambda f: change_inside(f / "text_encoder/config.json", "vision_config", model_type="siglip"),
    ),
    "a key of nobody inside": (
        flux2.build_dev,
        "config_key_refused",
        "text_encoder/config.json",
        lambda f: change_inside(f / "text_encoder/config.json", "vision_config", auto_map={}),
    ),
    "a Mistral of too few layers": (
        flux2.build_dev,
        "config_invalid",
        "text_encoder/config.json",
        lambda f: change_inside(f / "text_encoder/config.json", "text_config", num_hidden_layers=29),
    ),
    "a narrower Mistral": (
        flux2.build_dev,
        "config_invalid",
        "transformer/config.json",
        lambda f: change_inside(f / "text_encoder/config.json", "text_config", hidden_size=8),
    ),
    "a tokenizer inside of another class": (
        flux2.build_dev,
        "class_refused",
        "tokenizer/tokenizer_config.json",
        lambda f: change(f / "tokenizer/tokenizer_config.json", tokenizer_class="PixtralProcessor"),
    ),
    "dev that is klein": (
        flux2.build_dev,
        "config_invalid",
        "imagefleet.json",
        lambda f: (f / "imagefleet.json").write_text('{"variant": "klein"}'),
    ),
    "another Qwen": (
        flux2.build_klein,
        "config_invalid",
        "transformer/config.json",
        lambda f: change(f / "text_encoder/config.json", hidden_size=32),
    ),
    "a Qwen of too few layers": (
        flux2.build_klein,
        "config_invalid",
        "text_encoder/config.json",
        lambda f: change(f / "text_encoder/config.json", num_hidden_layers=26),
    ),
    "klein that is no base": (
        flux2.build_klein,
        "config_invalid",
        "imagefleet.json",
        lambda f: (f / "imagefleet.json").write_text('{"variant": "klein-base"}'),
    ),
    "a refiner's settings": (
        unets.build_sdxl,
        "config_invalid",
        "unet/config.json",
        lambda f: change(f / "unet/config.json", projection_class_embeddings_input_dim=2560),
    ),
    "no sizes": (
        unets.build_sdxl,
        "config_invalid",
        "unet/config.json",
        lambda f: change(f / "unet/config.json", addition_embed_type=...),
    ),
    "the flow of SDXL": (
        unets.build_sdxl,
        "unrecognised",
        "scheduler",
        lambda f: change(f / "scheduler/scheduler_config.json", prediction_type="flow"),
    ),
    "a refiner of velocity": (
        unets.build_sdxl_refiner,
        "unrecognised",
        "scheduler",
        lambda f: change(f / "scheduler/scheduler_config.json", prediction_type="v_prediction"),
    ),
    "Qwen-Image-Edit": (
        qwenimage.build_qwenimage,
        "unrecognised",
        "transformer/config.json",
        lambda f: change(f / "transformer/config.json", zero_cond_t=True),
    ),
    "Qwen-Image-Layered": (
        qwenimage.build_qwenimage,
        "unrecognised",
        "transformer/config.json",
        lambda f: change(f / "transformer/config.json", use_layer3d_rope=True),
    ),
    "guidance of nobody's Qwen-Image": (
        qwenimage.build_qwenimage,
        "unrecognised",
        "transformer/config.json",
        lambda f: change(f / "transformer/config.json", guidance_embeds=True),
    ),
    "channels of nobody's Qwen-Image": (
        qwenimage.build_qwenimage,
        "unrecognised",
        "transformer/config.json",
        lambda f: change(f / "transformer/config.json", in_channels=128),
    ),
    "another language model": (
        qwenimage.build_qwenimage,
        "config_invalid",
        "transformer/config.json",
        lambda f: _inner(f, "text_config", hidden_size=64),
    ),
    "code in a language model": (
        qwenimage.build_qwenimage,
        "config_key_refused",
        "text_encoder/config.json",
        lambda f: _inner(f, "text_config", attn_implementation="somebody/kernels"),
    ),
    "code in what sees pictures": (
        qwenimage.build_qwenimage,
        "config_key_refused",
        "text_encoder/config.json",
        lambda f: _inner(f, "vision_config", auto_map={}),
    ),
    "a VAE that does not say how it shrinks": (
        qwenimage.build_qwenimage,
        "config_invalid",
        "vae/config.json",
        lambda f: change(f / "vae/config.json", temperal_downsample=[True]),
    ),
    "a VAE of four colours": (
        qwenimage.build_qwenimage,
        "unrecognised",
        "vae/config.json",
        lambda f: change(f / "vae/config.json", input_channels=4),
    ),
    "a VAE without its spread": (
        qwenimage.build_qwenimage,
        "config_invalid",
        "vae/config.json",
        lambda f: change(f / "vae/config.json", latents_std=[1.0]),
    ),
    "a VAE of other latents": (
        qwenimage.build_qwenimage,
        "config_invalid",
        "transformer/config.json",
        lambda f: change(f / "vae/config.json", z_dim=8),
    ),
    "the VAE of FLUX": (
        qwenimage.build_qwenimage,
        "class_refused",
        "model_index.json",
        lambda f: change(f / "model_index.json", vae=["diffusers", "AutoencoderKL"]),
    ),
    "more words": (
        qwenimage.build_qwenimage,
        "weights_mismatch",
        "text_encoder",
        lambda f: _inner(f, "text_config", vocab_size=1000),
    ),
    "a variant that it cannot be": (
        unets.build_sdxl_v,
        "config_invalid",
        "imagefleet.json",
        lambda f: (f / "imagefleet.json").write_text('{"variant": "turbo"}'),
    ),
    "a variant of nobody": (
        unets.build_sdxl,
        "config_invalid",
        "imagefleet.json",
        lambda f: (f / "imagefleet.json").write_text('{"variant": "best"}'),
    ),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_detect_refuses_what_does_not_fit_together(copy: Copy, name: str) -> None:
    """Each damage is refused with its own code and the file at fault."""
    builder, code, file, damage = DAMAGE[name]
    folder = copy(builder)
    damage(folder)
    with pytest.raises(ModelRefused) as caught:
        detect(folder, Reads())
    assert (caught.value.code, file in str(caught.value.path)) == (code, True), str(caught.value)


NETWORKS: dict[str, tuple[Build, Build, str]] = {
    "sd2": (unets.build_sd2_controlnet, unets.build_sd2, "sd2"),
    "sdxl": (unets.build_sdxl_controlnet, unets.build_sdxl, "sdxl"),
    "sd3": (transformers.build_sd3_controlnet, transformers.build_sd3_medium, "sd3"),
    "flux": (transformers.build_flux_controlnet, transformers.build_flux_dev, "flux"),
    "qwenimage": (qwenimage.build_controlnet, qwenimage.build_qwenimage, "qwenimage"),
}
#: What a network has that reads more than a picture.
EXTRAS = {
    "sd3": "extra_conditioning_channels",
    "flux": "num_mode",
    "qwenimage": "extra_condition_channels",
}


# diffusers itself still makes FLUX's ControlNet by a name that it has moved.
@pytest.mark.filterwarnings("ignore:`FluxPosEmbed` is deprecated:FutureWarning")
@pytest.mark.parametrize("name", NETWORKS)
def test_detect_recognises_controlnets(copy: Copy, name: str) -> None:
    """A ControlNet of each family has the family, the widths and the latents of the checkpoint that it was made for."""
    builder, base, family = NETWORKS[name]
    control, checkpoint = detect(copy(builder, "net"), Reads()), detect(copy(base, "base"), Reads())
    assert (control.kind, control.family) == (Kind.CONTROLNET, family)
    for fact in ("text_width", "width", "latent_channels"):
        assert getattr(control, fact) == getattr(checkpoint, fact)
    extra = EXTRAS.get(name)
    if extra is not None:
        change(control.path / "config.json", **{extra: 1})
        with pytest.raises(ModelRefused) as caught:
            detect(control.path, Reads())
        assert extra in caught.value.reason


@pytest.mark.parametrize(
    ("builder", "name", "variant"),
    [
        (zimage.build_turbo, "model", "turbo"),
        (zimage.build_turbo, "Z-Image-Base-finetune", "base"),
        (zimage.build_base, "model", "base"),
        # The scheduler of the undistilled one tells more than a name.
        (zimage.build_base, "not-turbo", "base"),
    ],
)
def test_scheduler_and_words_tell_the_distilled_zimage(copy: Copy, builder: Build, name: str, variant: str) -> None:
    """Nothing else differs between the two."""
    assert detect(copy(builder, name), Reads()).variant == variant


@pytest.mark.parametrize(
    ("file", "values", "code", "reason"),
    [
        ("transformer", {"siglip_feat_dim": 8}, "unrecognised", "reads pictures"),
        ("transformer", {"all_patch_size": [4]}, "unrecognised", "packs its latents"),
        ("transformer", {"axes_lens": [256, 512, 512]}, "config_invalid", "fewer places"),
        ("transformer", {"axes_lens": [1536, 64, 512]}, "config_invalid", "fewer places"),
        ("transformer", {"cap_feat_dim": 64}, "config_invalid", "width 64"),
        ("transformer", {"dim": 64}, "weights_mismatch", "all_x_embedder"),
        ("text_encoder", {"hidden_size": 64}, "config_invalid", "gives 64"),
        ("text_encoder", {"architectures": ["Qwen3ForTokenClassification"]}, "class_refused", "instead of Qwen3Model"),
        ("text_encoder", {"quantization_config": {}}, "config_key_refused", "quantization_config"),
    ],
)
def test_zimage_that_does_not_fit_together_is_refused(
    copy: Copy, file: str, values: dict[str, Any], code: str, reason: str
) -> None:
    """With the file at fault and what is wrong with it."""
    folder = copy(zimage.build_turbo)
    change(folder / file / "config.json", **values)
    with pytest.raises(ModelRefused) as caught:
        detect(folder, Reads())
    assert caught.value.code == code, caught.value
    assert reason in caught.value.reason
