"""A file of a network alone, and everything else beside it as folders: so Z-Image, FLUX.2 and Qwen-Image are passed on."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import diffusers
import torch
import transformers

from jobs.errors import ModelMissing
from models_registry.diffusers_classes import IS_DISTILLED
from models_registry.entries import ModelEntry
from models_registry.families import FAMILIES
from models_registry.kinds.single_files import config_folder
from pipelines.components import Components
from pipelines.original.beside import read_beside
from pipelines.original.component import below, build
from pipelines.original.configs import component_config
from pipelines.original.published import published
from pipelines.original.transformer import build_transformer
from pipelines.precision import held_at
from pipelines.reading import name_failure, quieten, read_tensors, read_tokenizer

#: The libraries ship no types for these classes.
_DIFFUSERS: Any = diffusers
_PREFIX: Final = "model.diffusion_model."


def _nothing(_variant: str) -> Mapping[str, Any]:
    return {}


class _Layout(NamedTuple):
    """The classes of what a family draws with."""

    pipeline: str
    transformer: str
    vae: str
    text_encoder: str
    tokenizer: str
    #: Whether the network's tensors have their original names, and not those of diffusers.
    is_original: bool = False
    #: From the variant to settings of the pipeline.
    settings: Callable[[str], Mapping[str, Any]] = _nothing


_LAYOUTS: Final[Mapping[str, _Layout]] = MappingProxyType(
    {
        "flux2": _Layout(
            "Flux2KleinPipeline",
            "Flux2Transformer2DModel",
            "AutoencoderKLFlux2",
            "Qwen3ForCausalLM",
            "Qwen2Tokenizer",
            is_original=True,
            settings=lambda variant: {IS_DISTILLED: variant == "klein"},
        ),
        "qwenimage": _Layout(
            "QwenImagePipeline",
            "QwenImageTransformer2DModel",
            "AutoencoderKLQwenImage",
            "Qwen2_5_VLForConditionalGeneration",
            "Qwen2Tokenizer",
        ),
        "zimage": _Layout(
            "ZImagePipeline",
            "ZImageTransformer2DModel",
            "AutoencoderKL",
            "Qwen3Model",
            "Qwen2Tokenizer",
            is_original=True,
        ),
    }
)
_FLUX2_DEV: Final = _LAYOUTS["flux2"]._replace(
    pipeline="Flux2Pipeline",
    text_encoder="Mistral3ForConditionalGeneration",
    tokenizer="PreTrainedTokenizerFast",
    settings=_nothing,
)
#: Families whose files are read here.
NETWORKS: Final = frozenset(_LAYOUTS)


def read_network(entry: ModelEntry, components: Components, dtype: torch.dtype) -> Any:
    """Load a network and what lies beside it onto the components' device, raising `ModelMissing`, `ModelDamaged` or `OutOfMemory`."""
    quieten()
    layout = _FLUX2_DEV if (entry.family, entry.variant) == ("flux2", "dev") else _LAYOUTS[entry.family]
    path, usual = entry.path, published(entry.family, entry.variant, entry.width)
    # What is small is looked at before what is large.
    tokenizer = _tokenizer(entry, layout)
    scheduler = name_failure(path, lambda: component_config(path, "scheduler", "", usual["scheduler"], {}))
    stepping = getattr(diffusers, str(scheduler.get("_class_name")))
    beside = {"vae": getattr(diffusers, layout.vae), "text_encoder": getattr(transformers, layout.text_encoder)}
    parts = {
        "transformer": components.settle(name_failure(path, lambda: _transformer(entry, layout, dtype))),
        **{name: components.settle(read_beside(entry, name, cls, dtype)) for name, cls in beside.items()},
        "tokenizer": tokenizer,
        "scheduler": name_failure(path, lambda: stepping.from_config(scheduler)),
    }
    return name_failure(path, lambda: getattr(diffusers, layout.pipeline)(**parts, **layout.settings(entry.variant)))


def _transformer(entry: ModelEntry, layout: _Layout, dtype: torch.dtype) -> Any:
    weights, _ = read_tensors(entry.path)
    own = below(weights, _PREFIX) or weights
    usual = published(entry.family, entry.variant, entry.width)["transformer"]
    config = component_config(entry.path, "transformer", FAMILIES[entry.family].title, usual, own)
    cls = getattr(_DIFFUSERS, layout.transformer)
    held = held_at(entry.family, "transformer", config, dtype)
    if layout.is_original:
        if "img_in.weight" in own:
            config.setdefault("guidance_embeds", any(name.startswith("guidance_in.") for name in own))
        return build_transformer(entry.path, own, lambda: cls.from_config(config), held)
    return build(entry.path, lambda: cls.from_config(config), own, held)


def _tokenizer(entry: ModelEntry, layout: _Layout) -> Any:
    folder = config_folder(entry.path) / "tokenizer"
    if not folder.is_dir():
        raise ModelMissing(f"{entry.path} has no tokenizer beside it, as {folder.parent.name}/{folder.name}")
    return read_tokenizer(folder, layout.tokenizer)
