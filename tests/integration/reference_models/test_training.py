"""Check the training loop and the way finished folders are put in place, without any real training."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from reference_models.libraries import DIFFUSERS
from reference_models.measure_addons import ADD_ONS
from reference_models.measuring.figures import card_of, write_figures
from reference_models.train import ADDING, HERE, arguments, main
from reference_models.training.diffusion import epsilon_loss, scheduler, signal_left
from reference_models.training.fillers import filled
from reference_models.training.latents import cached
from reference_models.training.loop import Loss, Plan, fit
from reference_models.training.publish import folder_size, replace_folder
from reference_models.training.text_encoder import build as build_text_encoder
from reference_models.training.text_encoder import tokens
from reference_models.training.tokenizer import build as build_tokenizer
from reference_models.training.vae import LOG_VARIANCE, picture_batch
from reference_models.training.vae import build as build_vae

PLAN = Plan("line", steps=40, rate=0.05, warm_up=5, save_every=10)


def _line() -> tuple[nn.Linear, Loss]:
    torch.manual_seed(0)
    line = nn.Linear(3, 1)

    def loss(rng: np.random.Generator) -> Tensor:
        inputs = torch.from_numpy(rng.normal(size=(16, 3)).astype(np.float32))
        wanted = inputs.sum(dim=1, keepdim=True)
        return cast("Tensor", (line(inputs) - wanted).square().mean())

    return line, loss


def _matrices(line: nn.Linear, *, muon: bool) -> list[nn.Parameter]:
    return [parameter for name, parameter in line.named_parameters() if muon and name == "weight"]


def test_fit_learns(tmp_path: Path) -> None:
    """A line learns a sum."""
    line, loss = _line()
    before = loss(np.random.default_rng(9)).item()
    fit(PLAN, line, loss, tmp_path)
    assert loss(np.random.default_rng(9)).item() < before / 4


@pytest.mark.parametrize("muon", [False, True])
def test_fit_resumes_to_the_same_weights(tmp_path: Path, muon: bool) -> None:  # noqa: FBT001  # pytest passes it by name
    """An interrupted run ends where an uninterrupted one does, whatever makes its steps."""
    whole, whole_loss = _line()
    fit(PLAN, whole, whole_loss, tmp_path / "whole", matrices=_matrices(whole, muon=muon))

    line, loss = _line()

    def stop(_average: nn.Module, step: int) -> None:
        if step == 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(PLAN, line, loss, tmp_path / "parts", matrices=_matrices(line, muon=muon), on_save=stop)
    line, loss = _line()
    fit(PLAN, line, loss, tmp_path / "parts", matrices=_matrices(line, muon=muon))
    assert torch.equal(line.weight, whole.weight)


def test_rate_warms_up_and_falls() -> None:
    """The learning rate rises, peaks at its value, and ends low."""
    rates = [PLAN.rate_at(step) for step in range(PLAN.steps)]
    assert rates[0] < rates[4] == max(rates) == PLAN.rate
    assert rates[-1] < PLAN.rate / 10


def test_replace_folder_leaves_no_half(tmp_path: Path) -> None:
    """The new folder takes the old one's place; a failed write leaves the old one."""
    target = tmp_path / "model"

    def write(folder: Path) -> None:
        folder.mkdir()
        (folder / "new").write_text("four")

    def fail(folder: Path) -> None:
        folder.mkdir()
        raise OSError(folder)

    target.mkdir()
    (target / "old").touch()
    replace_folder(target, write)
    with pytest.raises(OSError, match="fresh"):
        replace_folder(target, fail)
    assert [path.name for path in target.iterdir()] == ["new"]
    assert folder_size(target) == 4


def test_epsilon_loss_is_zero_for_the_true_noise() -> None:
    """A perfect prediction costs nothing, predicting no noise costs much."""
    left = signal_left()
    assert left[0] > 0.99
    assert left[-1] < 0.01
    latents = torch.zeros(8, 4, 16, 16)

    def perfect(noisy: Tensor, times: Tensor) -> Tensor:
        return noisy / (1 - left[times, None, None, None]).sqrt()

    assert epsilon_loss(perfect, latents, left).item() == pytest.approx(0, abs=1e-6)
    assert epsilon_loss(lambda noisy, _times: torch.zeros_like(noisy), latents, left).item() > 1


def test_scheduler_config_serves_the_others_too() -> None:
    """What Euler does not read itself is still written down for the schedulers made from it."""
    config = scheduler().config
    assert config["clip_sample"] is False
    assert config["steps_offset"] == 1


def test_tokenizer_keeps_the_words_whole() -> None:
    """Each word of a caption is one token."""
    tokenizer = build_tokenizer()
    assert len(tokenizer("a small purple triangle on the right on an orange background").input_ids) == 13


def test_filled_keeps_the_caption() -> None:
    """Other words come before and after a caption, now and then, and never make it too long."""
    rng = np.random.default_rng(0)
    words = "a large purple triangle on the right on an orange background"
    found = [filled(words, rng) for _ in range(200)]
    assert all(words in one for one in found)
    assert 30 < sum(one != words for one in found) < 90
    tokenizer = build_tokenizer()
    assert max(len(tokenizer(one).input_ids) for one in found) <= 77


def test_text_encoder_reads_77_positions() -> None:
    """Captions become `[n, 77]` tokens and `[n, 77, 64]` states."""
    tokenizer = build_tokenizer()
    ids = tokens(tokenizer, ["a red circle", ""])
    assert ids.shape == (2, 77)
    assert build_text_encoder(tokenizer)(ids).last_hidden_state.shape == (2, 77, 64)


def test_vae_pins_its_variance() -> None:
    """The posterior's log variance is a constant, and latents are an eighth of the side."""
    posterior = build_vae().encode(picture_batch(np.random.default_rng(0), 2)).latent_dist
    assert posterior.mean.shape == (2, 4, 16, 16)
    assert torch.equal(posterior.logvar, torch.full_like(posterior.logvar, LOG_VARIANCE))


def test_latents_are_made_again_for_another_autoencoder(tmp_path: Path) -> None:
    """The cache answers the same autoencoder only, and holds one latent per scene."""
    torch.manual_seed(0)
    first = build_vae()
    found = cached(first, tmp_path, 4)
    assert len(found.scenes) == len(found.values) == 4
    assert torch.equal(cached(first, tmp_path, 4).values, found.values)
    assert len(list(tmp_path.iterdir())) == 1
    assert not torch.equal(cached(build_vae(), tmp_path, 4).values, found.values)


def test_command_line_refuses_unknown_models() -> None:
    """Only models with a recipe can be trained."""
    assert arguments().parse_args(["shapes-sd15", "--quick"]).quick
    with pytest.raises(SystemExit):
        arguments().parse_args(["shapes-nothing"])


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_quick_training_ends_in_a_loadable_model(tmp_path: Path) -> None:
    """The whole command runs: every part is trained a little, the folder loads, the card tells its figures."""
    threads = torch.get_num_threads()
    try:
        main(["shapes-sd15", "--quick", "--threads", "1", "--work", str(tmp_path)])
    finally:
        torch.set_num_threads(threads)
    folder = tmp_path / "quick" / "shapes-sd15"
    pipeline = DIFFUSERS.StableDiffusionPipeline.from_pretrained(folder)
    assert pipeline.text_encoder.dtype == pipeline.unet.dtype == pipeline.vae.dtype == torch.float32
    half = DIFFUSERS.StableDiffusionPipeline.from_pretrained(folder, dtype=torch.float16)
    assert half.text_encoder.dtype == half.unet.dtype == half.vae.dtype == torch.float16
    card = (folder / "README.md").read_text()
    assert "4 fixed prompts" in card
    assert "| denoiser |" in card


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize("name", ["shapes-dusk", "shapes-x2"])
def test_quick_training_of_an_add_on_ends_in_a_file_and_a_card(tmp_path: Path, name: str) -> None:
    """The command takes the shared parts from the published model, and writes the file and its figures."""
    threads = torch.get_num_threads()
    try:
        main([name, "--quick", "--threads", "1", "--work", str(tmp_path)])
    finally:
        torch.set_num_threads(threads)
    target = tmp_path / "quick" / ADD_ONS[name].place
    assert target.is_file()
    card = target.with_suffix(".md").read_text(encoding="utf-8")
    assert "| measured |" in card
    assert "minutes on one shared CPU core" in card


def test_every_add_on_has_a_trainer_and_a_card() -> None:
    """What can be measured can be trained, lies in the repository, and tells its figures and its training."""
    assert set(ADD_ONS) == set(ADDING)
    for add_on in ADD_ONS.values():
        target = HERE / add_on.place
        card = card_of(target).read_text(encoding="utf-8")
        assert target.exists()
        assert card.count("| measured |") == 1
        assert "## Limits" in card
        assert f"reference_models.train {target.stem}`" in card


def test_figures_replace_the_old_ones_and_keep_the_prose(tmp_path: Path) -> None:
    """Written twice, a card holds the second figures once, and what stood around them."""
    target = tmp_path / "thing.safetensors"
    card_of(target).write_text("# thing\n\nbefore\n<!-- figures -->\n<!-- /figures -->\nafter\n", encoding="utf-8")
    write_figures(target, {"share": 0.25})
    write_figures(target, {"share": 0.5}, seconds=90)
    text = card_of(target).read_text(encoding="utf-8")
    assert "| share | 0.50 |" in text
    assert "0.25" not in text
    assert "1.5 minutes" in text
    assert text.index("before") < text.index("share") < text.index("after")
