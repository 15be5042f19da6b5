"""ControlNets, VAEs, embeddings and annotators are told from each other and from everything else."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch

from models_registry.detection import detect
from models_registry.entries import ANY_FAMILY, Kind, Layout
from models_registry.families import tasks_of
from models_registry.reading.bounded_files import Reads
from models_registry.refusals import ModelRefused
from models_registry.scanning.scan import scan
from tests.tensor_files import Shapes, write_tensors

# Its type hints cover only a part of it.
maker: Any = diffusers
WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save one component of each class, as diffusers does; never change them."""
    root = tmp_path_factory.mktemp("components")
    maker.ControlNetModel(
        block_out_channels=(8, 8),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        cross_attention_dim=16,
        attention_head_dim=4,
        norm_num_groups=4,
        conditioning_embedding_out_channels=(4, 8),
    ).save_pretrained(root / "controlnet")
    maker.AutoencoderKL(
        block_out_channels=(4, 4, 4, 4),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        norm_num_groups=1,
        latent_channels=4,
    ).save_pretrained(root / "vae")
    maker.AutoencoderTiny(
        encoder_block_out_channels=(4, 4, 4, 4), decoder_block_out_channels=(4, 4, 4, 4)
    ).save_pretrained(root / "tiny")
    return root


@pytest.fixture
def component(saved: Path, tmp_path: Path) -> Callable[..., Path]:
    """Return a function that copies one of them under a name, for a test to change."""

    def copy(kind: str, name: str = "thing") -> Path:
        return Path(shutil.copytree(saved / kind, tmp_path / name))

    return copy


def change(folder: Path, **values: Any) -> None:
    """Change values of a component's configuration."""
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_detect_recognises_a_controlnet(component: Callable[..., Path]) -> None:
    """A folder that diffusers saved is a ControlNet with its width and channels."""
    folder = component("controlnet", "canny")
    entry = detect(folder, Reads())
    assert (entry.name, entry.kind, entry.layout, entry.family, entry.path) == (
        "canny",
        Kind.CONTROLNET,
        Layout.DIFFUSERS,
        "sd15",
        folder,
    )
    assert (entry.text_width, entry.latent_channels, entry.latent_factor, entry.native_size) == (16, 4, 0, 0)


def test_detect_recognises_vaes(component: Callable[..., Path]) -> None:
    """Both classes of VAE are told with the form of their latents."""
    for kind, variant in (("vae", "base"), ("tiny", "tiny")):
        entry = detect(component(kind, variant), Reads())
        assert (entry.kind, entry.variant, entry.latent_channels, entry.latent_factor) == (Kind.VAE, variant, 4, 8)
        assert entry.text_width is None


def test_fingerprint_of_a_folder_knows_its_configuration(component: Callable[..., Path]) -> None:
    """The same weights under another scaling factor are another VAE."""
    folder = component("vae")
    before = detect(folder, Reads()).fingerprint
    change(folder, scaling_factor=0.3)
    assert detect(folder, Reads()).fingerprint != before


def pickled(folder: Path) -> None:
    """Put a pickle in the weights' place."""
    (folder / WEIGHTS).unlink()
    torch.save({}, folder / "diffusion_pytorch_model.bin")


FOLDERS: dict[str, tuple[str, str, Callable[[Path], object]]] = {
    "SDXL's width alone": ("controlnet", "config_invalid", lambda f: change(f, cross_attention_dim=2048)),
    "classes": ("controlnet", "unrecognised", lambda f: change(f, class_embed_type="timestep")),
    "other latents": ("controlnet", "unrecognised", lambda f: change(f, in_channels=16)),
    "other shapes": ("controlnet", "weights_mismatch", lambda f: change(f, block_out_channels=[16, 16])),
    "other hints": ("controlnet", "weights_mismatch", lambda f: change(f, conditioning_channels=1)),
    "code in a key": ("controlnet", "config_key_refused", lambda f: change(f, auto_map={})),
    "code": ("controlnet", "code_refused", lambda f: (f / "model.py").write_text("")),
    "no weights": ("controlnet", "weights_missing", lambda f: (f / WEIGHTS).unlink()),
    "a pickle": (
        "controlnet",
        "pickle_refused",
        pickled,
    ),
    "cut weights": ("vae", "offsets_invalid", lambda f: (f / WEIGHTS).write_bytes((f / WEIGHTS).read_bytes()[:-1])),
    "another class": ("vae", "class_refused", lambda f: change(f, _class_name="T2IAdapter")),
    "no class": ("vae", "class_refused", lambda f: change(f, _class_name=None)),
    "broken words": ("vae", "config_invalid", lambda f: (f / "config.json").write_text('{"_class_name"')),
    "a VAE of FLUX": ("vae", "unrecognised", lambda f: change(f, latent_channels=16)),
    "a VAE of video": ("vae", "unrecognised", lambda f: change(f, latent_channels=8)),
    "other levels": ("vae", "unrecognised", lambda f: change(f, block_out_channels=[4] * 5)),
    "other layers": ("vae", "weights_mismatch", lambda f: change(f, block_out_channels=[4, 4, 4, 8])),
    "other tiny layers": ("tiny", "weights_mismatch", lambda f: change(f, decoder_block_out_channels=[8, 4, 4, 4])),
    "other tiny levels": (
        "tiny",
        "unrecognised",
        lambda f: change(f, upsampling_scaling_factor=3),
    ),
    "a tiny VAE of FLUX": ("tiny", "unrecognised", lambda f: change(f, latent_channels=16)),
}


@pytest.mark.parametrize("name", FOLDERS)
def test_detect_refuses_component_folders(component: Callable[..., Path], conn: Any, name: str) -> None:
    """Each thing wrong with a folder is refused with its own code, also by a scan."""
    kind, code, damage = FOLDERS[name]
    folder = component(kind)
    damage(folder)
    with pytest.raises(ModelRefused) as caught:
        detect(folder, Reads())
    assert caught.value.code == code
    assert caught.value.path.is_relative_to(folder)
    report = scan(conn, [folder.parent])
    assert (report.found, code in {refusal.code for refusal in report.refused}) == ((), True)


#: What a folder of a VAE is called and says → whose it is.
OWNERS: dict[str, tuple[str, int, float | None, str]] = {
    "by its scale, Stable Diffusion's": ("thing", 4, 0.18215, "sd15"),
    "by its scale, SDXL's": ("thing", 4, 0.13025, "sdxl"),
    "by its scale, SD 3's": ("thing", 16, 1.5305, "sd3"),
    "by its scale, FLUX's": ("thing", 16, 0.3611, "flux"),
    "by its scale, whatever its name": ("sdxl-vae", 4, 0.18215, "sd15"),
    "by its name, SDXL's": ("sdxl_vae_fp16_fix", 4, 1.0, "sdxl"),
    "by its name, SD 3's": ("sd3.5-vae", 16, 1.0, "sd3"),
    "by its name, FLUX's": ("flux1-vae", 16, 1.0, "flux"),
    "by nothing": ("pixlright", 4, 1.0, "sd15"),
}


@pytest.mark.parametrize("name", OWNERS)
def test_a_vae_is_told_by_its_scale_or_its_name(tmp_path: Path, name: str) -> None:
    """The scaling of its latents says whose VAE it is, in a folder and beside a file; where it says nothing, the name does."""
    called, channels, scale, family = OWNERS[name]
    path = write_tensors(tmp_path / f"{called}.safetensors", vae("", "down.{}.block.0.conv1", channels=channels))
    config = {
        "_class_name": "AutoencoderKL",
        "block_out_channels": [8, 8, 8, 512],
        "latent_channels": channels,
        "scaling_factor": scale,
    }
    (tmp_path / f"{called}.config").mkdir()
    (tmp_path / f"{called}.config/config.json").write_text(json.dumps(config))
    folder = tmp_path / "folders" / called
    write_tensors(folder / WEIGHTS, vae("", "down_blocks.{}.resnets.0.conv1", channels=channels))
    (folder / "config.json").write_text(json.dumps(config))
    for place in (path, folder):
        entry = detect(place, Reads())
        assert (entry.kind, entry.family, entry.latent_channels) == (Kind.VAE, family, channels)


@pytest.mark.parametrize(("name", "family"), [("sdxl_vae", "sdxl"), ("ae", "flux"), ("sd3_vae", "sd3")])
def test_a_vae_in_one_file_is_told_by_its_name(tmp_path: Path, name: str, family: str) -> None:
    """Published files say nothing of their scale, so the names they are published under do."""
    channels = 4 if family == "sdxl" else 16
    path = write_tensors(tmp_path / f"{name}.safetensors", vae("", "down.{}.block.0.conv1", channels=channels))
    assert detect(path, Reads()).family == family


def test_tiny_vaes_are_told_by_their_names(component: Callable[..., Path]) -> None:
    """Their latents are another VAE's as they are drawn, so that their scale says nothing."""
    assert detect(component("tiny", "taesdxl"), Reads()).family == "sdxl"
    assert detect(component("tiny", "taesd"), Reads()).family == "sd15"


def vae(start: str, level: str, *, channels: int = 4, width: int = 512) -> Shapes:
    """Return the tensors that tell a VAE in one file."""
    return {
        f"{start}encoder.conv_in.weight": (8, 3, 3, 3),
        f"{start}encoder.conv_out.weight": (8, 8, 3, 3),
        **{f"{start}encoder.{level.format(n)}.weight": (8, 8, 3, 3) for n in range(4)},
        f"{start}decoder.conv_in.weight": (width, channels, 3, 3),
        f"{start}decoder.conv_out.weight": (3, 8, 3, 3),
    }


@pytest.mark.parametrize(
    ("start", "level"),
    [
        ("first_stage_model.", "down.{}.block.0.conv1"),
        ("", "down.{}.block.0.conv1"),
        ("", "down_blocks.{}.resnets.0.conv1"),
    ],
)
def test_detect_recognises_vae_files(tmp_path: Path, start: str, level: str) -> None:
    """One file in the original's names, bare or as in a checkpoint, or in diffusers', is a VAE."""
    path = write_tensors(tmp_path / "kl-f8.safetensors", vae(start, level))
    entry = detect(path, Reads())
    assert (entry.name, entry.kind, entry.layout) == ("kl-f8", Kind.VAE, Layout.SINGLE_FILE)
    assert (entry.latent_channels, entry.latent_factor) == (4, 8)


def test_vae_files_of_other_sizes_need_their_configuration(
    saved: Path, tmp_path: Path, component: Callable[..., Path]
) -> None:
    """A configuration beside the file is read, checked against it, and part of what the VAE is."""
    shapes = vae("", "down.{}.block.0.conv1", width=4)
    path = write_tensors(tmp_path / "grey.safetensors", shapes)
    with pytest.raises(ModelRefused) as caught:
        detect(path, Reads())
    assert caught.value.code == "config_invalid"
    assert "grey.config/config.json" in caught.value.reason
    folder = component("vae", "grey.config")
    (folder / WEIGHTS).unlink()
    before = detect(path, Reads())
    change(folder, scaling_factor=0.3)
    assert detect(path, Reads()).fingerprint != before.fingerprint
    change(folder, block_out_channels=[4, 4, 4, 8])
    with pytest.raises(ModelRefused) as caught:
        detect(path, Reads())
    assert caught.value.code == "weights_mismatch"
    assert saved.is_dir()


@pytest.mark.parametrize(
    ("shapes", "vectors", "width"),
    [
        ({"emb_params": (3, 768)}, 3, 768),
        ({"emb_params": (64,)}, 1, 64),
        ({"<dusk>": (2, 64)}, 2, 64),
        ({"dusk": (1, 64)}, 1, 64),
        ({"<dusk>": (64,)}, 1, 64),
        ({"emb_params": (2, 1024)}, 2, 1024),
        ({"clip_l": (2, 768), "clip_g": (2, 1280)}, 2, 2048),
        ({"clip_l": (768,), "clip_g": (1280,)}, 1, 2048),
        ({"clip_l": (4, 32), "clip_g": (4, 48)}, 4, 80),
    ],
)
def test_detect_recognises_embeddings(tmp_path: Path, shapes: Shapes, vectors: int, width: int) -> None:
    """A1111's and diffusers' layouts tell how many tokens the name stands for, and their width; that tells the family."""
    entry = detect(write_tensors(tmp_path / "dusk.safetensors", shapes), Reads())
    family = "sdxl" if "clip_g" in shapes else "sd2" if width == 1024 else "sd15"
    assert (entry.name, entry.kind, entry.family) == ("dusk", Kind.EMBEDDING, family)
    assert (entry.vectors, entry.text_width) == (vectors, width)


def test_detect_recognises_annotators_by_their_folder(tmp_path: Path, conn: Any) -> None:
    """A file, or a folder of several, is named after its preprocessor; pickles beside them are refused."""
    root = tmp_path / "Annotators"
    # It looks like an upscaler, and lies among annotators.
    write_tensors(
        root / "hed.safetensors", {"body.0.weight": (8, 3, 3, 3), "body.1.weight": (8,), "body.2.weight": (12, 8, 3, 3)}
    )
    write_tensors(root / "openpose/body.safetensors", {"model.a": (8, 3)})
    write_tensors(root / "openpose/hand.safetensors", {"model.b": (8, 3)})
    (root / "openpose/face.pth").touch()
    (root / "ControlNetHED.pth").touch()
    report = scan(conn, [tmp_path])
    assert [(ref.kind, ref.name) for ref in report.found] == [
        (Kind.PREPROCESSOR, "hed"),
        (Kind.PREPROCESSOR, "openpose"),
    ]
    assert {(refusal.path.name, refusal.code) for refusal in report.refused} == {
        ("face.pth", "pickle_refused"),
        ("ControlNetHED.pth", "pickle_refused"),
    }
    single, several = detect(root / "hed.safetensors", Reads()), detect(root / "openpose", Reads())
    assert (single.layout, several.layout, single.family) == (Layout.SINGLE_FILE, Layout.FOLDER, ANY_FAMILY)
    assert [component.name for component in several.components] == ["body", "hand"]
    assert tasks_of(single) == {"preprocess"}


FILES: dict[str, tuple[Shapes, str]] = {
    "half an embedding of SDXL": ({"emb_params": (2, 1280)}, "SDXL"),
    "an embedding of SDXL, too long": ({"clip_l": (76, 768), "clip_g": (76, 1280)}, "76 vectors"),
    "an embedding too long": ({"emb_params": (76, 64)}, "76 vectors"),
    "a matrix": ({"weight": (76, 64)}, "no model that is known here"),
    "a vector": ({"weight": (64,)}, "no model that is known here"),
    "an original ControlNet": ({"control_model.input_blocks.0.0.weight": (320, 4, 3, 3)}, "original layout"),
    "a ControlNet without words": (
        {"controlnet_cond_embedding.conv_in.weight": (16, 3, 3, 3), "conv_in.weight": (320, 4, 3, 3)},
        "without its config.json",
    ),
    "a VAE of FLUX": (vae("", "down.{}.block.0.conv1", channels=16), "16 latent channels"),
    "a UNet alone": ({"conv_in.weight": (320, 4, 3, 3), "down_blocks.0.a.weight": (8, 8)}, "no model that is known"),
    "a text encoder": ({"text_model.embeddings.token_embedding.weight": (100, 768)}, "no model that is known here"),
}


@pytest.mark.parametrize("name", FILES)
def test_detect_refuses_files_of_no_use(tmp_path: Path, name: str) -> None:
    """What is another family's, in pieces or unknown is refused by name and mistaken for nothing."""
    shapes, reason = FILES[name]
    path = write_tensors(tmp_path / "file.safetensors", shapes)
    with pytest.raises(ModelRefused) as caught:
        detect(path, Reads())
    assert (caught.value.code, caught.value.path) == ("unrecognised", path)
    assert reason in caught.value.reason


def test_scan_looks_into_the_folders_of_other_programs(
    conn: Any, component: Callable[..., Path], tmp_path: Path
) -> None:
    """Loose VAEs in a folder called `vae`, notes beside files and configurations of other programs disturb nothing."""
    write_tensors(tmp_path / "models/vae/kl.safetensors", vae("", "down.{}.block.0.conv1"))
    write_tensors(tmp_path / "models/Lora/style.safetensors", {"emb_params": (2, 16)})
    shutil.move(component("vae"), tmp_path / "models/vae/grey")
    (tmp_path / "models/config.json").write_text('{"sd_model": "x"}')
    for name in ("style.json", "style.md", "style.png", "style.civitai.info"):
        (tmp_path / "models/Lora" / name).touch()
    report = scan(conn, [tmp_path])
    assert [ref.name for ref in report.found] == ["style", "grey", "kl"]
    assert report.refused == ()


def test_inpaint_folders_are_recognised(sd15: Callable[..., Path], tmp_path: Path) -> None:
    """A pipeline saved with a network of nine channels is a checkpoint that inpaints, whatever class it is saved under."""
    folder = sd15("plain")
    pipe = maker.StableDiffusionPipeline.from_pretrained(folder, safety_checker=None)
    config = dict(pipe.unet.config) | {"in_channels": 9}
    pipe.unet = maker.UNet2DConditionModel.from_config(config)
    painting = maker.StableDiffusionInpaintPipeline(**pipe.components, requires_safety_checker=False)
    painting.save_pretrained(tmp_path / "paint")
    entry = detect(tmp_path / "paint", Reads())
    assert (entry.kind, entry.variant, tasks_of(entry)) == (Kind.CHECKPOINT, "inpaint", frozenset({"inpaint"}))
    assert (entry.latent_channels, entry.text_width) == (4, 16)
    index = tmp_path / "paint/model_index.json"
    index.write_text(index.read_text().replace("StableDiffusionInpaintPipeline", "StableDiffusionPipeline"))
    assert detect(tmp_path / "paint", Reads()).variant == "inpaint"
