"""Previews: the matrix, its file, and the estimate of the clean picture."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from jobs.contract import Txt2ImgParameters
from jobs.errors import ModelDamaged
from models_registry.entries import ModelEntry
from models_registry.schedulers import SCHEDULERS
from pipelines.engine.body import Stepped
from pipelines.families.base import Family
from pipelines.loading import load
from pipelines.previews import PREVIEW_FILE, PreviewMatrix, denoised, fit_preview_matrix

Make = Callable[..., Txt2ImgParameters]
COLOURS = PreviewMatrix(np.eye(4, 3, dtype=np.float32), np.zeros(3, np.float32))


@pytest.mark.parametrize(
    ("cells", "scale", "size"),
    [((16, 16), 8, (128, 128)), ((64, 48), 8, (128, 96)), ((128, 128), 8, (128, 128)), ((32, 32), 2, (64, 64))],
)
def test_previews_are_large_enough_to_see_and_never_larger_than_the_picture(
    cells: tuple[int, int], scale: int, size: tuple[int, int]
) -> None:
    """The longest side reaches 128 pixels where the picture itself does."""
    drawn = COLOURS.draw(torch.zeros(1, 4, *cells), scale)
    assert drawn.shape == (*size, 3)


def test_matrix_maps_channels_to_colours_and_bears_any_number() -> None:
    """Latents beyond the range, infinite or none give a picture all the same."""
    latents = torch.zeros(1, 4, 16, 16)
    latents[:, 0] = 1e9
    latents[:, 1] = float("nan")
    latents[:, 2] = 0.5
    assert COLOURS.draw(latents, 1)[8, 8].tolist() == [255, 0, 128]


def test_folder_may_bring_its_own_matrix(
    tiny_sd15_folder: Path, tmp_path: Path, entry_of: Callable[[Path], ModelEntry]
) -> None:
    """A preview.json is taken as it is; a broken one is a damaged model."""
    folder = Path(shutil.copytree(tiny_sd15_folder, tmp_path / "model"))
    (folder / PREVIEW_FILE).write_text(json.dumps({"matrix": [[1, 2, 3]] * 4, "bias": [0, 0, 1]}))
    family = load(entry_of(folder), "cpu")
    assert family.preview_matrix.matrix.tolist() == [[1, 2, 3]] * 4
    family.close()
    (folder / PREVIEW_FILE).write_text("{}")
    with pytest.raises(ModelDamaged):
        load(entry_of(folder), "cpu")


def test_fitted_matrix_is_the_best_linear_guess() -> None:
    """For a VAE that is linear itself, the fit recovers it."""

    class Latents:
        def __init__(self, values: torch.Tensor) -> None:
            self.latent_dist = self
            self.values = values

        def mode(self) -> torch.Tensor:
            return self.values

    class LinearVae:
        device, dtype = torch.device("cpu"), torch.float32

        class config:  # noqa: N801 - spelt as diffusers spells it
            block_out_channels = (1, 1, 1, 1)
            scaling_factor = 0.5

        def encode(self, pictures: torch.Tensor) -> Latents:
            return Latents(torch.nn.functional.avg_pool2d(pictures, 8))

    fitted = fit_preview_matrix(LinearVae())
    assert np.abs(fitted.matrix - np.eye(3)).max() < 0.05
    assert np.abs(fitted.bias - 0.5).max() < 0.01


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_every_scheduler_tells_the_clean_picture(
    family: Family, parameters: Make, scheduler: str, prediction: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a denoiser that always predicts the same clean latents, every estimate is those latents."""
    clean = torch.linspace(-1, 1, 4 * 16 * 16).reshape(1, 4, 16, 16)
    monkeypatch.setitem(
        vars(family.pipe),
        "scheduler",
        type(family.pipe.scheduler).from_config({**family.pipe.scheduler.config, "prediction_type": prediction}),
    )
    alphas = family.pipe.scheduler.alphas_cumprod

    def predict(sample: torch.Tensor, timestep: torch.Tensor, **_: object) -> tuple[torch.Tensor]:
        # The model is always given variance-preserving samples.
        place = float(timestep)
        low, high = int(place), min(int(place) + 1, 999)
        log_ratio = torch.lerp(
            torch.log((1 - alphas) / alphas)[low], torch.log((1 - alphas) / alphas)[high], place - low
        )
        alpha_product = 1 / (1 + log_ratio.exp())
        alpha, sigma = alpha_product.sqrt(), (1 - alpha_product).sqrt()
        noise = (sample - alpha * clean) / sigma
        return (noise if prediction == "epsilon" else alpha * noise - sigma * clean,)

    monkeypatch.setattr(family.pipe.unet, "forward", predict)
    wanted = parameters(scheduler=scheduler, steps=8, guidance_scale=1.0)
    state = family.prepare(wanted, 0)
    worst = 0.0
    for _ in range(4):
        assert not family.step([state]).errors
        body = state._body  # noqa: SLF001 - the estimate before it becomes 8 bits
        assert body.latents is not None
        estimate = denoised(body.latents, body.last, body.scheduler)
        worst = max(worst, (estimate - clean).abs().max().item())
    state.close()
    assert worst < 0.15


def test_without_a_step_the_latents_stand_for_themselves() -> None:
    """After the last step the latents are the clean picture."""
    latents = torch.ones(1, 4, 2, 2)
    assert denoised(latents, None, None) is latents
    stepped = Stepped(latents, 0, latents, None)
    assert stepped.output is None
