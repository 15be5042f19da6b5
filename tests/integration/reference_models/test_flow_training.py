"""Check the parts that train the flow models: the loss, the words, the layouts of latents, without any real training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from reference_models.libraries import DIFFUSERS
from reference_models.pictures import draw, random_scene
from reference_models.train import main
from reference_models.training import flux, sd3, t5
from reference_models.training.family import published, usual_caption
from reference_models.training.flow import flow_loss, matrices, noise_levels, noised, scheduler
from reference_models.training.latents import Latents, encoded, scenes_of
from reference_models.training.mixture import MOST, large_and_central, large_shapes
from reference_models.training.reading import ANSWERS, reading_batch, wrongness
from reference_models.training.teacher import Teacher, trust
from reference_models.training.wording import SHORT, worded


def test_flow_loss_is_zero_for_the_true_velocity() -> None:
    """A perfect prediction costs nothing, predicting no movement costs much."""
    latents = torch.full((8, 4, 16, 16), 0.5)

    def perfect(noisy: Tensor, levels: Tensor) -> Tensor:
        return (noisy - latents) / levels[:, None, None, None]

    assert flow_loss(perfect, latents).item() == pytest.approx(0, abs=1e-4)
    assert flow_loss(lambda noisy, _levels: torch.zeros_like(noisy), latents).item() > 1


def test_noise_levels_lean_towards_noise() -> None:
    """Levels lie between picture and noise, every part of the way is visited, and most of them are noisy."""
    levels = noise_levels(4000)
    assert 0 < levels.min() < 0.05
    assert 0.97 < levels.max() < 1
    assert levels.median().item() == pytest.approx(2 / 3, abs=0.02)


def test_scheduler_goes_the_way_of_the_loss() -> None:
    """One Euler step from any level with the true velocity ends at the picture."""
    latents, noise = torch.randn(2, 4, 16, 16), torch.randn(2, 4, 16, 16)
    steps = scheduler()
    steps.set_timesteps(4)
    noisy = noised(latents, steps.sigmas[0].repeat(2), noise)
    for time in steps.timesteps:
        noisy = steps.step(noise - latents, time, noisy).prev_sample
    assert torch.allclose(noisy, latents, atol=1e-5)


def test_latents_are_packed_as_the_pipeline_packs_them() -> None:
    """Packing and unpacking are those of `FluxPipeline`, and undo each other."""
    latents = torch.randn(3, 4, 16, 24)
    tokens = flux.packed(latents)
    pack = DIFFUSERS.FluxPipeline._pack_latents  # noqa: SLF001  # the layout is theirs
    assert torch.equal(tokens, pack(latents, 3, 4, 16, 24))
    assert torch.equal(flux.unpacked(tokens, 16, 24), latents)


@pytest.mark.parametrize("guidance", [1.0, 6.0])
def test_guided_transformer_starts_as_its_teacher(guidance: float) -> None:
    """Whatever the guidance, the second stage begins with what the first one has learnt."""
    torch.manual_seed(0)
    teacher = flux.build()
    noisy, levels = torch.randn(2, 4, 16, 16), torch.tensor([0.2, 0.9])
    words = flux.Words(torch.randn(2, SHORT, t5.WIDTH), torch.randn(2, 64))
    with torch.no_grad():
        plain = flux.velocity(teacher, noisy, levels, words)
        guided = flux.velocity(flux.guided_from(teacher), noisy, levels, words, torch.full((2,), guidance))
    assert plain.abs().mean() > 0.01
    assert torch.allclose(guided, plain, atol=1e-5)


def test_t5_reads_every_spelling_alike(tmp_path: Path) -> None:
    """Words are whole tokens, capitals mean the same as small letters, and unknown words are one unknown token."""
    read = t5.shared(tmp_path, quick=True)
    assert len(read.tokenizer("a small purple triangle on the right on an orange background").input_ids) == 12
    small, capital, loud = (read.encode([f"{word} circle"]) for word in ("red", "Red", "RED"))
    assert torch.equal(small, capital)
    assert torch.equal(small, loud)
    assert not torch.allclose(small, read.encode(["blue circle"]))
    unknown = read.tokenizer("qqq circle").input_ids
    assert read.tokenizer.unk_token_id in unknown
    assert torch.equal(read.encode(["qqq circle"]), read.encode(["zzzzz circle"]))


def test_t5_comes_back_from_its_folder(tmp_path: Path) -> None:
    """A second model that wants the encoder gets the same weights."""
    first, again = (t5.shared(tmp_path, quick=True) for _ in range(2))
    caption = ["a red circle on a blue background"]
    assert torch.equal(first.encode(caption), again.encode(caption))


def test_wrongness_tells_right_answers() -> None:
    """Scores that name what a caption says cost nothing, scores that know nothing cost much."""
    captions, labels = reading_batch(np.random.default_rng(0), 50)
    assert len(captions) == len(labels) == 50
    widths = (7, 9, 9, 3, 6)
    assert sum(widths) == ANSWERS
    right = [100 * torch.nn.functional.one_hot(labels[:, column], wide).float() for column, wide in enumerate(widths)]
    assert wrongness(torch.cat(right, dim=1), labels).item() == pytest.approx(0, abs=1e-4)
    assert wrongness(torch.zeros(50, ANSWERS), labels).item() > 5


def test_teacher_knows_the_way_back(tmp_path: Path) -> None:
    """The teacher's velocity comes near the true one where the picture can be seen, and guidance pulls it to the caption."""
    family = published(tmp_path)
    teacher = Teacher(family)
    scenes = [random_scene(np.random.default_rng(seed)) for seed in range(8)]
    latents, noise = encoded(family.vae, [draw(scene) for scene in scenes]), torch.randn(8, 4, 16, 16)
    levels = torch.full((8,), 0.4)
    captions = [usual_caption(scene, np.random.default_rng(0)) for scene in scenes]
    noisy = noised(latents, levels, noise)
    plain = teacher.velocity(noisy, levels, captions)
    assert (plain - (noise - latents)).square().mean() < 0.2
    assert torch.allclose(teacher.velocity(noisy, levels, captions, torch.ones(8)), plain, atol=1e-4)
    other = teacher.velocity(noisy, levels, [*captions[1:], captions[0]])
    assert not torch.allclose(other, plain, atol=1e-2)


def test_teacher_fades_out_towards_noise() -> None:
    """It counts wholly where the picture can be seen, and not at all in pure noise."""
    assert trust(torch.tensor([0.1, 0.8, 0.85, 0.9, 1.0])).flatten().tolist() == pytest.approx(
        [1, 1, 0.5, 0, 0], abs=1e-5
    )


def test_mixture_shows_mostly_large_shapes() -> None:
    """Four fifths of a batch are large and central, the others any, and each scene keeps its own latents."""
    scenes = scenes_of(200)
    values = torch.arange(200.0)[:, None, None, None].expand(-1, 4, 16, 16)
    found, latents = large_shapes(Latents(scenes, values), MOST).pick(np.random.default_rng(0), 40)
    assert len(found) == len(latents) == 40
    assert all(large_and_central(scene) for scene in found[:32])
    assert not all(large_and_central(scene) for scene in found[32:])
    assert [scenes[int(value)] for value in latents[:, 0, 0, 0]] == found


def test_muon_trains_the_matrices_of_the_blocks() -> None:
    """Neither modulation, nor embeddings, nor biases are left to Muon."""
    net = flux.build()
    chosen = {id(matrix) for matrix in matrices(net)}
    names = {name for name, parameter in net.named_parameters() if id(parameter) in chosen}
    assert "transformer_blocks.0.attn.to_q.weight" in names
    assert "single_transformer_blocks.3.proj_out.weight" in names
    assert not {name for name in names if ".norm" in name or "bias" in name or "embed" in name}


def test_short_batches_hold_whole_captions() -> None:
    """A short batch cuts no caption for either tokenizer, and batches of every length come."""
    family, tokenizer = published(Path()), t5.build_tokenizer()
    rng = np.random.default_rng(0)
    lengths = set()
    for _ in range(40):
        captions, length = worded([random_scene(rng) for _ in range(4)], rng)
        lengths.add(length)
        if length == SHORT:
            assert max(len(ids) for ids in tokenizer(captions).input_ids) <= SHORT
            assert max(len(ids) for ids in family.tokenizer(captions).input_ids) <= SHORT
    assert lengths == {SHORT, t5.LENGTH, 2 * t5.LENGTH}


def test_sd3_words_are_those_of_the_pipeline(tmp_path: Path) -> None:
    """The training shows the denoiser exactly what `StableDiffusion3Pipeline` will."""
    family, reader = published(tmp_path), t5.shared(tmp_path, quick=True)
    target = tmp_path / "model"
    sd3.save(family, reader, sd3.build(), target)
    pipeline: Any = DIFFUSERS.StableDiffusion3Pipeline.from_pretrained(target)
    caption = "a red circle on a blue background"
    with torch.no_grad():
        states, _, pooled, _ = pipeline.encode_prompt(caption, None, None, max_sequence_length=t5.LENGTH)
    encoder = sd3.clip(family.text_encoder)
    # On disk the weights are halves.
    reader = reader._replace(encoder=reader.encoder.half().float())
    words = sd3.encoded(encoder, family.tokenizer, reader, [caption], t5.LENGTH)
    assert torch.allclose(words.states, states, atol=1e-3)
    assert torch.allclose(words.pooled, pooled, atol=1e-3)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
# The last stages multiply at half precision, and torch tells that a norm then takes the slower way.
@pytest.mark.filterwarnings("ignore:Mismatch dtype between input and weight:UserWarning")
@pytest.mark.parametrize("name", [flux.NAME, sd3.NAME])
def test_quick_training_ends_in_a_loadable_model(tmp_path: Path, name: str) -> None:
    """The whole command runs, the folder loads in both precisions, the card tells its figures."""
    threads = torch.get_num_threads()
    try:
        main([name, "--quick", "--threads", "1", "--work", str(tmp_path)])
    finally:
        torch.set_num_threads(threads)
    folder = tmp_path / "quick" / name
    for precision in (torch.float32, torch.float16):
        pipeline = DIFFUSERS.DiffusionPipeline.from_pretrained(folder, dtype=precision)
        assert pipeline.transformer.dtype == pipeline.vae.dtype == precision
    assert "4 fixed prompts" in (folder / "README.md").read_text()
