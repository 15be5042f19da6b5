"""Build models of the published sizes with random weights: they draw noise, in exactly the time and memory of the real ones."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import diffusers
import torch
import transformers

import reference_models
from models_registry.published import PUBLISHED, Settings

#: The libraries ship no types for these calls.
_DIFFUSERS: Any = diffusers
_TRANSFORMERS: Any = transformers

#: What was published → the pipeline that draws with it. Their numbers of parameters, in millions, without VAE (84) and text encoders:
#: 860, 2 567, 2 243, 8 057, 11 901.
PIPELINES: Final[Mapping[str, str]] = {
    "sd15": "StableDiffusionPipeline",
    "sdxl": "StableDiffusionXLPipeline",
    "sd3.5-medium": "StableDiffusion3Pipeline",
    "sd3.5-large": "StableDiffusion3Pipeline",
    "flux": "FluxPipeline",
}
_UNJUDGED: Final = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
#: Name of a component → that of its tokenizer.
_TOKENIZERS: Final = {"text_encoder": "tokenizer", "text_encoder_2": "tokenizer_2", "text_encoder_3": "tokenizer_3"}


def build(name: str, folder: Path, dtype: torch.dtype | None = None) -> Path:
    """Write a model (a key of `PIPELINES`) as a diffusers folder and return it; `dtype` None is what its family is held at."""
    if dtype is None:
        dtype = torch.bfloat16 if "transformer" in PUBLISHED[name] else torch.float16
    torch.manual_seed(0)
    projected = PIPELINES[name] == "StableDiffusion3Pipeline"
    parts = {
        component: _part(component, settings, dtype, projected=projected)
        for component, settings in PUBLISHED[name].items()
    }
    tokenizers = {_TOKENIZERS[each]: _tokenizer(PUBLISHED[name][each]) for each in parts if each in _TOKENIZERS}
    options = _UNJUDGED if name == "sd15" else {}
    pipe = getattr(_DIFFUSERS, PIPELINES[name])(**parts, **tokenizers, **options)
    pipe.save_pretrained(folder)
    return folder


def _part(component: str, settings: Settings, dtype: torch.dtype, *, projected: bool) -> Any:
    """Make one component, at once at its precision: twelve billion numbers at full precision would not fit beside the rest."""
    name = settings.get("_class_name")
    if component == "scheduler":
        return getattr(_DIFFUSERS, str(name)).from_config(dict(settings))
    usual = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        made = _network(component, settings, projected=projected)
    finally:
        torch.set_default_dtype(usual)
    return made.to(dtype)


def _network(component: str, settings: Settings, *, projected: bool) -> Any:
    name = settings.get("_class_name")
    if name is not None:
        return getattr(_DIFFUSERS, name).from_config(dict(settings))
    own = {key: value for key, value in settings.items() if key != "model_type"}
    if settings["model_type"] == "t5":
        return _TRANSFORMERS.T5EncoderModel(_TRANSFORMERS.T5Config(**own))
    projects = projected or component == "text_encoder_2"
    cls = _TRANSFORMERS.CLIPTextModelWithProjection if projects else _TRANSFORMERS.CLIPTextModel
    return cls(_TRANSFORMERS.CLIPTextConfig(**own))


def _tokenizer(settings: Settings) -> Any:
    if settings["model_type"] == "t5":
        symbols = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
        letters = [(letter, -3.0) for letter in "abcdefghijklmnopqrstuvwxyz"]
        return _TRANSFORMERS.T5TokenizerFast(vocab=[*symbols, *letters], extra_ids=0, model_max_length=512)
    # Its few tokens lie inside the real vocabulary, and it needs no download. Its end mark is not the real one, whose place pooled features
    # are taken from: without it they are the first token's, which takes as long.
    padding = {"pad_token": "!"} if settings["pad_token_id"] == 0 else {}
    folder = Path(next(iter(reference_models.__path__))) / "shapes-sd15" / "tokenizer"
    return _TRANSFORMERS.CLIPTokenizer.from_pretrained(folder, **padding)
