"""A whole checkpoint in the original layout as a diffusers pipeline: from its file and what lies beside it alone."""

from typing import Any

import diffusers
import torch

from jobs.errors import ModelDamaged
from models_registry.entries import ModelEntry
from pipelines.components import Components
from pipelines.original.component import build_text_encoder, build_unet, build_vae
from pipelines.original.configs import component_config
from pipelines.original.tokenizer import read_tokenizer
from pipelines.reading import name_failure, read_tensors

_DIFFUSERS: Any = diffusers
#: What a UNet for inpainting takes: latents, mask, masked latents.
_INPAINT_CHANNELS = 9


def read_checkpoint(entry: ModelEntry, components: Components, dtype: torch.dtype) -> Any:
    """Load a single file onto the components' device, raising `ModelMissing`, `ModelDamaged` (naming the file) or `OutOfMemory`."""
    path = entry.path
    # What is small is looked at before what is large.
    tokenizer = read_tokenizer(path)
    scheduler = name_failure(path, lambda: _scheduler(component_config(path, "scheduler", {})))
    weights, _ = read_tensors(path)
    builders = {"unet": build_unet, "vae": build_vae, "text_encoder": build_text_encoder}
    models = {
        name: components.settle(name_failure(path, lambda build=build: build(path, weights, dtype)))  # type: ignore[misc]
        for name, build in builders.items()
    }
    if len(tokenizer) > models["text_encoder"].config.vocab_size:
        raise ModelDamaged(
            f"{path} knows {models['text_encoder'].config.vocab_size} tokens, and its tokenizer {len(tokenizer)}"
        )
    return name_failure(path, lambda: _assemble(tokenizer=tokenizer, scheduler=scheduler, **models))


def _scheduler(config: dict[str, Any]) -> Any:
    name = str(config.get("_class_name"))
    if not name.endswith("Scheduler"):
        raise ModelDamaged(f"a configuration names {name} as its scheduler")
    return getattr(_DIFFUSERS, name).from_config(config)


def _assemble(**components: Any) -> Any:
    inpaints = components["unet"].config.in_channels == _INPAINT_CHANNELS
    cls = _DIFFUSERS.StableDiffusionInpaintPipeline if inpaints else _DIFFUSERS.StableDiffusionPipeline
    return cls(**components, safety_checker=None, feature_extractor=None, requires_safety_checker=False)
