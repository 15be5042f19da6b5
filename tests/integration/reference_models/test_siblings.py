"""Check that the siblings of shapes-sd15 draw what they are asked, each in the way of its own architecture."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import pytest
import torch

import reference_models
from reference_models.judge import Expected, judge
from reference_models.measure import Question, accuracy, draw_all, load, questions, settings, verdicts
from reference_models.pictures import Scene, draw
from reference_models.training.diffusion import signal_left
from reference_models.training.latents import encoded
from reference_models.training.publish import folder_size, recommended

ROOT: Final = Path(reference_models.__file__).parent
#: Name → the bytes it may have at most.
SIBLINGS: Final = {"shapes-sd2": 5_200_000, "shapes-sdxl": 6_600_000, "shapes-turbo": 6_600_000}
SHARED: Final = (
    "text_encoder/model.safetensors",
    "vae/diffusion_pytorch_model.safetensors",
    "tokenizer/tokenizer.json",
)

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

Loader = Callable[[str], Any]


@pytest.fixture(scope="module")
def loaded() -> Iterator[Loader]:
    """Return what loads a sibling, each once."""
    once = cache(lambda name: load(ROOT / name))
    yield once
    once.cache_clear()


@pytest.mark.parametrize("name", SIBLINGS)
def test_sibling_draws_what_is_asked(loaded: Loader, name: str) -> None:
    """With its own steps and guidance at least 85 % of 16 pictures are right in background, colour and shape."""
    found = accuracy(verdicts(loaded(name), questions(16), **settings(ROOT / name)))
    assert found.all_right >= 0.85, found


@pytest.mark.parametrize("name", SIBLINGS)
def test_sibling_shares_what_does_not_differ(name: str) -> None:
    """Text encoder, autoencoder and tokenizer are those of shapes-sd15, byte for byte."""
    for file in SHARED:
        own, first = (sha256((ROOT / model / file).read_bytes()).hexdigest() for model in (name, "shapes-sd15"))
        assert own == first, file


@pytest.mark.parametrize("name", SIBLINGS)
def test_sibling_is_small_and_tells_its_figures(name: str) -> None:
    """The folder holds safetensors at half precision and a card that holds its accuracy of 64 prompts."""
    folder = ROOT / name
    assert folder_size(folder) <= SIBLINGS[name]
    assert not [*folder.rglob("*.bin"), *folder.rglob("*.fp16.*")]
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert f"64 fixed prompts, {recommended(folder)['steps']} steps" in card
    assert "## Limits" in card
    assert f"reference_models.train {name}`" in card


def test_second_generation_predicts_velocity(loaded: Loader) -> None:
    """Of a noisy picture shapes-sd2 tells the velocity, which is neither its noise nor anything near."""
    pipeline = loaded("shapes-sd2")
    assert pipeline.scheduler.config.prediction_type == "v_prediction"
    assert pipeline.unet.config.use_linear_projection
    scene = Scene("circle", "red", "blue", 0.5, 0.5, 0.25)
    latents = encoded(pipeline.vae, [draw(scene)])
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(0))
    signal = signal_left()[700]
    noisy = signal.sqrt() * latents + (1 - signal).sqrt() * noise
    words = pipeline.encode_prompt("a red circle on a blue background", "cpu", 1, do_classifier_free_guidance=False)[0]
    with torch.no_grad():
        found = pipeline.unet(noisy, 700, words).sample
    velocity = signal.sqrt() * noise - (1 - signal).sqrt() * latents
    assert (found - velocity).square().mean() < 0.2 * velocity.square().mean()
    assert (found - noise).square().mean() > 0.5


@pytest.mark.parametrize("name", ["shapes-sd2", "shapes-sdxl"])
def test_negative_prompt_removes(loaded: Loader, name: str) -> None:
    """What the negative prompt names comes less often than without it."""
    asked = [Question("a shape on a blue background", Expected(shape="circle"), seed) for seed in range(8)]
    plain = accuracy(verdicts(loaded(name), asked)).shape
    without = accuracy(verdicts(loaded(name), asked, negative_prompt=["circle"] * 8)).shape
    assert without < plain or without == 0
    assert without <= 0.13


def test_xl_reads_both_captions_and_the_pooled_one(loaded: Loader) -> None:
    """Each encoder's states and the pooled vector have a width of their own, and each changes the picture."""
    pipeline = loaded("shapes-sdxl")
    words, _, pooled, _ = pipeline.encode_prompt("a red circle on a blue background")
    assert words.shape == (1, 77, 128)
    assert pooled.shape == (1, 96)
    question = [Question("a red circle on a blue background", Expected(), 5)]
    plain = draw_all(pipeline, question)[0]
    other = draw_all(pipeline, question, prompt_2="a red circle on a green background")[0]
    assert plain.tobytes() != other.tobytes()
    changed = pipeline(
        prompt_embeds=words,
        pooled_prompt_embeds=torch.zeros_like(pooled),
        generator=torch.Generator().manual_seed(5),
        height=128,
        width=128,
        num_inference_steps=4,
        guidance_scale=1,
    ).images[0]
    whole = draw_all(pipeline, question, num_inference_steps=4, guidance_scale=1)[0]
    assert changed.tobytes() != whole.tobytes()


def test_xl_draws_at_another_side(loaded: Loader) -> None:
    """It was trained at other sides too, as SDXL was: at least 60 % of 8 pictures are right at 160 pixels a side."""
    found = accuracy(verdicts(loaded("shapes-sdxl"), questions(8), height=160, width=160))
    assert found.all_right >= 0.6, found


def test_xl_draws_what_the_second_encoder_reads(loaded: Loader) -> None:
    """A caption that only the second encoder gets is drawn, and one that the first gets beside it changes little of that."""
    asked = questions(8)
    said = [question.prompt for question in asked]
    for first in ([""] * len(said), said[::-1]):
        pictures = loaded("shapes-sdxl")(
            first,
            prompt_2=said,
            generator=[torch.Generator().manual_seed(question.seed) for question in asked],
            height=128,
            width=128,
            num_inference_steps=20,
            guidance_scale=5,
        ).images
        found = [judge(picture, question.expected) for picture, question in zip(pictures, asked, strict=True)]
        assert accuracy(found).all_right >= 0.75


def test_turbo_is_configured_for_few_steps(loaded: Loader) -> None:
    """Its scheduler begins at the noisiest time, and its settings ask for four steps without guidance."""
    assert loaded("shapes-turbo").scheduler.config.timestep_spacing == "trailing"
    own = recommended(ROOT / "shapes-turbo")
    assert (own["steps"], own["guidance_scale"], own["variant"]) == (4, 0, "turbo")


def test_turbo_draws_better_in_two_steps_than_what_it_was_distilled_from(loaded: Loader) -> None:
    """In two steps without guidance the student is right more often than its teacher."""
    asked, few = questions(16), {"num_inference_steps": 2, "guidance_scale": 0.0}
    teacher, student = loaded("shapes-sdxl"), loaded("shapes-turbo")
    own = teacher.scheduler
    teacher.scheduler = student.scheduler
    try:
        before = accuracy(verdicts(teacher, asked, **few)).all_right
    finally:
        teacher.scheduler = own
    assert accuracy(verdicts(student, asked, **few)).all_right > before


def test_index_names_the_pipeline_of_each() -> None:
    """Any program finds the right classes."""
    names = [json.loads((ROOT / name / "model_index.json").read_text())["_class_name"] for name in SIBLINGS]
    assert names == ["StableDiffusionPipeline", "StableDiffusionXLPipeline", "StableDiffusionXLPipeline"]
