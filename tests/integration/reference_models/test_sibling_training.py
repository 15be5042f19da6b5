"""Check what the siblings' trainings begin with and aim at, and that their commands run."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from reference_models.libraries import DIFFUSERS
from reference_models.measure import accuracy, load, questions, verdicts
from reference_models.train import main
from reference_models.training import sdxl, sdxl_text, sides
from reference_models.training.diffusion import signal_left, velocity_loss
from reference_models.training.family import Family, published
from reference_models.training.latents import Latents, scenes_of
from reference_models.training.sd2 import build as build_second_generation
from reference_models.training.turbo import straight, trailing

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.fixture
def family(tmp_path: Path) -> Family:
    """Return the parts that are shared."""
    return published(tmp_path, quick=True)


def test_xl_begins_by_drawing_like_the_first_generation(family: Family, tmp_path: Path) -> None:
    """The weights of shapes-sd15, rewritten for SDXL's layout, draw right before anything is trained."""
    drawer = sdxl.Drawer(sdxl.build_unet(family), sdxl_text.build_second(family.text_encoder))
    sdxl.save(family, drawer, tmp_path / "begun")
    assert accuracy(verdicts(load(tmp_path / "begun"), questions(8))).all_right >= 0.85


def test_second_generation_begins_with_linear_layers_that_do_the_same() -> None:
    """What its convolutions of one pixel did, its linear layers do: the same noise is predicted."""
    base = DIFFUSERS.UNet2DConditionModel.from_pretrained(Path(sdxl.PUBLISHED).with_name("shapes-sd15") / "unet")
    generator = torch.Generator().manual_seed(0)
    latents, words = torch.randn(2, 4, 16, 16, generator=generator), torch.randn(2, 77, 64, generator=generator)
    with torch.no_grad():
        found, wanted = (unet(latents, 300, words).sample for unet in (build_second_generation(), base))
    assert torch.allclose(found, wanted, atol=1e-4)


def test_velocity_loss_is_zero_for_the_true_velocity() -> None:
    """A perfect prediction costs nothing; the noise itself is none."""
    left, latents = signal_left(), torch.zeros(8, 4, 16, 16)

    def perfect(noisy: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
        signal = left[times, None, None, None]
        return signal.sqrt() * noisy / (1 - signal).sqrt()

    assert velocity_loss(perfect, latents, left).item() == pytest.approx(0, abs=1e-6)
    assert velocity_loss(lambda noisy, _times: torch.zeros_like(noisy), latents, left).item() > 0.1


def test_line_of_the_student_begins_at_the_noise_and_ends_at_the_picture() -> None:
    """At the noisiest time it learns from pure noise, as the scheduler hands it over, and its picture lies at the other end."""
    left = signal_left()
    noise, latents = torch.randn(2, 2, 4, 16, 16, generator=torch.Generator().manual_seed(0)).unbind()
    along = straight(noise, latents, left)
    begin = left[-1].sqrt() * latents + (1 - left[-1]).sqrt() * along
    steps = trailing()
    steps.set_timesteps(1)
    first = steps.timesteps[0]
    handed = steps.scale_model_input(noise * steps.init_noise_sigma, first)
    assert torch.allclose(begin, handed, atol=1e-4)
    end = steps.step(along, first, noise * steps.init_noise_sigma).prev_sample
    assert torch.allclose(end, latents, atol=1e-3)


def test_batches_hold_pictures_of_one_side_and_tell_it() -> None:
    """Most batches have the usual side; the others have no more cells, and their sizes say so."""
    pictures = sides.Pictures(
        Latents(scenes_of(4), torch.zeros(4, 4, 16, 16)),
        {side: Latents(scenes_of(4), torch.zeros(4, 4, side // 8, side // 8)) for side in sides.OTHER_SIDES},
    )
    seen = [pictures.pick(np.random.default_rng(seed), 16) for seed in range(60)]
    for shown in seen:
        side = shown.latents.shape[-1] * 8
        assert shown.ids.tolist() == [[side, side, 0, 0, side, side]] * len(shown.scenes)
        assert len(shown.scenes) == len(shown.latents)
        assert shown.latents[:, 0].numel() <= 16 * 16 * 16
    usual = sum(shown.latents.shape[-1] == 16 for shown in seen)
    assert 30 < usual < 60


@pytest.mark.parametrize("name", ["shapes-sd2", "shapes-turbo"])
def test_quick_training_of_a_sibling_ends_in_a_loadable_model(tmp_path: Path, name: str) -> None:
    """The whole command runs: the folder loads at its own settings, and the card tells its figures."""
    threads = torch.get_num_threads()
    try:
        main([name, "--quick", "--threads", "1", "--work", str(tmp_path)])
    finally:
        torch.set_num_threads(threads)
    folder = tmp_path / "quick" / name
    assert load(folder).unet.dtype == torch.float32
    assert json.loads((folder / "imagefleet.json").read_text(encoding="utf-8"))["steps"] in (4, 20)
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "4 fixed prompts" in card
    assert "| denoiser |" in card
