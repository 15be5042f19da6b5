"""What a user of plain diffusers would call for each task of FLUX.2, whose pipelines draw from noise or from what it is given."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
from PIL import Image

from jobs.contract import DiffusionJob
from tests.contracts.pipelines.flow_calls import HEIGHT, HOLE, MASKED, PICTURES, SOURCE, WIDTH, plain_flow_scheduler
from tests.contracts.pipelines.running import Result
from tests.tiny.flux2 import LENGTH

#: The library ships no types for these classes.
_DIFFUSERS: Any = diffusers
_SIZE = (WIDTH, HEIGHT)


class PlainFlux2:
    """Draw with diffusers alone: over a picture by giving its noised latents and the last of the noise levels."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._pipes: dict[str, tuple[Any, Any]] = {}

    def __call__(self, wanted: DiffusionJob) -> Result:
        """Draw what the parameters say."""
        pipe = self._pipe(wanted)
        generator = torch.Generator("cpu").manual_seed(wanted.seed)
        match wanted.task:
            case "img2img":
                return _over(pipe, wanted, generator, _encode(pipe, PICTURES[SOURCE]), wanted.strength)
            case "inpaint":
                # Of a cell of which any part is covered all is drawn.
                white = np.asarray(PICTURES[HOLE]).reshape(HEIGHT // 16, 16, WIDTH // 16, 16).max((1, 3)) > 0
                mask = torch.from_numpy(white).reshape(1, -1, 1).float()
                source = PICTURES[SOURCE]
                drawn = _over(pipe, wanted, generator, _encode(pipe, source), wanted.strength, mask=mask)
                laid = np.asarray(source).copy()
                laid[MASKED] = drawn.picture[MASKED]
                return Result(drawn.latents, laid)
            case _:
                return _txt2img(pipe, wanted, generator)

    def _pipe(self, wanted: DiffusionJob) -> Any:
        if wanted.model not in self._pipes:
            # The class that the folder names.
            pipe = _DIFFUSERS.DiffusionPipeline.from_pretrained(self._folder / wanted.model, local_files_only=True)
            pipe.set_progress_bar_config(disable=True)
            self._pipes[wanted.model] = (pipe, pipe.scheduler.config)
        pipe, config = self._pipes[wanted.model]
        pipe.scheduler = plain_flow_scheduler(wanted.scheduler, config)
        return pipe


def _txt2img(pipe: Any, wanted: Any, generator: torch.Generator) -> Result:
    first = _call(pipe, wanted, _SIZE, generator=generator, num_inference_steps=wanted.steps)
    if wanted.hires is None:
        return first
    size = (int(WIDTH * wanted.hires.scale), int(HEIGHT * wanted.hires.scale))
    if wanted.hires.upscaler == "latent":
        cells = torch.from_numpy(first.latents).permute(0, 2, 1).reshape(1, -1, HEIGHT // 16, WIDTH // 16)
        latents = pipe._unpatchify_latents(cells * _spread(pipe) + _mean(pipe))  # noqa: SLF001 - theirs
        latents = torch.nn.functional.interpolate(latents, (size[1] // 8, size[0] // 8), mode="bicubic")
    else:
        latents = _encode(pipe, Image.fromarray(first.picture).resize(size, Image.Resampling.LANCZOS))
    return _over(pipe, wanted, generator, latents, wanted.hires.strength, size=size)


def _over(
    pipe: Any,
    wanted: DiffusionJob,
    generator: torch.Generator,
    latents: torch.Tensor,
    strength: float,
    size: tuple[int, int] = _SIZE,
    *,
    mask: torch.Tensor | None = None,
) -> Result:
    """Draw over latents of the VAE from a noise level; what a mask (1 x places x 1) leaves is put back at each step, noised as far."""
    clean = (pipe._patchify_latents(latents) - _mean(pipe)) / _spread(pipe)  # noqa: SLF001 - theirs
    noise = torch.randn(clean.shape, generator=generator)
    levels = np.linspace(1.0, 1 / wanted.steps, wanted.steps)[-round(wanted.steps * strength) :]
    mu = diffusers.pipelines.flux2.pipeline_flux2.compute_empirical_mu(clean.shape[2] * clean.shape[3], wanted.steps)
    scheduler = type(pipe.scheduler).from_config(pipe.scheduler.config)
    scheduler.set_timesteps(sigmas=levels, mu=mu)
    sigmas = scheduler.sigmas

    def noised(sigma: torch.Tensor) -> torch.Tensor:
        mixed: torch.Tensor = sigma * noise + (1.0 - sigma) * clean
        return mixed

    def put_back(step: int, drawn: torch.Tensor) -> torch.Tensor:
        if mask is None:
            return drawn
        kept = noised(sigmas[step + 1]) if step < len(levels) - 1 else clean
        return (1 - mask) * kept.flatten(2).permute(0, 2, 1) + mask * drawn

    given = {"latents": noised(sigmas[0]), "sigmas": levels, "num_inference_steps": wanted.steps}
    return _call(pipe, wanted, size, put_back, **given)


def _as_drawn(_step: int, latents: torch.Tensor) -> torch.Tensor:
    return latents


def _call(
    pipe: Any,
    wanted: DiffusionJob,
    size: tuple[int, int],
    after: Callable[[int, torch.Tensor], torch.Tensor] = _as_drawn,
    **given: Any,
) -> Result:
    kept: dict[str, torch.Tensor] = {}

    def keep(_pipe: Any, step: int, _timestep: Any, tensors: Mapping[str, torch.Tensor]) -> dict[str, Any]:
        kept["latents"] = after(step, tensors["latents"])
        return dict(kept)

    if not pipe.transformer.config.guidance_embeds:
        negative, _ = pipe.encode_prompt(wanted.negative_prompt, max_sequence_length=LENGTH)
        given["negative_prompt_embeds"] = negative.detach()
    image = pipe(
        prompt=wanted.prompt,
        max_sequence_length=LENGTH,
        width=size[0],
        height=size[1],
        guidance_scale=wanted.guidance_scale,
        callback_on_step_end=keep,
        output_type="np",
        **given,
    ).images[0]
    return Result(kept["latents"].numpy(), (image * 255).round().astype(np.uint8))


def _encode(pipe: Any, picture: Image.Image) -> torch.Tensor:
    pixels = pipe.image_processor.preprocess(picture)
    latents: torch.Tensor = pipe.vae.encode(pixels).latent_dist.mode().detach()
    return latents


def _mean(pipe: Any) -> torch.Tensor:
    mean: torch.Tensor = pipe.vae.bn.running_mean.view(1, -1, 1, 1)
    return mean


def _spread(pipe: Any) -> torch.Tensor:
    return torch.sqrt(pipe.vae.bn.running_var.view(1, -1, 1, 1) + pipe.vae.config.batch_norm_eps)
