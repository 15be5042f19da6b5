"""Text to image, and its second, larger pass."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np
import torch
from PIL import Image

from jobs.contract import DiffusionParameters, Txt2ImgParameters
from jobs.geometry import Size, denoising_steps, hires_size
from jobs.parts import Hires
from models_registry.builtins import LATENT_RESAMPLER, is_resampler
from models_registry.entries import Kind
from pipelines.engine.passes import Hand, Pass
from pipelines.families.plan import Plan
from pipelines.pictures import Pixels, to_pixels
from pipelines.resizing import resample, resize
from pipelines.tasks.controls import guided_by
from pipelines.tasks.latents import decoded
from pipelines.tasks.setting import Guided, Setting, make_pass

#: Controls of a picture that is drawn from nothing have no source whose mode they could share.
_CONTROL_MODE: Final = "crop"
#: How latents are enlarged: smoother than their nearest neighbours, sharper than linearly.
_LATENT_MODE: Final = "bicubic"


def plan_txt2img(parameters: Txt2ImgParameters, setting: Setting) -> Plan:
    """Draw from noise; a second pass draws over the first one enlarged."""
    size = Size(parameters.width, parameters.height)
    first = from_noise(parameters, setting, _controls(parameters, setting, size, "txt2img"))
    if parameters.hires is None:
        return Plan([first], setting.applied)
    return Plan(_twice(parameters, parameters.hires, setting, first), setting.applied)


def from_noise(parameters: DiffusionParameters, setting: Setting, guided: Guided) -> Pass:
    """Return the pass that draws at the job's size from noise alone; `guided` names its pictures for this task."""
    return make_pass(
        setting,
        "txt2img",
        guided,
        Size(parameters.width, parameters.height),
        steps=parameters.steps,
        count=parameters.steps,
        arguments={},
    )


def _controls(parameters: DiffusionParameters, setting: Setting, size: Size, task: str) -> Guided:
    return guided_by(setting, parameters.controls, lambda picture: resize(picture, size, _CONTROL_MODE), task=task)


def _twice(parameters: Txt2ImgParameters, hires: Hires, setting: Setting, first: Pass) -> Sequence[Pass]:
    size = hires_size(parameters.width, parameters.height, hires.scale, setting.size_step)
    steps = hires.steps or parameters.steps
    count = denoising_steps(steps, hires.strength)
    latent = hires.upscaler.casefold() == LATENT_RESAMPLER
    guided = _controls(parameters, setting, size, "img2img")
    pipe = setting.pipes.take("img2img", controlled=bool(guided.networks))
    from_latents = _from_latents if setting.takes_latents(pipe) else _from_decoded(setting.vae(pipe))
    second = make_pass(
        setting,
        "img2img",
        guided,
        size,
        steps=steps,
        count=count,
        arguments={"strength": setting.strength(count, steps)},
        carry=_latents_at(size, first) if latent else _pixels_at(size, hires.upscaler, setting),
        enter=from_latents if latent else _from_pixels,
    )
    return [_undecoded(first) if latent else first, second]


def _undecoded(first: Pass) -> Pass:
    return replace(first, arguments={**first.arguments, "output_type": "latent"})


def _latents_at(size: Size, first: Pass) -> Callable[[Any, Hand], Mapping[str, torch.Tensor]]:
    factor = first.pipe.vae_scale_factor

    def carry(output: Any, _hand: Hand) -> Mapping[str, torch.Tensor]:
        latents = first.spatial(output[0])
        cells = (size.height // factor, size.width // factor)
        # Half precision has no bicubic kernel on every device.
        larger = torch.nn.functional.interpolate(latents.float(), cells, mode=_LATENT_MODE)
        return {"latents": larger.to(latents.dtype)}

    return carry


def _from_latents(carried: Mapping[str, torch.Tensor], _hand: Hand) -> Mapping[str, Any]:
    return {"image": carried["latents"]}


def _from_decoded(vae: Any) -> Callable[[Mapping[str, torch.Tensor], Hand], Mapping[str, Any]]:
    def enter(carried: Mapping[str, torch.Tensor], hand: Hand) -> Mapping[str, Any]:
        return {"image": Image.fromarray(decoded(vae, carried["latents"], hand))}

    return enter


def _pixels_at(size: Size, upscaler: str, setting: Setting) -> Callable[[Any, Hand], Mapping[str, torch.Tensor]]:
    resampler = upscaler.casefold() if is_resampler(upscaler) else "lanczos"
    model = None if is_resampler(upscaler) else setting.shelf.take(setting.inputs.model(Kind.UPSCALER, upscaler))

    def carry(output: Any, hand: Hand) -> Mapping[str, torch.Tensor]:
        pixels = to_pixels(np.asarray(output[0])[0])
        if model is not None:
            pixels = _enlarged(pixels, size, model, hand)
        return {"pixels": torch.from_numpy(resample(pixels, size, resampler).copy())}

    return carry


def _enlarged(pixels: Pixels, size: Size, model: Any, hand: Hand) -> Pixels:
    """Let an upscaler enlarge until the size is reached, which may take several passes."""
    while pixels.shape[1] < size.width or pixels.shape[0] < size.height:
        before = pixels.shape
        pixels = np.asarray(hand.perform("upscale", model, "enlarge", pixels), np.uint8)
        if pixels.shape <= before:
            break
    return pixels


def _from_pixels(carried: Mapping[str, torch.Tensor], _hand: Hand) -> Mapping[str, Any]:
    return {"image": Image.fromarray(carried["pixels"].cpu().numpy())}
