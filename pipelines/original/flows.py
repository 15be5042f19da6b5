"""A whole checkpoint of Stable Diffusion 3 or FLUX.1 in one file: each part from the file, or from the folder that lies beside it.

What T5's tokenizer knows is in no package, so it must lie beside a file that holds T5.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import diffusers
import torch
import transformers

from jobs.errors import ModelDamaged, ModelMissing
from models_registry.entries import ModelEntry
from models_registry.families import FAMILIES
from models_registry.kinds.single_files import config_folder
from models_registry.vocabularies.clip import END
from pipelines.components import Components
from pipelines.original.beside import lies_beside, read_beside
from pipelines.original.component import Weights, below, build, build_text_encoder, build_vae
from pipelines.original.configs import component_config
from pipelines.original.published import Published, published
from pipelines.original.tokenizer import read_tokenizer
from pipelines.original.transformer import build_transformer
from pipelines.precision import held_at
from pipelines.reading import name_failure, quieten, read_tensors

#: The libraries ship no types for these classes.
_DIFFUSERS: Any = diffusers
_TRANSFORMERS: Any = transformers
_NETWORK: Final = "model.diffusion_model."
_VAES: Final = ("first_stage_model.", "vae.")
_TEXTS: Final = "text_encoders."


class _Text(NamedTuple):
    """One text encoder of a layout."""

    component: str
    tokenizer: str
    #: What its tensors' names begin with.
    prefix: str
    cls: str
    padding: str = END


class _Layout(NamedTuple):
    """What the files of a family hold, and the pipelines that draw with it."""

    transformer: str
    texts: Sequence[_Text]
    #: By what the transformer reads beside the latents, in multiples of them; 1 is nothing.
    pipelines: Mapping[int, str]
    #: Components that the family draws without.
    optional: frozenset[str] = frozenset()


_CLIP_L: Final = f"{_TEXTS}clip_l.transformer."
_CLIP_G: Final = f"{_TEXTS}clip_g.transformer."
_T5: Final = f"{_TEXTS}t5xxl.transformer."
_PROJECTED: Final = "CLIPTextModelWithProjection"
_LAYOUTS: Final[Mapping[str, _Layout]] = MappingProxyType(
    {
        "sd3": _Layout(
            "SD3Transformer2DModel",
            (
                _Text("text_encoder", "tokenizer", _CLIP_L, _PROJECTED),
                _Text("text_encoder_2", "tokenizer_2", _CLIP_G, _PROJECTED, "!"),
                _Text("text_encoder_3", "tokenizer_3", _T5, "T5EncoderModel"),
            ),
            MappingProxyType({1: "StableDiffusion3Pipeline"}),
            frozenset({"text_encoder_3"}),
        ),
        "flux": _Layout(
            "FluxTransformer2DModel",
            (
                _Text("text_encoder", "tokenizer", _CLIP_L, "CLIPTextModel"),
                _Text("text_encoder_2", "tokenizer_2", _T5, "T5EncoderModel"),
            ),
            MappingProxyType({1: "FluxPipeline", 2: "FluxControlPipeline"}),
        ),
    }
)
#: Families whose files are read here.
FLOWS: Final = frozenset(_LAYOUTS)


def read_flow_checkpoint(entry: ModelEntry, components: Components, dtype: torch.dtype) -> Any:
    """Load a single file onto the components' device, raising `ModelMissing`, `ModelDamaged` (naming the file) or `OutOfMemory`."""
    quieten()
    layout, path, usual = _LAYOUTS[entry.family], entry.path, published(entry.family, entry.variant)
    weights, _ = read_tensors(path)
    texts = [text for text in layout.texts if text.component not in layout.optional or _has(entry, weights, text)]
    # What is small is looked at before what is large.
    tokenizers = {text.tokenizer: _tokenizer(entry, text) for text in texts}
    scheduler = name_failure(path, lambda: component_config(path, "scheduler", "", usual["scheduler"], {}))
    models = {
        "transformer": components.settle(
            name_failure(path, lambda: _transformer(entry, layout, weights, usual["transformer"], dtype))
        ),
        "vae": components.settle(_vae(entry, weights, dtype)),
        **{
            text.component: components.settle(_text(entry, text, weights, usual[text.component], dtype))
            for text in texts
        },
    }
    for text in texts:
        known, words = models[text.component].config.vocab_size, len(tokenizers[text.tokenizer])
        if words > known:
            raise ModelDamaged(f"{path} knows {known} tokens, and its {text.tokenizer} {words}")
    lacking = {name: None for text in layout.texts if text not in texts for name in (text.component, text.tokenizer)}
    cls = getattr(diffusers, str(scheduler.get("_class_name")))
    parts = {**lacking, **tokenizers, **models, "scheduler": name_failure(path, lambda: cls.from_config(scheduler))}
    return name_failure(path, lambda: _pipeline(layout, models)(**parts))


def _pipeline(layout: _Layout, models: Mapping[str, Any]) -> Any:
    packed = 4 if len(layout.pipelines) > 1 else 1
    latents = packed * models["vae"].config.latent_channels
    name = layout.pipelines.get(models["transformer"].config.in_channels // latents, "FluxFillPipeline")
    return getattr(diffusers, name)


def _has(entry: ModelEntry, weights: Weights, text: _Text) -> bool:
    return any(name.startswith(text.prefix) for name in weights) or lies_beside(entry, text.component)


def _tokenizer(entry: ModelEntry, text: _Text) -> Any:
    if text.cls != "T5EncoderModel":
        return read_tokenizer(entry.path, text.tokenizer, padding=text.padding)
    folder = config_folder(entry.path) / text.tokenizer
    if not folder.is_dir():
        raise ModelMissing(
            f"{entry.path} has no tokenizer for T5 beside it: put the folder {text.tokenizer} of a"
            f" {FAMILIES[entry.family].title} model into {folder.parent.name}"
        )
    return name_failure(folder, lambda: _TRANSFORMERS.T5TokenizerFast.from_pretrained(folder, local_files_only=True))


def _transformer(entry: ModelEntry, layout: _Layout, weights: Weights, usual: Published, dtype: torch.dtype) -> Any:
    own = below(weights, _NETWORK) or {
        name: tensor for name, tensor in weights.items() if not name.startswith((*_VAES, _TEXTS))
    }
    config = component_config(entry.path, "transformer", FAMILIES[entry.family].title, usual, own)
    if "img_in.weight" in own:
        config.setdefault("in_channels", own["img_in.weight"].shape[1])
        config.setdefault("guidance_embeds", "guidance_in.in_layer.weight" in own)
    cls = getattr(diffusers, layout.transformer)
    held = held_at(entry.family, "transformer", config, dtype)
    return build_transformer(entry.path, own, lambda: cls.from_config(config), held)


def _vae(entry: ModelEntry, weights: Weights, dtype: torch.dtype) -> Any:
    own = next((found for prefix in _VAES if (found := below(weights, prefix))), None)
    if own is None:
        return read_beside(entry, "vae", _DIFFUSERS.AutoencoderKL, dtype)
    return name_failure(entry.path, lambda: build_vae(entry.path, own, entry.family, dtype))


def _text(entry: ModelEntry, text: _Text, weights: Weights, usual: Published, dtype: torch.dtype) -> Any:
    own = below(weights, text.prefix)
    if not own:
        return read_beside(entry, text.component, getattr(transformers, text.cls), dtype)
    held, title = held_at(entry.family, text.component, {}, dtype), FAMILIES[entry.family].title
    if text.cls == "T5EncoderModel":
        return name_failure(entry.path, lambda: _t5(entry, text.component, own, usual, held))
    return name_failure(
        entry.path,
        lambda: build_text_encoder(
            entry.path, own, text.component, title, usual, held, projects=text.cls == _PROJECTED
        ),
    )


def _t5(entry: ModelEntry, component: str, own: Weights, usual: Published, dtype: torch.dtype) -> Any:
    config = component_config(entry.path, component, FAMILIES[entry.family].title, usual, own)
    # One table under two names, of which most files have the first.
    table = own.get("shared.weight", own.get("encoder.embed_tokens.weight"))
    both = {} if table is None else {"shared.weight": table, "encoder.embed_tokens.weight": table}
    model = build(
        entry.path,
        lambda: _TRANSFORMERS.T5EncoderModel(_TRANSFORMERS.T5Config(**config)),
        {**{name: tensor for name, tensor in own.items() if not name.startswith("decoder.")}, **both},
        dtype,
    )
    model.encoder.embed_tokens.weight = model.shared.weight
    return model
