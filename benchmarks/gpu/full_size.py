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
#: 860, 2 567.
PIPELINES: Final[Mapping[str, str]] = {"sd15": "StableDiffusionPipeline", "sdxl": "StableDiffusionXLPipeline"}
_UNJUDGED: Final = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
#: Name of a component → that of its tokenizer.
_TOKENIZERS: Final = {"text_encoder": "tokenizer", "text_encoder_2": "tokenizer_2"}


def build(name: str, folder: Path, dtype: torch.dtype = torch.float16) -> Path:
    """Write a model (a key of `PIPELINES`) as a diffusers folder at a precision and return it."""
    torch.manual_seed(0)
    parts = {component: _part(component, settings) for component, settings in PUBLISHED[name].items()}
    tokenizers = {_TOKENIZERS[each]: _tokenizer(PUBLISHED[name][each]) for each in parts if each in _TOKENIZERS}
    options = _UNJUDGED if name == "sd15" else {}
    pipe = getattr(_DIFFUSERS, PIPELINES[name])(**parts, **tokenizers, **options)
    pipe.to(dtype).save_pretrained(folder)
    return folder


def _part(component: str, settings: Settings) -> Any:
    name = settings.get("_class_name")
    if name is not None:
        return getattr(_DIFFUSERS, name).from_config(dict(settings))
    cls = _TRANSFORMERS.CLIPTextModelWithProjection if component == "text_encoder_2" else _TRANSFORMERS.CLIPTextModel
    return cls(_TRANSFORMERS.CLIPTextConfig(**{key: value for key, value in settings.items() if key != "model_type"}))


def _tokenizer(settings: Settings) -> Any:
    # Its few tokens lie inside the real vocabulary, and it needs no download. Its end mark is not the real one, whose place pooled features
    # are taken from: without it they are the first token's, which takes as long.
    padding = {"pad_token": "!"} if settings["pad_token_id"] == 0 else {}
    folder = Path(next(iter(reference_models.__path__))) / "shapes-sd15" / "tokenizer"
    return _TRANSFORMERS.CLIPTokenizer.from_pretrained(folder, **padding)
