"""A whole checkpoint in the original layout as a diffusers pipeline: from its file and what lies beside it alone."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import diffusers
import torch
from transformers import CLIPTextModel, CLIPTextModelWithProjection

from jobs.errors import ModelDamaged
from models_registry.entries import ModelEntry
from models_registry.families import FAMILIES
from models_registry.vocabularies.clip import END
from pipelines.components import Components
from pipelines.families.pipes import neutral_options
from pipelines.original.beside import read_beside
from pipelines.original.component import Weights, below, build_text_encoder, build_unet, build_vae, vae_weights
from pipelines.original.configs import component_config, read_config
from pipelines.original.flows import FLOWS, read_flow_checkpoint
from pipelines.original.networks import NETWORKS, read_network
from pipelines.original.published import Published, published
from pipelines.original.tokenizer import read_tokenizer
from pipelines.reading import name_failure, quieten, read_tensors

_DIFFUSERS: Any = diffusers
#: What a UNet for inpainting takes: latents, mask, masked latents.
_INPAINT_CHANNELS = 9
#: A tensor that trainers leave in a file to say that its noise ends in a signal of zero.
_NO_SIGNAL = "ztsnr"


#: What fills free places for OpenCLIP's text towers: its token 0.
_OPEN_CLIPS = "!"


class _Text(NamedTuple):
    """One text encoder of a layout."""

    component: str
    tokenizer: str
    #: What its tensors' names may begin with.
    prefixes: tuple[str, ...]
    #: Whether it tells of whole prompts too.
    projects: bool = False
    #: What its tokenizer fills free places with.
    padding: str = END


class _Layout(NamedTuple):
    """What a family's files hold beside UNet and VAE, and the pipelines that draw with it."""

    texts: Sequence[_Text]
    pipeline: str
    inpainting: str = ""
    options: Mapping[str, Any] = MappingProxyType({})


_TRANSFORMERS = "cond_stage_model.transformer."
_SD = ("StableDiffusionPipeline", "StableDiffusionInpaintPipeline")
_LAYOUTS: Mapping[str, _Layout] = MappingProxyType(
    {
        "sd15": _Layout([_Text("text_encoder", "tokenizer", (_TRANSFORMERS,))], *_SD),
        "sd2": _Layout(
            [_Text("text_encoder", "tokenizer", ("cond_stage_model.model.", _TRANSFORMERS), padding=_OPEN_CLIPS)], *_SD
        ),
        "sdxl": _Layout(
            [
                _Text("text_encoder", "tokenizer", ("conditioner.embedders.0.transformer.",)),
                _Text("text_encoder_2", "tokenizer_2", ("conditioner.embedders.1.model.",), True, _OPEN_CLIPS),
            ],
            "StableDiffusionXLPipeline",
            "StableDiffusionXLInpaintPipeline",
        ),
    }
)
_REFINER = _Layout(
    [_Text("text_encoder_2", "tokenizer_2", ("conditioner.embedders.0.model.",), True, _OPEN_CLIPS)],
    "StableDiffusionXLImg2ImgPipeline",
    options=MappingProxyType({"requires_aesthetics_score": True, "force_zeros_for_empty_prompt": False}),
)


def read_checkpoint(entry: ModelEntry, components: Components, dtype: torch.dtype) -> Any:
    """Load a single file onto the components' device, raising `ModelMissing`, `ModelDamaged` (naming the file) or `OutOfMemory`."""
    if entry.family in FLOWS:
        return read_flow_checkpoint(entry, components, dtype)
    if entry.family in NETWORKS:
        return read_network(entry, components, dtype)
    quieten()
    layout = _REFINER if entry.variant == "refiner" else _LAYOUTS.get(entry.family)
    if layout is None:
        raise ModelDamaged(
            f"{entry.path} is a single file of {FAMILIES[entry.family].title}, which is read from folders only"
        )
    path, usual = entry.path, published(entry.family, entry.variant)
    # What is small is looked at before what is large.
    tokenizers = {text.tokenizer: read_tokenizer(path, text.tokenizer, padding=text.padding) for text in layout.texts}
    scheduler = name_failure(path, lambda: component_config(path, "scheduler", "", usual["scheduler"], {}))
    weights, _ = read_tensors(path)
    models = {
        name: components.settle(_part(entry, layout, usual, name, weights, dtype))
        for name in ("unet", "vae", *(text.component for text in layout.texts))
    }
    for text in layout.texts:
        known, words = models[text.component].config.vocab_size, len(tokenizers[text.tokenizer])
        if words > known:
            raise ModelDamaged(f"{path} knows {known} tokens, and its tokenizer {words}")
    if _NO_SIGNAL in weights and read_config(path, "scheduler") is None:
        scheduler |= {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    parts = {**tokenizers, **models, "scheduler": name_failure(path, lambda: _scheduler(scheduler))}
    return name_failure(path, lambda: _assemble(layout, parts))


def _part(
    entry: ModelEntry, layout: _Layout, usual: Mapping[str, Published], name: str, weights: Weights, dtype: torch.dtype
) -> Any:
    path, title = entry.path, FAMILIES[entry.family].title
    if name == "unet":
        return name_failure(path, lambda: build_unet(path, weights, title, usual[name], dtype))
    if name == "vae":
        if not vae_weights(weights):
            return read_beside(entry, name, _DIFFUSERS.AutoencoderKL, dtype)
        return name_failure(path, lambda: build_vae(path, weights, entry.family, dtype))
    text = next(each for each in layout.texts if each.component == name)
    own = next((found for prefix in text.prefixes if (found := below(weights, prefix))), None)
    if own is None:
        return read_beside(entry, name, CLIPTextModelWithProjection if text.projects else CLIPTextModel, dtype)
    return name_failure(
        path, lambda: build_text_encoder(path, own, name, title, usual[name], dtype, projects=text.projects)
    )


def _scheduler(config: Mapping[str, Any]) -> Any:
    name = str(config.get("_class_name"))
    if not name.endswith("Scheduler"):
        raise ModelDamaged(f"a configuration names {name} as its scheduler")
    return getattr(_DIFFUSERS, name).from_config(config)


def _assemble(layout: _Layout, parts: Mapping[str, Any]) -> Any:
    inpaints = parts["unet"].config.in_channels == _INPAINT_CHANNELS
    cls = getattr(diffusers, layout.inpainting if inpaints and layout.inpainting else layout.pipeline)
    lacking = {text.component: None for text in _LAYOUTS["sdxl"].texts} | {
        text.tokenizer: None for text in _LAYOUTS["sdxl"].texts
    }
    own = {**(lacking if layout is _REFINER else {}), **parts}
    return cls(**{**neutral_options(cls), **layout.options, **own})
