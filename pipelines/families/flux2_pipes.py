"""Pipelines for FLUX.2 that diffusers lacks, around those that it has: over a picture by strength, all of it or what a mask covers.

Its own inpainting shows the model the whole picture beside the latents, which doubles the work and holds on to what should change, and
makes pictures of more than 1024 x 1024 pixels smaller.
"""

from typing import Any

import diffusers
import torch
from PIL import Image

from pipelines.families.flux2_latents import PATCH, laid_out, patched, unpatched
from pipelines.latent_forms import for_decoding

#: The library ships no types for these classes.
_DIFFUSERS: Any = diffusers


class Flux2Redraw(_DIFFUSERS.Flux2KleinInpaintPipeline):  # type: ignore[misc]
    """Draw over a picture or its latents, as strongly as is said, and of it what is white in a mask."""

    def __call__(self, *, image: Any, height: int, width: int, mask_image: Any = None, **arguments: Any) -> Any:
        """Draw at the size that is said; without a mask everything is drawn."""
        latents = image if isinstance(image, torch.Tensor) else self._encoded(image, height, width)
        mask = Image.new("L", (width, height), 255) if mask_image is None else mask_image
        return super().__call__(image=patched(latents), mask_image=mask, **arguments)

    def _encoded(self, image: Any, height: int, width: int) -> torch.Tensor:
        pixels = self.image_processor.preprocess(image, height=height, width=width)
        latents: torch.Tensor = self.vae.encode(pixels.to(self.vae.device, self.vae.dtype)).latent_dist.mode()
        return latents

    def prepare_image_latents(self, images: Any, *_form: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """Return no pictures to look at beside the latents."""
        count, channels = images[0].shape[:2]
        return images[0].new_zeros(count, 0, channels), torch.zeros(count, 0, 4, dtype=torch.long).to(images[0].device)

    def prepare_mask_latents(self, mask: torch.Tensor, *form: Any) -> torch.Tensor:
        """Return which cells are drawn (1 x places x 1): all those of which the mask covers any part."""
        *_, dtype, device = form
        covered = torch.nn.functional.max_pool2d(mask, self.vae_scale_factor * PATCH)
        packed: torch.Tensor = self._pack_latents(covered.to(device, dtype))
        return packed


class Flux2Dev(_DIFFUSERS.Flux2Pipeline):  # type: ignore[misc]
    """Draw from noise by a transformer that reads the guidance, and return undecoded what klein's pipelines do: latents of the VAE."""

    def __call__(self, *, height: int, width: int, output_type: str, **arguments: Any) -> Any:
        """Draw at the size that is said."""
        output = super().__call__(height=height, width=width, output_type=output_type, **arguments)
        if output_type != "latent":
            return output
        side = self.vae_scale_factor * PATCH
        return (for_decoding(self.vae, unpatched(laid_out(output[0], height // side, width // side))),)


class Flux2DevRedraw(Flux2Redraw):
    """Draw the same by a transformer that reads the guidance, of one call a step."""

    do_classifier_free_guidance = False

    def __call__(self, **arguments: Any) -> Any:
        """Draw with a scale that the transformer is told at each call."""
        # Through the dict, because assigning would register it in the configuration.
        own: Any = self
        vars(own)["transformer"] = _Told(self.transformer, arguments["guidance_scale"])
        return super().__call__(**arguments)


class _Told:
    """A transformer that is told a guidance scale where a pipeline tells it none."""

    def __init__(self, transformer: Any, scale: float) -> None:
        self._transformer = transformer
        self._scale = scale

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transformer, name)

    def __call__(self, *, hidden_states: torch.Tensor, **arguments: Any) -> Any:
        told = torch.full([len(hidden_states)], self._scale, device=hidden_states.device, dtype=torch.float32)
        # In the pipeline's order, by which calls of several runs are compared.
        return self._transformer(hidden_states=hidden_states, **{**arguments, "guidance": told})
