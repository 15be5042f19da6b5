"""Which models a job needs, by the field that names each; pure.

What the names of built-in resamplers mean stands in `models_registry.builtins`, those of preprocessors in `models_registry.preprocessors`.
"""

from collections.abc import Iterator
from typing import NamedTuple

from jobs.contract import (
    AnalyseParameters,
    DiffusionParameters,
    JobParameters,
    PreprocessParameters,
    Txt2ImgParameters,
    UpscaleParameters,
)
from models_registry.builtins import is_resampler
from models_registry.entries import Kind, ModelRef
from models_registry.preprocessors import PREPROCESSORS


class Need(NamedTuple):
    """One model a job needs, and the dotted path of the field that names it."""

    ref: ModelRef
    field: str


def needs_of(parameters: JobParameters) -> list[Need]:
    """Return every model a job needs, the one that draws first."""
    return list(_needs(parameters))


def main_need(parameters: JobParameters) -> Need | None:
    """Return the model whose warmth counts: the checkpoint, else the upscaler; None for what needs no model."""
    return next(_needs(parameters), None)


def _needs(parameters: JobParameters) -> Iterator[Need]:
    if isinstance(parameters, DiffusionParameters):
        yield Need(ModelRef(Kind.CHECKPOINT, parameters.model), "model")
        yield from _diffusion_needs(parameters)
    elif isinstance(parameters, UpscaleParameters):
        if parameters.refine is not None:
            yield Need(ModelRef(Kind.CHECKPOINT, parameters.model), "model")
        if not is_resampler(parameters.upscaler):
            yield Need(ModelRef(Kind.UPSCALER, parameters.upscaler), "upscaler")
    elif isinstance(parameters, PreprocessParameters):
        yield from _weights(parameters.preprocessor, "preprocessor")
    elif isinstance(parameters, AnalyseParameters):
        if parameters.subject == "text":
            yield Need(ModelRef(Kind.CHECKPOINT, parameters.model), "model")
        for place, name in enumerate(parameters.adapters):
            yield Need(ModelRef(Kind.LORA, name), f"adapters.{place}")
    else:
        raise TypeError(f"unknown parameters {type(parameters).__name__}")


def _diffusion_needs(parameters: DiffusionParameters) -> Iterator[Need]:
    for place, lora in enumerate(parameters.loras):
        yield Need(ModelRef(Kind.LORA, lora.name), f"loras.{place}.name")
    for place, name in enumerate(parameters.embeddings):
        yield Need(ModelRef(Kind.EMBEDDING, name), f"embeddings.{place}")
    for place, control in enumerate(parameters.controls):
        if control.model is not None:
            yield Need(ModelRef(Kind.CONTROLNET, control.model), f"controls.{place}.model")
        if control.preprocessor is not None:
            yield from _weights(control.preprocessor, f"controls.{place}.preprocessor")
    if parameters.vae is not None:
        yield Need(ModelRef(Kind.VAE, parameters.vae), "vae")
    if isinstance(parameters, Txt2ImgParameters) and parameters.refiner is not None:
        yield Need(ModelRef(Kind.CHECKPOINT, parameters.refiner.model), "refiner.model")
    if isinstance(parameters, Txt2ImgParameters) and parameters.hires is not None:
        upscaler = parameters.hires.upscaler
        if not is_resampler(upscaler):
            yield Need(ModelRef(Kind.UPSCALER, upscaler), "hires.upscaler")


def _weights(preprocessor: str, field: str) -> Iterator[Need]:
    facts = PREPROCESSORS.get(preprocessor)
    if facts is not None and facts.needs_weights:
        yield Need(ModelRef(Kind.PREPROCESSOR, preprocessor), field)
