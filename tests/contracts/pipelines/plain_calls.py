"""Draw jobs of SD 2.x and SDXL as a user of plain diffusers would, over weights of its own: what the step engine is compared with."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import diffusers
import numpy as np
import torch
from PIL import Image

from jobs.contract import DiffusionJob
from tests.contracts.pipelines.running import Result, plain_scheduler

_DIFFUSERS: Any = diffusers
SIDE: Final = 64
#: The mask of every case: sides on the borders of latent cells, so that plain diffusers sees the same one.
MASKED: Final = np.s_[16:40, 8:56]


def _noise(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (SIDE, SIDE, 3), np.uint8))


def _mask() -> Image.Image:
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[MASKED] = 255
    return Image.fromarray(mask)


PICTURES: Final[Mapping[str, Image.Image]] = {
    f"upload:{name}": picture for name, picture in {"a" * 64: _noise(1), "b" * 64: _noise(2), "c" * 64: _mask()}.items()
}
SOURCE, EDGES, HOLE = PICTURES

_CLASSES: Final[Mapping[str, Mapping[str, str]]] = {
    "sd2": {
        "txt2img": "StableDiffusionPipeline",
        "img2img": "StableDiffusionImg2ImgPipeline",
        "inpaint": "StableDiffusionInpaintPipeline",
        "txt2img controlled": "StableDiffusionControlNetPipeline",
        "img2img controlled": "StableDiffusionControlNetImg2ImgPipeline",
        "inpaint controlled": "StableDiffusionControlNetInpaintPipeline",
    },
    "sdxl": {
        "txt2img": "StableDiffusionXLPipeline",
        "img2img": "StableDiffusionXLImg2ImgPipeline",
        "inpaint": "StableDiffusionXLInpaintPipeline",
        "txt2img controlled": "StableDiffusionXLControlNetPipeline",
        "img2img controlled": "StableDiffusionXLControlNetImg2ImgPipeline",
        "inpaint controlled": "StableDiffusionXLControlNetInpaintPipeline",
    },
}


class PlainCalls:
    """Draw with diffusers alone."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._pipes: dict[tuple[str, str, int], Any] = {}

    def __call__(self, wanted: DiffusionJob) -> Result:
        """Draw what the parameters say."""
        generator = torch.Generator("cpu").manual_seed(wanted.seed)
        size = {"width": wanted.width, "height": wanted.height}
        match wanted.task:
            case "img2img":
                return self._call("img2img", wanted, generator, image=PICTURES[SOURCE], strength=wanted.strength)
            case "inpaint":
                pictures = {"image": PICTURES[SOURCE], "mask_image": PICTURES[HOLE]}
                drawn = self._call("inpaint", wanted, generator, **pictures, strength=wanted.strength, **size)
                laid = np.asarray(PICTURES[SOURCE]).copy()
                laid[MASKED] = drawn.picture[MASKED]
                return Result(drawn.latents, laid)
            case _:
                return self._txt2img(wanted, generator, size)

    def _txt2img(self, wanted: Any, generator: torch.Generator, size: Mapping[str, int]) -> Result:
        if wanted.refiner is not None:
            share = wanted.refiner.switch_at
            first = self._call("txt2img", wanted, generator, **size, denoising_end=share)
            changed = wanted.model_copy(update={"model": wanted.refiner.model})
            latents = torch.from_numpy(first.latents)
            return self._call("img2img", changed, generator, image=latents, denoising_start=share)
        first = self._call("txt2img", wanted, generator, **size)
        if wanted.hires is None:
            return first
        latents = torch.from_numpy(first.latents)
        larger = torch.nn.functional.interpolate(latents, scale_factor=wanted.hires.scale, mode="bicubic")
        return self._call("img2img", wanted, generator, image=larger, strength=wanted.hires.strength)

    def _call(self, task: str, wanted: DiffusionJob, generator: torch.Generator, **arguments: Any) -> Result:
        pipe = self._pipe(task, wanted)
        if wanted.controls:
            values: dict[str, list[Any]] = {
                "image" if task == "txt2img" else "control_image": [PICTURES[each.image] for each in wanted.controls],
                "controlnet_conditioning_scale": [each.scale for each in wanted.controls],
                "control_guidance_start": [each.start for each in wanted.controls],
                "control_guidance_end": [each.end for each in wanted.controls],
            }
            single = len(wanted.controls) == 1
            arguments |= {name: value[0] if single else value for name, value in values.items()}
        kept: dict[str, torch.Tensor] = {}

        def keep(_pipe: Any, _step: int, _timestep: Any, tensors: dict[str, torch.Tensor]) -> dict[str, Any]:
            kept.update(tensors)
            return {}

        image = pipe(
            wanted.prompt,
            # None given and an empty one are the same for us, as for A1111.
            negative_prompt=wanted.negative_prompt or None,
            num_inference_steps=wanted.steps,
            guidance_scale=wanted.guidance_scale,
            generator=generator,
            callback_on_step_end=keep,
            **arguments,
        ).images[0]
        return Result(kept["latents"].numpy(), np.asarray(image))

    def _pipe(self, task: str, wanted: DiffusionJob) -> Any:
        count = len(wanted.controls)
        key = (task, wanted.model, count)
        if key not in self._pipes:
            extra: dict[str, Any] = {}
            if count:
                nets = [
                    _DIFFUSERS.ControlNetModel.from_pretrained(self._folder / str(each.model))
                    for each in wanted.controls
                ]
                extra["controlnet"] = nets[0] if count == 1 else nets
            classes = _CLASSES[wanted.model.partition("-")[0]]
            cls = getattr(diffusers, classes[f"{task} controlled" if count else task])
            pipe = cls.from_pretrained(self._folder / wanted.model, local_files_only=True, **extra)
            pipe.set_progress_bar_config(disable=True)
            self._pipes[key] = (pipe, pipe.scheduler.config)
        pipe, config = self._pipes[key]
        pipe.scheduler = plain_scheduler(wanted.scheduler, config)
        return pipe
