"""Small pictures of what is taking shape, by one matrix from latents to colours: no VAE, no waiting.

It does not know when a preview is wanted, nor how it is encoded.
"""

import json
import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from pipelines.engine.body import Stepped
from pipelines.latent_forms import encoded, factor_of
from pipelines.pictures import Pixels

#: A model folder may bring its own matrix: {"matrix": [[r, g, b] per latent channel], "bias": [r, g, b]}.
PREVIEW_FILE = "preview.json"
#: Shortest longest side of a preview, pixels.
_SIDE = 128
#: Stands for infinite latents: far outside of any that mean something.
_BEYOND = 1e6
#: What is predicted along a rectified flow: noise less picture.
_FLOW = "flow_prediction"
#: Radius of the discs that the matrix is fitted to, in sides.
_DISC = 0.3


class PreviewMatrix(NamedTuple):
    """Colours 0..1 = latents @ matrix + bias, for latents as the denoiser sees them."""

    matrix: npt.NDArray[np.float32]
    bias: npt.NDArray[np.float32]

    def draw(self, latents: torch.Tensor, scale: int) -> Pixels:
        """Draw latents (1 x channels x height x width) as a picture at most `scale` times as large."""
        values = latents[0].float().cpu().numpy().transpose(1, 2, 0)
        values = np.nan_to_num(values, posinf=_BEYOND, neginf=-_BEYOND)
        colours = (values @ self.matrix + self.bias).clip(0, 1)
        pixels: Pixels = (colours * 255).round().astype(np.uint8)
        factor = min(scale, max(1, math.ceil(_SIDE / max(pixels.shape[:2]))))
        if factor == 1:
            return pixels
        size = (pixels.shape[1] * factor, pixels.shape[0] * factor)
        return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC))


def denoised(latents: torch.Tensor, stepped: Stepped | None, scheduler: Any) -> torch.Tensor:
    """Estimate the clean latents from the last step; without one the latents are taken as they are."""
    if stepped is None:
        return latents
    for name in ("pred_original_sample", "denoised"):
        estimate = getattr(stepped.output, name, None)
        if isinstance(estimate, torch.Tensor):
            return estimate
    # Schedulers for flows know no other prediction, and say so or have no word for it.
    if scheduler.config.get("prediction_type", _FLOW) == _FLOW:
        sigma = float(stepped.timestep) / scheduler.config.num_train_timesteps
        clean: torch.Tensor = stepped.sample.float() - sigma * stepped.model_output.float()
        return clean
    # The others (DPM++, UniPC, DEIS, PLMS) keep their samples variance-preserving.
    index = min(max(round(float(stepped.timestep)), 0), len(scheduler.alphas_cumprod) - 1)
    alpha_product = float(scheduler.alphas_cumprod[index])
    alpha, sigma = math.sqrt(alpha_product), math.sqrt(1 - alpha_product)
    sample, output = stepped.sample.float(), stepped.model_output.float()
    if scheduler.config.prediction_type == "v_prediction":
        return alpha * sample - sigma * output
    return (sample - sigma * output) / alpha


def preview_matrix(folder: Path | None, vae: Any) -> PreviewMatrix:
    """Return the folder's own matrix, or fit one to its VAE."""
    path = None if folder is None else folder / PREVIEW_FILE
    if path is not None and path.is_file():
        content = json.loads(path.read_text())
        return PreviewMatrix(np.asarray(content["matrix"], np.float32), np.asarray(content["bias"], np.float32))
    return fit_preview_matrix(vae)


def fit_preview_matrix(vae: Any, cells: int = 16) -> PreviewMatrix:
    """Fit the matrix by least squares over procedural pictures that the VAE encodes."""
    factor = factor_of(vae)
    pictures = _pictures(cells * factor)
    with torch.no_grad():
        latents = encoded(vae, pictures)
    small = torch.nn.functional.avg_pool2d((pictures + 1) / 2, factor)
    channels = latents.shape[1]
    inputs = latents.permute(0, 2, 3, 1).reshape(-1, channels).double().numpy()
    targets = small.permute(0, 2, 3, 1).reshape(-1, 3).double().numpy()
    inputs = np.concatenate([inputs, np.ones((len(inputs), 1))], axis=1)
    # The ridge keeps a VAE whose channels hardly matter from giving huge weights.
    ridge = 1e-3 * len(inputs) * np.eye(channels + 1)
    ridge[-1, -1] = 0
    weights = np.linalg.solve(inputs.T @ inputs + ridge, inputs.T @ targets).astype(np.float32)
    return PreviewMatrix(weights[:-1], weights[-1])


def _pictures(side: int) -> torch.Tensor:
    """Draw discs on flat backgrounds (8 x 3 x side x side, -1..1): the corners of the colour cube, each twice."""
    colours = torch.tensor([[r, g, b] for r in (0.1, 0.9) for g in (0.1, 0.9) for b in (0.1, 0.9)])
    across = (torch.arange(side) + 0.5) / side - 0.5
    disc = (torch.hypot(across[:, None], across[None, :]) < _DISC).float()
    colours = colours[..., None, None]
    return 2 * (colours * disc + colours.roll(-3, 0) * (1 - disc)) - 1
