"""Recognise what a folder holds, from plain JSON and safetensors headers alone; no library opens anything here."""

import os
from pathlib import Path
from typing import NamedTuple

from models_registry.bounded_files import Reads
from models_registry.configs import Config, read_config
from models_registry.diffusers_classes import (
    CLIP_TEXT_KEYS,
    LATER_PIPELINES,
    SCHEDULER_KEYS,
    SD_COMPONENTS,
    SD_WEIGHTS,
    TOKENIZER_CONFIG_KEYS,
    TOKENIZER_FILES,
    UNET_KEYS,
    VAE_KEYS,
)
from models_registry.entries import Component, Kind, Layout, ModelEntry
from models_registry.families import FAMILIES, FamilyFacts
from models_registry.fingerprint import fingerprint
from models_registry.recommendations import read_recommendations
from models_registry.refusals import (
    ClassRefused,
    CodeRefused,
    ConfigInvalid,
    FolderTooLarge,
    NameInvalid,
    PickleRefused,
    Unrecognised,
    WeightsMismatch,
    WeightsMissing,
)
from models_registry.safetensors_header import Header, read_header

INDEX = "model_index.json"
PICKLE_SUFFIXES = frozenset({".bin", ".ckpt", ".pt", ".pth", ".pkl", ".pickle"})
CODE_SUFFIXES = frozenset({".py", ".pyc", ".pyd", ".so"})
MAX_FILES = 1_000
MAX_NAME = 200
#: Width of the text features of Stable Diffusion 2.x, which shares its pipeline class with 1.x.
SD2_TEXT_WIDTH = 1024
#: transformers sets the limit of a tokenizer that has none to this.
NO_LIMIT = 10**31


class _Parts(NamedTuple):
    unet: Config
    vae: Config
    text_encoder: Config
    scheduler: Config


def detect(folder: Path, reads: Reads) -> ModelEntry:
    """Recognise one diffusers folder, raising a `ModelRefused` that says why it is not offered."""
    name = model_name(folder)
    _refuse_code(folder)
    index = read_config(folder / INDEX, reads)
    family = _family(index)
    _check_components(index)
    parts = _Parts(
        unet=read_config(folder / "unet" / "config.json", reads).of_class("UNet2DConditionModel").only(UNET_KEYS),
        vae=read_config(folder / "vae" / "config.json", reads).of_class("AutoencoderKL").only(VAE_KEYS),
        text_encoder=_text_encoder(folder, reads),
        scheduler=_scheduler(folder, index, reads),
    )
    tokenizer = _tokenizer(folder, reads)
    latent_factor = 2 ** (len(parts.vae.wholes("block_out_channels")) - 1)
    _refuse_other_kinds(parts, family)
    native_size = _native_size(parts, family, latent_factor)
    headers = {component: _weights(folder / component, file, reads) for component, file in SD_WEIGHTS.items()}
    _check_shapes(parts, headers)
    configs = [index.path, *(part.path for part in parts), *tokenizer]
    hints = read_recommendations(folder, family, reads)
    return ModelEntry(
        name=name,
        kind=Kind.CHECKPOINT,
        layout=Layout.DIFFUSERS,
        family=family.name,
        path=folder,
        fingerprint=fingerprint(headers, {str(path.relative_to(folder)): path for path in configs}, reads),
        components=tuple(
            Component(name=component, bytes=header.weight_bytes, parameters=header.parameters, dtype=header.dtype)
            for component, header in headers.items()
        ),
        native_size=native_size,
        latent_factor=latent_factor,
        latent_channels=parts.vae.whole("latent_channels"),
        default_steps=hints.steps,
        default_guidance_scale=hints.guidance_scale,
        default_scheduler=hints.scheduler,
    )


def model_name(folder: Path) -> str:
    """Return the name that a folder gives its model, raising `NameInvalid` when people could not write it."""
    name = folder.name
    # A name that is not UTF-8 arrives with lone surrogates, which are not printable either.
    if not 0 < len(name) <= MAX_NAME or not name.isprintable() or name != name.strip() or not str(folder).isprintable():
        raise NameInvalid(
            folder, f"has a path that is not printable UTF-8, or a name longer than {MAX_NAME} characters"
        )
    return name


def _refuse_code(folder: Path) -> None:
    seen = 0
    for place, _, files in os.walk(folder):
        seen += len(files)
        if seen > MAX_FILES:
            raise FolderTooLarge(folder, f"holds more than {MAX_FILES} files; a model folder holds one model")
        for file in files:
            if Path(file).suffix.lower() in CODE_SUFFIXES:
                raise CodeRefused(Path(place) / file, "is program code; a model folder must hold none")


def _family(index: Config) -> FamilyFacts:
    pipeline = index.values.get("_class_name")
    if not isinstance(pipeline, str):
        raise ClassRefused(index.path, "names a pipeline of its own; only those of diffusers are drawn")
    for family in FAMILIES.values():
        if pipeline in family.pipeline_classes:
            return family
    if pipeline in LATER_PIPELINES:
        raise Unrecognised(index.path, f"{LATER_PIPELINES[pipeline]} ({pipeline}) is not supported yet")
    raise ClassRefused(index.path, f"names the pipeline {pipeline[:60]!r}, which is not on the list of known ones")


def _check_components(index: Config) -> None:
    found = set()
    for component, value in index.values.items():
        if component.startswith("_") or component == "requires_safety_checker":
            continue
        if component not in SD_COMPONENTS:
            raise ClassRefused(index.path, f"names the component {component[:60]!r}, which this family does not have")
        if value in (None, [None, None]):
            continue
        if not isinstance(value, list) or tuple(map(str, value)) not in SD_COMPONENTS[component]:
            raise ClassRefused(
                index.path, f"names {str(value)[:80]} as {component}, which is not on the list of known classes"
            )
        found.add(component)
    missing = sorted({*SD_WEIGHTS, "tokenizer", "scheduler"} - found)
    if missing:
        raise ConfigInvalid(index.path, f"names no {' and no '.join(missing)}")


def _text_encoder(folder: Path, reads: Reads) -> Config:
    config = read_config(folder / "text_encoder" / "config.json", reads)
    config.of_class("clip_text_model", key="model_type").only(CLIP_TEXT_KEYS)
    if config.values.get("architectures") not in (None, ["CLIPTextModel"]):
        raise ClassRefused(
            config.path, f"names the architectures {str(config.values['architectures'])[:80]} instead of CLIPTextModel"
        )
    return config


def _scheduler(folder: Path, index: Config, reads: Reads) -> Config:
    named = index.values["scheduler"][1]
    return read_config(folder / "scheduler" / "scheduler_config.json", reads).of_class(named).only(SCHEDULER_KEYS)


def _tokenizer(folder: Path, reads: Reads) -> list[Path]:
    place = folder / "tokenizer"
    files = [place / name for name in TOKENIZER_FILES if (place / name).is_file()]
    if not any(file.name in {"tokenizer.json", "vocab.json"} for file in files):
        raise ConfigInvalid(place, "holds neither tokenizer.json nor vocab.json")
    settings = place / "tokenizer_config.json"
    if settings in files:
        config = read_config(settings, reads, largest=NO_LIMIT).only(TOKENIZER_CONFIG_KEYS)
        if config.values.get("tokenizer_class") not in (None, "CLIPTokenizer", "CLIPTokenizerFast"):
            raise ClassRefused(
                settings, f"names the class {str(config.values['tokenizer_class'])[:60]!r} instead of CLIPTokenizer"
            )
    return files


def _refuse_other_kinds(parts: _Parts, family: FamilyFacts) -> None:
    unet, text_width = parts.unet, parts.text_encoder.whole("hidden_size")
    channels = unet.whole("in_channels", 4)
    if channels != family.latent_channels:
        kind = {8: "an instruct-pix2pix model", 9: "an inpainting model"}.get(channels, "another kind of model")
        raise Unrecognised(unet.path, f"takes {channels} channels: {kind}, which is not supported yet")
    prediction = parts.scheduler.values.get("prediction_type", "epsilon")
    if prediction != family.prediction:
        raise Unrecognised(
            parts.scheduler.path, f"predicts {str(prediction)[:40]!r}; only {family.prediction!r} is supported yet"
        )
    if text_width == SD2_TEXT_WIDTH and unet.values.get("use_linear_projection"):
        raise Unrecognised(unet.path, "is Stable Diffusion 2.x, which is not supported yet")
    for key in (
        "addition_embed_type",
        "class_embed_type",
        "encoder_hid_dim_type",
        "time_cond_proj_dim",
        "num_class_embeds",
    ):
        if unet.values.get(key) is not None:
            raise Unrecognised(unet.path, f"wants more than a prompt ({key}), which is not supported yet")
    if unet.whole("cross_attention_dim", 1280) != text_width:
        raise ConfigInvalid(
            unet.path,
            f"reads text features of width {unet.values.get('cross_attention_dim')}; its text encoder gives {text_width}",
        )
    if unet.whole("out_channels", 4) != channels or parts.vae.whole("latent_channels") != channels:
        raise ConfigInvalid(unet.path, "and the VAE do not have the same number of latent channels")


def _native_size(parts: _Parts, family: FamilyFacts, latent_factor: int) -> int:
    side = parts.unet.side("sample_size")
    if side is None:
        raise Unrecognised(parts.unet.path, "was trained on pictures that are not square, which is not supported yet")
    size = side * latent_factor
    if family.size_step % latent_factor:
        raise Unrecognised(
            parts.vae.path,
            f"has {latent_factor} pixels per latent cell, which does not divide the step of {family.size_step}",
        )
    # Below the family's own minimum, because a model knows best what it was trained on.
    if size > family.max_side or size % family.size_step:
        reason = (
            f"draws {size} pixels a side; {family.title} takes up to {family.max_side} in steps of {family.size_step}"
        )
        raise Unrecognised(parts.unet.path, reason)
    return size


def _weights(place: Path, file: str, reads: Reads) -> Header:
    path = place / file
    if path.exists():
        return read_header(path, reads)
    others = sorted(other.name for other in place.iterdir() if other.is_file()) if place.is_dir() else []
    pickles = [other for other in others if Path(other).suffix.lower() in PICKLE_SUFFIXES]
    safe = [other for other in others if other.endswith((".safetensors", ".safetensors.index.json"))]
    if safe:
        raise Unrecognised(
            place / safe[0], f"is a variant or a part of the weights; only a whole {file} is supported yet"
        )
    if pickles:
        reason = f"is a pickle, which can run code when it is opened; save the model with safetensors, as {file}"
        raise PickleRefused(place / pickles[0], reason)
    raise WeightsMissing(path, "is not there")


def _check_shapes(parts: _Parts, headers: dict[str, Header]) -> None:
    width = parts.unet.wholes("block_out_channels")[0]
    channels = parts.vae.whole("latent_channels")
    words, text_width = parts.text_encoder.whole("vocab_size", 49408), parts.text_encoder.whole("hidden_size")
    _check_shape(headers["unet"], ("conv_in.weight",), (width, channels))
    _check_shape(headers["vae"], ("decoder.conv_in.weight",), (parts.vae.wholes("block_out_channels")[-1], channels))
    embedding = "embeddings.token_embedding.weight"
    _check_shape(headers["text_encoder"], (embedding, f"text_model.{embedding}"), (words, text_width))


def _check_shape(header: Header, names: tuple[str, ...], expected: tuple[int, int]) -> None:
    tensor = next((header.tensors[name] for name in names if name in header.tensors), None)
    if tensor is None:
        raise WeightsMismatch(header.path, f"has no tensor {names[0]}")
    if tensor.shape[:2] != expected:
        raise WeightsMismatch(
            header.path, f"has {names[0]} of shape {list(tensor.shape)}; its configuration says {list(expected)} …"
        )
