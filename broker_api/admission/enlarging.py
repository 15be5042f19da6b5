"""Resolve the tasks that make one picture of another without a prompt: upscaling, with or without redrawing, and preprocessing."""

import math
from collections.abc import Mapping
from typing import Final, NamedTuple

from broker_api.admission.defaults import denoising
from broker_api.admission.meaningless import refuse_meaningless
from broker_api.admission.models import Models
from broker_api.admission.sizes import check_side
from jobs.contract import (
    PreprocessParameters,
    PreprocessRequest,
    RefineParameters,
    UpscaleParameters,
    UpscaleRequest,
)
from jobs.errors import OptionUnsupported, SizeUnsupported
from jobs.geometry import upscaled_size
from jobs.parts import MAX_SIDE, Refine
from jobs.prompts.tags import take_tags
from jobs.uploads import Upload
from models_registry.entries import Kind, ModelEntry

#: When neither the request nor the upscaler says how much.
USUAL_SCALE: Final = 2.0
#: What nearly every upscaler enlarges by; used where its file does not tell.
USUAL_PASS: Final = 4
#: The last pass may overshoot before the picture is brought to its size: by so many times the pixels the server draws.
OVERSHOOT: Final = 4


class _Chosen(NamedTuple):
    upscaler: str
    #: How much one pass enlarges; 1 for a resampler.
    each: int
    scale: float
    #: The name the request gives the checkpoint that refines.
    model: str | None


def resolve_upscale(
    request: UpscaleRequest, pictures: Mapping[str, Upload], seed: int, models: Models, max_pixels: int
) -> UpscaleParameters:
    """Return what a worker enlarges a picture by."""
    source = pictures["image"]
    chosen = _choose(request, models)
    size = upscaled_size(source.width, source.height, chosen.scale)
    passes = math.ceil(math.log(chosen.scale, chosen.each) - 1e-9) if chosen.each > 1 else 0
    widest = source.width * source.height * chosen.each ** (2 * passes)
    if max(size) > MAX_SIDE or size.width * size.height > max_pixels or widest > OVERSHOOT * max_pixels:
        raise SizeUnsupported(
            f"{source.width} x {source.height} times {chosen.scale:g} is {size.width} x {size.height}; this server makes pictures of at "
            f"most {max_pixels} pixels and {MAX_SIDE} a side.",
            field="scale",
        )
    checkpoint = None if request.refine is None else models.checkpoint(chosen.model, "img2img", task_field="model")
    refine = None
    if request.refine is not None and checkpoint is not None:
        refine = _refine(request.refine, checkpoint, models)
    return UpscaleParameters(
        **{
            **{name: getattr(request, name) for name in type(request).model_fields},
            "model": chosen.upscaler if checkpoint is None else checkpoint.name,
            "upscaler": chosen.upscaler,
            "upscaler_scale": chosen.each,
            "scale": chosen.scale,
            "refine": refine,
            "width": size.width,
            "height": size.height,
            "source_width": source.width,
            "source_height": source.height,
            "seed": seed,
            "preview_every": request.preview_every or 0,
        }
    )


def resolve_preprocess(
    request: PreprocessRequest, pictures: Mapping[str, Upload], seed: int, models: Models
) -> PreprocessParameters:
    """Return what a worker makes a control picture from."""
    if request.model is not None:
        raise OptionUnsupported("Preprocessing draws with no model: `preprocessor` says all.", field="model")
    name = models.preprocessor(
        request.preprocessor, request.preprocessor_options, "preprocessor", "preprocessor_options"
    )
    source = pictures["image"]
    return PreprocessParameters(
        **{
            **{field: getattr(request, field) for field in type(request).model_fields},
            "model": name,
            "preprocessor": name,
            "width": source.width,
            "height": source.height,
            "seed": seed,
            "preview_every": request.preview_every or 0,
        }
    )


def _choose(request: UpscaleRequest, models: Models) -> _Chosen:
    """Return the upscaler, and the checkpoint's name; `model` may name the upscaler where nothing else is asked of it."""
    asked, model = request.upscaler, request.model
    field = "upscaler"
    if asked is None and model is not None and _means_upscaler(request, model, models):
        asked, model, field = model, None, "model"
    if model is not None and request.refine is None:
        raise OptionUnsupported(
            "`model` redraws the enlarged picture: it needs `refine`. An upscaler is named in `upscaler`.",
            field="model",
        )
    found: str | ModelEntry
    if asked is not None:
        found = models.upscaler(asked, field, latent=False)
    else:
        found = next(iter(models.catalogue.of_kind(Kind.UPSCALER)), "lanczos")
    if isinstance(found, str):
        return _Chosen(found, 1, request.scale or USUAL_SCALE, model)
    each = found.scale or USUAL_PASS
    return _Chosen(found.name, each, request.scale or (float(each) if each > 1 else USUAL_SCALE), model)


def _means_upscaler(request: UpscaleRequest, model: str, models: Models) -> bool:
    if request.refine is not None:
        return models.catalogue.find(model) is None and models.catalogue.find(model, Kind.UPSCALER) is not None
    return models.catalogue.find(model) is None or models.catalogue.find(model, Kind.UPSCALER) is not None


def _refine(refine: Refine, entry: ModelEntry, models: Models) -> RefineParameters:
    refuse_meaningless(refine, entry, models, "refine.")
    for field in ("prompt", "negative_prompt"):
        if take_tags(getattr(refine, field)).loras:
            raise OptionUnsupported("LoRAs do not take part in refining.", field=f"refine.{field}")
    tile = refine.tile or entry.native_size
    check_side("refine.tile", tile, entry)
    return RefineParameters(
        **{
            **{name: getattr(refine, name) for name in type(refine).model_fields},
            **denoising(refine, entry, "refine."),
            "tile": tile,
        }
    )
