"""What a user of plain diffusers would call for each task of Z-Image."""

from pathlib import Path
from typing import Any, Final

import diffusers
import numpy as np
import torch
from PIL import Image

from tests.contracts.pipelines.flow_calls import HEIGHT, HOLE, MASKED, PICTURES, SOURCE, WIDTH, plain_flow_scheduler
from tests.contracts.pipelines.running import Result

#: The library ships no types for these classes.
_DIFFUSERS: Any = diffusers
_PIPES: Final = {"txt2img": "ZImagePipeline", "img2img": "ZImageImg2ImgPipeline", "inpaint": "ZImageInpaintPipeline"}


class PlainZImage:
    """Draw with diffusers alone."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._pipes: dict[str, Any] = {}

    def __call__(self, wanted: Any) -> Result:
        """Draw what the parameters say."""
        generator = torch.Generator("cpu").manual_seed(wanted.seed)
        if wanted.task == "txt2img":
            first = self._call("txt2img", wanted, generator)
            if wanted.hires is None:
                return first
            size = (int(WIDTH * wanted.hires.scale), int(HEIGHT * wanted.hires.scale))
            larger = Image.fromarray(first.picture).resize(size, Image.Resampling.LANCZOS)
            return self._call("img2img", wanted, generator, size, image=larger, strength=wanted.hires.strength)
        over = {"image": PICTURES[SOURCE], "strength": wanted.strength}
        if wanted.task == "img2img":
            return self._call("img2img", wanted, generator, **over)
        drawn = self._call("inpaint", wanted, generator, mask_image=PICTURES[HOLE], **over)
        laid = np.asarray(PICTURES[SOURCE]).copy()
        laid[MASKED] = drawn.picture[MASKED]
        return Result(drawn.latents, laid)

    def pipe(self, model: str, task: str, scheduler: str) -> Any:
        """Return a pipeline of diffusers with a scheduler that nobody else has."""
        if model not in self._pipes:
            self._pipes[model] = _DIFFUSERS.ZImagePipeline.from_pretrained(self._folder / model, local_files_only=True)
        own = self._pipes[model]
        pipe = getattr(diffusers, _PIPES[task])(**own.components)
        pipe.set_progress_bar_config(disable=True)
        pipe.scheduler = plain_flow_scheduler(scheduler, own.scheduler.config)
        return pipe

    def _call(
        self,
        task: str,
        wanted: Any,
        generator: torch.Generator,
        size: tuple[int, int] = (WIDTH, HEIGHT),
        **arguments: Any,
    ) -> Result:
        kept: dict[str, torch.Tensor] = {}

        def keep(_pipe: Any, _step: int, _timestep: Any, tensors: dict[str, torch.Tensor]) -> dict[str, Any]:
            kept.update(tensors)
            return {}

        image = self.pipe(wanted.model, task, wanted.scheduler)(
            wanted.prompt,
            negative_prompt=wanted.negative_prompt,
            width=size[0],
            height=size[1],
            num_inference_steps=wanted.steps,
            guidance_scale=wanted.guidance_scale,
            generator=generator,
            callback_on_step_end=keep,
            output_type="np",
            **arguments,
        ).images[0]
        return Result(kept["latents"].numpy(), (image * 255).round().astype(np.uint8))
