"""A folder written by diffusers is recognised; what is wrong with one is said in words."""

import inspect
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from transformers import CLIPTextConfig, Mistral3Config, Qwen3Config, T5Config

from models_registry import diffusers_classes, diffusers_keys
from models_registry.detection import detect
from models_registry.entries import Kind, Layout
from models_registry.families import FAMILIES, tasks_of
from models_registry.kinds.checkpoints.folders import DESCRIBE
from models_registry.reading.bounded_files import Reads
from models_registry.refusals import ModelRefused
from models_registry.schedulers import SCHEDULERS

# Its type hints cover only a part of it.
maker: Any = diffusers

Copy = Callable[..., Path]
UNET = "unet/diffusion_pytorch_model.safetensors"


def change(path: Path, **values: Any) -> None:
    """Change values of a JSON file; None removes the key."""
    config = json.loads(path.read_text()) | values
    path.write_text(json.dumps({key: value for key, value in config.items() if value is not ...}))


def test_detect_recognises_what_diffusers_saved(sd15: Copy) -> None:
    """Every fact of the entry is that of the pipeline that was saved."""
    folder = sd15()
    entry = detect(folder, Reads())
    assert (entry.name, entry.kind, entry.layout, entry.family, entry.path) == (
        "tiny",
        Kind.CHECKPOINT,
        Layout.DIFFUSERS,
        "sd15",
        folder,
    )
    assert (entry.native_size, entry.latent_factor, entry.latent_channels, entry.text_width) == (128, 8, 4, 16)
    assert entry.text_layers == 1
    assert (entry.variant, tasks_of(entry)) == (
        "base",
        frozenset({"txt2img", "img2img", "inpaint"}),
    )
    pipeline = maker.StableDiffusionPipeline.from_pretrained(folder, safety_checker=None)
    for component in entry.components:
        module = getattr(pipeline, component.name)
        assert component.parameters == sum(parameter.numel() for parameter in module.parameters())
        assert (component.bytes, component.dtype) == (component.parameters * 4, "F32")
    assert [component.name for component in entry.components] == ["unet", "vae", "text_encoder"]


def test_detect_sees_half_precision(sd15: Copy) -> None:
    """Weights stored at half precision are half the bytes and the same parameters."""
    folder = sd15()
    whole = detect(folder, Reads())
    pipeline = maker.StableDiffusionPipeline.from_pretrained(folder, safety_checker=None).to(torch.float16)
    pipeline.save_pretrained(folder)
    half = detect(folder, Reads())
    assert {component.dtype for component in half.components} == {"F16"}
    assert half.bytes * 2 == whole.bytes
    assert half.fingerprint != whole.fingerprint


# numpy's complaint about how diffusers turns its betas into an array.
@pytest.mark.filterwarnings("ignore:__array_:DeprecationWarning")
@pytest.mark.parametrize("scheduler", sorted({scheduler.class_name for scheduler in SCHEDULERS.values()}))
def test_detect_accepts_every_scheduler_as_diffusers_saves_it(sd15: Copy, scheduler: str) -> None:
    """A model saved with any scheduler that can be asked for is recognised."""
    folder = sd15()
    shutil.rmtree(folder / "scheduler")
    getattr(maker, scheduler)().save_pretrained(folder / "scheduler")
    change(folder / "model_index.json", scheduler=["diffusers", scheduler])
    assert detect(folder, Reads()).family == "sd15"


def test_known_keys_are_those_of_the_installed_libraries() -> None:
    """A key that a library reads today and we do not know would refuse everybody's next download."""

    def keys(cls: Any) -> set[str]:
        return set(inspect.signature(cls.__init__).parameters) - {"self", "kwargs"}

    for name, known in diffusers_classes.CLASSES.items():
        if not known.model_type:
            assert keys(getattr(maker, name)) <= known.keys, name
    assert keys(maker.AutoencoderTiny) <= diffusers_keys.TINY_VAE_KEYS
    assert keys(maker.ControlNetModel) <= diffusers_keys.CONTROLNET_KEYS
    assert keys(maker.SD3ControlNetModel) <= diffusers_keys.SD3_CONTROLNET_KEYS
    assert keys(maker.FluxControlNetModel) <= diffusers_keys.FLUX_CONTROLNET_KEYS
    assert keys(maker.QwenImageControlNetModel) <= diffusers_keys.QWENIMAGE_CONTROLNET_KEYS
    assert set(CLIPTextConfig().to_dict()) <= diffusers_keys.CLIP_TEXT_KEYS
    assert set(T5Config().to_dict()) <= diffusers_keys.T5_KEYS
    assert set(Qwen3Config().to_dict()) <= diffusers_keys.QWEN3_KEYS
    mistral = Mistral3Config().to_dict()
    assert set(mistral) <= diffusers_keys.MISTRAL3_KEYS
    for name, inner in diffusers_keys.MISTRAL3_INNER_KEYS.items():
        assert set(mistral[name]) <= inner, name
    for name in (*diffusers_classes.SCHEDULER_CLASSES, *diffusers_classes.FLOW_SCHEDULER_CLASSES):
        assert keys(getattr(maker, name)) <= diffusers_keys.SCHEDULER_KEYS, name


def test_detect_reads_little(sd15: Copy) -> None:
    """Headers, configurations and samples are read, however large the weights are."""
    folder = sd15()
    size = 300 * 1024 * 1024
    weights = load_file(folder / UNET)
    shapes = {name: (tensor.dtype, tensor.shape) for name, tensor in weights.items()}
    offset, header = 0, {}
    for name, (_, shape) in sorted(shapes.items()):
        end = offset + int(np.prod(shape)) * 4
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [offset, end]}
        offset = end
    header["zz"] = {"dtype": "U8", "shape": [size], "data_offsets": [offset, offset + size]}
    raw = json.dumps(header).encode()
    with (folder / UNET).open("wb") as file:
        file.write(len(raw).to_bytes(8, "little") + raw)
        file.truncate(8 + len(raw) + offset + size)
    reads = Reads()
    detect(folder, reads)
    assert reads.bytes < 1024 * 1024
    assert reads.reads < 80


def test_recommendations_are_taken_over(sd15: Copy) -> None:
    """An author's advice becomes the model's defaults; the weights stay the same weights."""
    folder = sd15()
    before = detect(folder, Reads())
    (folder / "imagefleet.json").write_text(
        '{"steps": 20, "guidance_scale": 5, "scheduler": "DPM++ 2M Karras", "note": 1}'
    )
    after = detect(folder, Reads())
    assert (after.default_steps, after.default_guidance_scale, after.default_scheduler) == (20, 5.0, "DPM++ 2M Karras")
    assert after.fingerprint == before.fingerprint


def test_fingerprint_knows_contents_alone(sd15: Copy) -> None:
    """Name, place and time do not matter; one byte of the weights, and one of the tokenizer, do."""
    first, second = sd15("first"), sd15("second")
    fingerprint = detect(first, Reads()).fingerprint
    assert detect(second, Reads()).fingerprint == fingerprint
    seen = {fingerprint}
    for file in (
        UNET,
        "vae/diffusion_pytorch_model.safetensors",
        "text_encoder/model.safetensors",
        "tokenizer/tokenizer.json",
    ):
        raw = bytearray((second / file).read_bytes())
        raw[-1] ^= 1
        (second / file).write_bytes(raw)
        seen.add(detect(second, Reads()).fingerprint)
    change(second / "scheduler/scheduler_config.json", beta_end=0.03)
    seen.add(detect(second, Reads()).fingerprint)
    assert len(seen) == 6


def _unsafe(folder: Path) -> None:
    pipeline = maker.StableDiffusionPipeline.from_pretrained(folder, safety_checker=None)
    shutil.rmtree(folder / "unet")
    pipeline.unet.save_pretrained(folder / "unet", safe_serialization=False)


def _cut(folder: Path) -> None:
    raw = (folder / UNET).read_bytes()
    (folder / UNET).write_bytes(raw[:-100])


def _rename_pickle(folder: Path) -> None:
    torch.save({"conv_in.weight": torch.zeros(8, 4, 3, 3)}, folder / UNET)


def _widen(folder: Path) -> None:
    weights = load_file(folder / UNET)
    save_file(weights | {"conv_in.weight": np.zeros((16, 4, 3, 3), np.float32)}, folder / UNET)


DAMAGE: dict[str, tuple[str, str, Callable[[Path], object]]] = {
    "pickled weights": ("pickle_refused", "diffusion_pytorch_model.bin", _unsafe),
    "renamed pickle": ("pickle_refused", UNET, _rename_pickle),
    "cut weights": ("offsets_invalid", UNET, _cut),
    "other shapes": ("weights_mismatch", UNET, _widen),
    "no weights": ("weights_missing", UNET, lambda f: (f / UNET).unlink()),
    "variant only": (
        "unrecognised",
        "non_ema.safetensors",
        lambda f: (f / UNET).rename(f / "unet/diffusion_pytorch_model.non_ema.safetensors"),
    ),
    "code in the root": ("code_refused", "pipeline.py", lambda f: (f / "pipeline.py").write_text("")),
    "code in a component": ("code_refused", "unet/My.PY", lambda f: (f / "unet/My.PY").write_text("")),
    "thousand files": ("folder_too_large", "", lambda f: [(f / f"{n}.txt").write_text("") for n in range(1001)]),
    "pipeline of its own": (
        "class_refused",
        "model_index.json",
        lambda f: change(f / "model_index.json", _class_name=["pipeline", "Mine"]),
    ),
    "unknown pipeline": (
        "class_refused",
        "model_index.json",
        lambda f: change(f / "model_index.json", _class_name="MinePipeline"),
    ),
    "later pipeline": (
        "unrecognised",
        "model_index.json",
        lambda f: change(f / "model_index.json", _class_name="FluxKontextPipeline"),
    ),
    "unknown component": (
        "class_refused",
        "model_index.json",
        lambda f: change(f / "model_index.json", extra=["os", "system"]),
    ),
    "unknown class": (
        "class_refused",
        "model_index.json",
        lambda f: change(f / "model_index.json", unet=["mine", "UNet"]),
    ),
    "odd class": ("class_refused", "model_index.json", lambda f: change(f / "model_index.json", unet={"a": 1})),
    "no text encoder": (
        "config_invalid",
        "model_index.json",
        lambda f: change(f / "model_index.json", text_encoder=[None, None]),
    ),
    "index of text": ("config_invalid", "model_index.json", lambda f: (f / "model_index.json").write_text("[]")),
    "index of nothing": ("config_invalid", "model_index.json", lambda f: (f / "model_index.json").write_text("")),
    "endless nesting": (
        "config_invalid",
        "model_index.json",
        lambda f: (f / "model_index.json").write_text("[" * 200_000),
    ),
    "large index": ("config_invalid", "model_index.json", lambda f: (f / "model_index.json").write_text(" " * 300_000)),
    "a key twice": (
        "config_invalid",
        "vae/config.json",
        lambda f: (f / "vae/config.json").write_text('{"a": 1, "a": 2}'),
    ),
    "remote code": (
        "config_key_refused",
        "unet/config.json",
        lambda f: change(f / "unet/config.json", auto_map={"x": "y"}),
    ),
    "text encoder of code": (
        "config_key_refused",
        "text_encoder",
        lambda f: change(f / "text_encoder/config.json", _attn_implementation="a/b"),
    ),
    "tokenizer of code": (
        "config_key_refused",
        "tokenizer",
        lambda f: change(f / "tokenizer/tokenizer_config.json", auto_map={}),
    ),
    "other tokenizer": (
        "class_refused",
        "tokenizer",
        lambda f: change(f / "tokenizer/tokenizer_config.json", tokenizer_class="Mine"),
    ),
    "no tokenizer": ("config_invalid", "tokenizer", lambda f: (f / "tokenizer/tokenizer.json").unlink()),
    "another scheduler": (
        "class_refused",
        "scheduler",
        lambda f: change(f / "scheduler/scheduler_config.json", _class_name="PNDMScheduler"),
    ),
    "another unet": (
        "class_refused",
        "unet/config.json",
        lambda f: change(f / "unet/config.json", _class_name="UNet3D"),
    ),
    "no unet config": ("file_unreadable", "unet/config.json", lambda f: (f / "unet/config.json").unlink()),
    "sizes beyond all": (
        "config_invalid",
        "unet/config.json",
        lambda f: change(f / "unet/config.json", norm_num_groups=10**12),
    ),
    "channels of text": (
        "config_invalid",
        "unet/config.json",
        lambda f: change(f / "unet/config.json", block_out_channels="8"),
    ),
    "pix2pix": ("unrecognised", "unet/config.json", lambda f: change(f / "unet/config.json", in_channels=8)),
    "mask unread": ("weights_mismatch", UNET, lambda f: change(f / "unet/config.json", in_channels=9)),
    "other text width": (
        "config_invalid",
        "unet/config.json",
        lambda f: change(f / "unet/config.json", cross_attention_dim=32),
    ),
    "SDXL's extras": (
        "unrecognised",
        "unet/config.json",
        lambda f: change(f / "unet/config.json", addition_embed_type="text_time"),
    ),
    "v-prediction": (
        "unrecognised",
        "scheduler",
        lambda f: change(f / "scheduler/scheduler_config.json", prediction_type="v_prediction"),
    ),
    "not square": ("unrecognised", "unet/config.json", lambda f: change(f / "unet/config.json", sample_size=[16, 32])),
    "too large": ("unrecognised", "unet/config.json", lambda f: change(f / "unet/config.json", sample_size=1024)),
    "advice beyond limits": (
        "config_invalid",
        "imagefleet.json",
        lambda f: (f / "imagefleet.json").write_text('{"steps": 0}'),
    ),
    "advice of text": (
        "config_invalid",
        "imagefleet.json",
        lambda f: (f / "imagefleet.json").write_text('{"steps": "20"}'),
    ),
    "unknown advice": (
        "config_invalid",
        "imagefleet.json",
        lambda f: (f / "imagefleet.json").write_text('{"scheduler": "Best"}'),
    ),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_detect_refuses_what_is_wrong(sd15: Copy, name: str) -> None:
    """Each damage is refused with its own code and the file at fault, within bounded reads."""
    code, file, damage = DAMAGE[name]
    folder = sd15()
    damage(folder)
    reads = Reads()
    with pytest.raises(ModelRefused) as caught:
        detect(folder, reads)
    assert (caught.value.code, file in str(caught.value.path)) == (code, True)
    assert 0 < len(caught.value.reason) < 400
    assert reads.bytes < 1024 * 1024


@pytest.mark.parametrize("name", ["a\nb", "x" * 201, " a", b"\xff\xfe".decode("utf-8", "surrogateescape")])
def test_detect_refuses_names_that_nobody_could_write(sd15: Copy, name: str) -> None:
    """A model's name must be printable text, because it travels in JSON, logs and the database."""
    folder = sd15()
    with pytest.raises(ModelRefused) as caught:
        detect(folder.with_name(name), Reads())
    assert caught.value.code == "name_invalid"


def test_family_facts_agree_with_detection() -> None:
    """Every family has a layout and a reader, and no pipeline is drawn and put off at once."""
    assert FAMILIES.keys() == diffusers_classes.LAYOUTS.keys() == DESCRIBE.keys()
    drawn = {name for family in FAMILIES.values() for name in family.pipeline_classes}
    assert not drawn & diffusers_classes.LATER_PIPELINES.keys()
    for name in drawn | diffusers_classes.LATER_PIPELINES.keys():
        assert hasattr(diffusers, name)
