"""Inpainting and outpainting: the masked part is drawn anew, everything else stays bit for bit.

Latents cannot do that alone: decoding changes every pixel a little. So the drawn part is laid over the source at the end.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from jobs.contract import InpaintParameters
from jobs.geometry import Box, Size, denoising_steps
from pipelines.decoding import decode_mask, decode_picture
from pipelines.engine.passes import Hand
from pipelines.families.plan import Plan
from pipelines.latent_forms import channels_of
from pipelines.masks import Alpha, composite, fill, soften, whole_cells, window
from pipelines.pictures import Pixels
from pipelines.resizing import extend, resample, resize
from pipelines.tasks.controls import guided_by
from pipelines.tasks.frames import Frame, WholePicture, Window
from pipelines.tasks.latents import decoded
from pipelines.tasks.setting import Setting, make_pass

_WHITE = 255


class _Scene(NamedTuple):
    """A picture, as large as the result, and how much of the drawing each pixel takes."""

    source: Pixels
    alpha: Alpha


def plan_inpaint(parameters: InpaintParameters, setting: Setting) -> Plan:
    """Draw what the mask, or the new room around the picture, covers."""
    scene = _scene(parameters, setting)
    count = denoising_steps(parameters.steps, parameters.strength)
    if count == 0 or not scene.alpha.any():
        return Plan((), given=scene.source)
    frame = _frame(parameters, setting, scene)
    size = Size(scene.source.shape[1], scene.source.shape[0])
    guided = guided_by(
        setting,
        parameters.controls,
        lambda picture: frame.enter(resize(picture, size, parameters.resize_mode)),
        task="inpaint",
    )
    pipe = setting.pipes.take("inpaint", controlled=bool(guided.networks))
    mask = whole_cells(frame.touched(scene.alpha), pipe.vae_scale_factor)
    content = frame.enter(scene.source)
    if parameters.masked_content == "fill":
        content = fill(content, mask > 0)
    arguments = {
        "image": Image.fromarray(content),
        "mask_image": Image.fromarray(mask),
        "strength": setting.strength(count, parameters.steps),
    }
    drawn = make_pass(
        setting,
        "inpaint",
        guided,
        frame.size,
        steps=parameters.steps,
        count=count,
        arguments=arguments,
        enter=_content(parameters, setting.vae(pipe), pipe.vae_scale_factor, content, mask),
    )
    return Plan(
        [drawn],
        setting.applied,
        lambda pixels: composite(scene.source, frame.leave(pixels, scene.source), scene.alpha),
    )


def _scene(parameters: InpaintParameters, setting: Setting) -> _Scene:
    source = decode_picture(setting.inputs.picture(parameters.image))
    mask = _mask(parameters, setting, source)
    if parameters.inpaint_area == "whole":
        size = Size(parameters.width, parameters.height)
        source = resize(source, size, parameters.resize_mode)
        mask = resize(mask, size, parameters.resize_mode, black=True)
    grown = parameters.outpaint
    if grown is not None:
        margins = Box(grown.left, grown.top, grown.right, grown.bottom)
        source = extend(source, margins)
        old = extend(np.full(mask.shape, _WHITE, np.uint8), margins, black=True)
        mask = np.where(old, extend(mask, margins, black=True), np.uint8(_WHITE))
    return _Scene(source, soften(mask, parameters.mask_blur))


def _mask(parameters: InpaintParameters, setting: Setting, source: Pixels) -> npt.NDArray[np.uint8]:
    """Return brightness for each pixel of the source; white is drawn anew."""
    height, width = source.shape[:2]
    if parameters.mask is None:
        return np.zeros((height, width), np.uint8)
    # Nearest, so that a hard mask stays hard.
    mask = resample(decode_mask(setting.inputs.picture(parameters.mask)), Size(width, height), "nearest")
    return _WHITE - mask if parameters.mask_invert else mask


def _frame(parameters: InpaintParameters, setting: Setting, scene: _Scene) -> Frame:
    if parameters.inpaint_area == "whole":
        return WholePicture(Size(scene.source.shape[1], scene.source.shape[0]), setting.size_step)
    size = Size(parameters.width, parameters.height)
    return Window(window(scene.alpha, parameters.inpaint_padding, size), size)


def _content(
    parameters: InpaintParameters, vae: Any, cell: int, content: Pixels, mask: npt.NDArray[np.uint8]
) -> Callable[[Mapping[str, torch.Tensor], Hand], Mapping[str, Any]]:
    """Return what puts decoded noise, or decoded emptiness, under the mask."""

    def enter(_carried: Mapping[str, torch.Tensor], hand: Hand) -> Mapping[str, Any]:
        if parameters.masked_content not in {"noise", "nothing"}:
            return {}
        shape = (1, channels_of(vae), mask.shape[0] // cell, mask.shape[1] // cell)
        latents = torch.zeros(shape)
        if parameters.masked_content == "noise":
            latents = torch.randn(shape, generator=hand.generator)
        drawn = decoded(vae, latents, hand)
        return {"image": Image.fromarray(np.where(mask[..., None] > 0, drawn, content))}

    return enter
