"""Pipelines for Stable Diffusion 3 that diffusers lacks, around those that it has: inpainting, and ControlNets over a picture.

Its own inpainting pipeline decodes without the VAE's shift, and takes no model whose latents have other than 16 channels.
"""

from types import SimpleNamespace
from typing import Any

import diffusers
import torch
from diffusers.image_processor import VaeImageProcessor
from diffusers.utils.torch_utils import randn_tensor

#: The library ships no types for these classes.
_DIFFUSERS: Any = diffusers


class _Kept:
    """Keep what a mask leaves as it was: at each step the source's latents, noised as far, are put back around what is drawn."""

    #: 1 x 1 x height x width over the latents, 1 where it is drawn; None where all is.
    _drawn: torch.Tensor | None = None
    _clean: torch.Tensor
    _noise: torch.Tensor
    _at_full_strength = False

    def after_step(self, index: int, latents: torch.Tensor) -> torch.Tensor:
        """Return the latents after round `index` of the loop, as the next one takes them."""
        if self._drawn is None:
            return latents
        own: Any = self
        clean, timesteps = self._clean, own.scheduler.timesteps[-own.num_timesteps :]
        if index < len(timesteps) - 1:
            clean = own.scheduler.scale_noise(clean, timesteps[index + 1][None], self._noise)
        return ((1 - self._drawn) * clean + self._drawn * latents).to(latents.dtype)

    def _see(self, mask_image: Any, height: int, width: int, strength: float) -> None:
        own: Any = self
        self._at_full_strength = mask_image is not None and strength == 1.0
        if mask_image is None:
            self._drawn = None
            return
        processor = VaeImageProcessor(do_normalize=False, do_binarize=True, do_convert_grayscale=True)
        white = processor.preprocess(mask_image, height=height, width=width)
        factor = own.vae_scale_factor
        cells = torch.nn.functional.interpolate(white, size=(height // factor, width // factor))
        self._drawn = cells.to(own.transformer.device, own.transformer.dtype)

    def _begun(self, image: torch.Tensor, timestep: torch.Tensor, generator: Any) -> torch.Tensor:
        """Return the latents that a run over a picture (1 x 3 x height x width, or its latents) begins with."""
        own: Any = self
        device, dtype = own.transformer.device, own.transformer.dtype
        image = image.to(device, dtype)
        if image.shape[1] == own.vae.config.latent_channels:
            self._clean = image
        else:
            encoded = _sampled(own.vae.encode(image), generator)
            self._clean = (encoded - own.vae.config.shift_factor) * own.vae.config.scaling_factor
        self._noise = randn_tensor(self._clean.shape, generator=generator, device=device, dtype=dtype)
        if self._at_full_strength:
            return self._noise
        noised: torch.Tensor = own.scheduler.scale_noise(self._clean, timestep, self._noise)
        return noised.to(dtype)


class Sd3Inpaint(_Kept, _DIFFUSERS.StableDiffusion3Img2ImgPipeline):  # type: ignore[misc]
    """Draw what a mask covers."""

    def __call__(self, *, mask_image: Any, height: int, width: int, strength: float, **arguments: Any) -> Any:
        """Draw as the pipeline over a picture does, white parts of the mask alone."""
        self._see(mask_image, height, width, strength)
        return super().__call__(height=height, width=width, strength=strength, **arguments)

    def prepare_latents(
        self,
        image: torch.Tensor,
        timestep: torch.Tensor,
        _batch_size: int,
        _num_images_per_prompt: int,
        _dtype: torch.dtype,
        _device: torch.device,
        generator: Any = None,
    ) -> torch.Tensor:
        """Return the latents to begin with; the source's are kept."""
        return self._begun(image, timestep, generator)


class Sd3ControlNetRedraw(_Kept, _DIFFUSERS.StableDiffusion3ControlNetPipeline):  # type: ignore[misc]
    """Draw over a picture, or what a mask of it covers, guided by ControlNets."""

    _source: Any = None

    def __call__(
        self,
        *,
        image: Any,
        height: int,
        width: int,
        strength: float,
        num_inference_steps: int,
        mask_image: Any = None,
        **arguments: Any,
    ) -> Any:
        """Draw the last steps of the pipeline from noise; `strength` counts as that of the pipeline over a picture."""
        self._see(mask_image, height, width, strength)
        latents = isinstance(image, torch.Tensor)
        self._source = image if latents else self.image_processor.preprocess(image, height=height, width=width)
        left_out = self.scheduler.left_out = int(max(num_inference_steps - num_inference_steps * strength, 0))
        count = num_inference_steps - left_out
        return super().__call__(height=height, width=width, num_inference_steps=count, **arguments)

    def prepare_latents(self, *_form: Any) -> torch.Tensor:
        """Return the latents to begin with; the source's are kept."""
        *_, generator, _latents = _form
        return self._begun(self._source, self.scheduler.timesteps[:1], generator)


class SettledVae:
    """A VAE whose encoding is the middle of its distribution where nobody brings noise: the process's own noise is no seed's."""

    def __init__(self, vae: Any) -> None:
        self._vae = vae

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        return type(self._vae)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._vae, name)

    def encode(self, *args: Any, **kwargs: Any) -> Any:
        """Encode a picture."""
        return SimpleNamespace(latent_dist=_Settled(self._vae.encode(*args, **kwargs)))


class _Settled:
    def __init__(self, encoded: Any) -> None:
        self._encoded = encoded

    def sample(self, generator: Any = None) -> torch.Tensor:
        return _sampled(self._encoded, generator)


def _sampled(encoded: Any, generator: Any) -> torch.Tensor:
    """Return the latents of a picture: of the distribution with noise of a generator, and without one its middle."""
    distribution = getattr(encoded, "latent_dist", None)
    # Small VAEs answer latents and no distribution.
    if distribution is None:
        latents: torch.Tensor = encoded.latents
    else:
        latents = distribution.mode() if generator is None else distribution.sample(generator)
    return latents
