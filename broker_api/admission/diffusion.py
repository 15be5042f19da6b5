"""Resolve the tasks that denoise: text-to-image with its second pass, image-to-image, inpainting and outpainting."""

from collections.abc import Mapping
from typing import Any

from broker_api.admission.defaults import denoising
from broker_api.admission.meaningless import check_clip_skip, check_refiner, refuse_meaningless
from broker_api.admission.models import Models
from broker_api.admission.sizes import check_inside, check_pixels, drawn_size
from broker_api.admission.stacks import stacked
from jobs.contract import PARAMETERS, DiffusionRequest, Img2ImgRequest, InpaintRequest, JobParameters, Txt2ImgRequest
from jobs.errors import PictureRefused, SizeUnsupported
from jobs.geometry import Size, hires_size, outpainted_size
from jobs.parts import Hires
from jobs.uploads import Upload
from models_registry.entries import ModelEntry
from models_registry.families import FAMILIES


def resolve_diffusion(
    request: DiffusionRequest, pictures: Mapping[str, Upload], seed: int, models: Models, max_pixels: int
) -> JobParameters:
    """Return what a worker draws a request from."""
    entry = models.checkpoint(request.model, request.task)
    check_clip_skip(request.clip_skip, entry)
    refuse_meaningless(request, entry, models)
    own: dict[str, Any] = {}
    match request:
        case Img2ImgRequest():
            source = _size_of(pictures["image"])
            size = drawn_size(request.width, request.height, source, entry, max_pixels)
        case InpaintRequest():
            size = _inpainted(request, pictures, entry, max_pixels)
        case _:
            square = Size(entry.native_size, entry.native_size)
            size = drawn_size(
                request.width or entry.native_size, request.height or entry.native_size, square, entry, max_pixels
            )
    check_pixels(size, max_pixels, "width")
    if isinstance(request, Txt2ImgRequest):
        own |= _second(request, size, entry, models, max_pixels)
    return PARAMETERS[request.task](
        **{
            **{name: getattr(request, name) for name in type(request).model_fields},
            **stacked(request, entry, models),
            **denoising(request, entry),
            **own,
            "model": entry.name,
            "width": size.width,
            "height": size.height,
            "seed": seed,
            "preview_every": request.preview_every or 0,
        }
    )


def _size_of(picture: Upload) -> Size:
    return Size(picture.width, picture.height)


def _second(
    request: Txt2ImgRequest, size: Size, entry: ModelEntry, models: Models, max_pixels: int
) -> Mapping[str, Any]:
    """Return what goes on where the first pass of the first checkpoint ends."""
    found: dict[str, Any] = {}
    if request.hires is not None:
        found["hires"] = _hires(request.hires, size, entry, models, max_pixels)
    refiner = check_refiner(request, entry, models)
    if request.refiner is not None:
        found["refiner"] = request.refiner.model_copy(update={"model": refiner})
    return found


def _hires(hires: Hires, first: Size, entry: ModelEntry, models: Models, max_pixels: int) -> Hires:
    second = hires_size(*first, hires.scale, FAMILIES[entry.family].size_step)
    check_inside(second, entry, max_pixels, "hires.scale")
    found = models.upscaler(hires.upscaler, "hires.upscaler", latent=True)
    return hires.model_copy(update={"upscaler": found.name if isinstance(found, ModelEntry) else found})


def _inpainted(request: InpaintRequest, pictures: Mapping[str, Upload], entry: ModelEntry, max_pixels: int) -> Size:
    """Return the size inpainting draws at: the source's own, which is padded where the model needs multiples."""
    mask = pictures.get("mask")
    if mask is not None and mask.brightest == 0 and not request.mask_invert and request.outpaint is None:
        raise PictureRefused("The mask is all black: white is drawn anew.", field="mask")
    source = _size_of(pictures["image"])
    whole = request.inpaint_area == "whole"
    size = drawn_size(request.width, request.height, source, entry, max_pixels, exact=whole)
    grown = outpainted_size(*size, request.outpaint)
    if grown != size:
        check_inside(grown, entry, max_pixels, "outpaint")
    elif whole:
        _check_source(size, entry)
    return size


def _check_source(size: Size, entry: ModelEntry) -> None:
    # Small ones are padded; only what is too large must be asked for at another size.
    largest = FAMILIES[entry.family].max_side
    if max(size) > largest:
        raise SizeUnsupported(
            f"The picture is {size.width} x {size.height}; {FAMILIES[entry.family].title} draws sides up to {largest}: "
            "give width and height, or inpaint_area 'masked'.",
            field="image",
        )
