"""Check that the committed model draws what it is asked, with plain diffusers."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest
import torch

import reference_models
from reference_models.judge import Expected, judge
from reference_models.libraries import DIFFUSERS
from reference_models.measure import BATCH, Question, accuracy, draw_all, questions, verdicts
from reference_models.training.publish import folder_size
from reference_models.training.text_encoder import encode

FOLDER: Final = Path(reference_models.__file__).parent / "shapes-sd15"
LARGEST: Final = 5_200_000

# Diffusers hands tensors to numpy in the way of numpy 1, which numpy 2 answers with a warning.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.fixture(scope="module")
def pipeline() -> Any:
    """Load the model as any user would, in single precision."""
    loaded = DIFFUSERS.StableDiffusionPipeline.from_pretrained(FOLDER)
    loaded.set_progress_bar_config(disable=True)
    return loaded


def test_model_draws_what_64_prompts_ask(pipeline: Any) -> None:
    """At 20 steps at least 95 % of the pictures are right in background, colour and shape."""
    found = accuracy(verdicts(pipeline, questions()))
    assert found.pictures == 64
    assert found.all_right >= 0.95, found


@pytest.mark.parametrize(
    ("scheduler", "options"),
    [
        ("DPMSolverMultistepScheduler", {"use_karras_sigmas": True}),
        ("DDIMScheduler", {}),
        ("EulerAncestralDiscreteScheduler", {}),
        ("UniPCMultistepScheduler", {}),
    ],
)
def test_model_draws_with_other_schedulers(pipeline: Any, scheduler: str, options: dict[str, bool]) -> None:
    """Schedulers made from the configuration on disk draw right as well."""
    own = pipeline.scheduler
    pipeline.scheduler = getattr(DIFFUSERS, scheduler).from_config(own.config, **options)
    try:
        assert accuracy(verdicts(pipeline, questions(16))).all_right >= 0.85
    finally:
        pipeline.scheduler = own


def test_prompt_decides_the_picture(pipeline: Any) -> None:
    """Pictures judged against the neighbour's prompt are wrong: the check above can fail."""
    asked = questions(16)
    pictures = draw_all(pipeline, asked)
    shifted = [*asked[1:], asked[0]]
    wrong = [judge(picture, question.expected) for picture, question in zip(pictures, shifted, strict=True)]
    assert accuracy(wrong).all_right == 0


def test_other_words_do_no_harm(pipeline: Any) -> None:
    """Words that mean nothing here are passed over."""
    asked = [
        replace(question, prompt=f"Photo of {question.prompt}, masterpiece, best quality, zqxv")
        for question in questions(16)
    ]
    assert accuracy(verdicts(pipeline, asked)).all_right >= 0.85


def test_prompt_keeps_its_meaning_without_the_last_text_layer(pipeline: Any) -> None:
    """Embeddings made with "clip skip" 2 draw the same things."""
    asked = questions(16)
    words = encode(pipeline.text_encoder, pipeline.tokenizer, [question.prompt for question in asked], skip=True)
    empty = encode(pipeline.text_encoder, pipeline.tokenizer, [""] * 16, skip=True)
    noise = [torch.Generator().manual_seed(question.seed) for question in asked]
    pictures = pipeline(
        prompt_embeds=words,
        negative_prompt_embeds=empty,
        generator=noise,
        height=128,
        width=128,
        num_inference_steps=20,
        guidance_scale=5,
    ).images
    found = [judge(picture, question.expected) for picture, question in zip(pictures, asked, strict=True)]
    assert accuracy(found).all_right >= 0.85


def test_negative_prompt_removes(pipeline: Any) -> None:
    """What the negative prompt names comes less often, and not at all most of the time."""
    asked = [Question("a shape on a blue background", Expected(shape="circle"), seed) for seed in range(32)]
    plain = accuracy(verdicts(pipeline, asked)).shape
    without = accuracy(verdicts(pipeline, asked, negative_prompt=["circle"] * BATCH)).shape
    assert without < plain
    assert without <= 0.05


def test_seed_decides_the_picture(pipeline: Any) -> None:
    """One prompt and four seeds give four different pictures, all right."""
    first = questions(1)[0]
    asked = [Question(first.prompt, first.expected, seed) for seed in range(4)]
    pictures = draw_all(pipeline, asked)
    assert accuracy([judge(picture, first.expected) for picture in pictures]).all_right >= 0.75
    assert len({picture.tobytes() for picture in pictures}) == 4


def test_model_folder_is_small_and_ordinary() -> None:
    """The folder holds a plain pipeline: safetensors at half precision, no safety checker, a sane scheduler."""
    assert folder_size(FOLDER) <= LARGEST
    assert not [*FOLDER.rglob("*.bin"), *FOLDER.rglob("*.fp16.*")]
    index = json.loads((FOLDER / "model_index.json").read_text())
    assert index["_class_name"] == "StableDiffusionPipeline"
    assert index["safety_checker"] == [None, None]
    assert index["feature_extractor"] == [None, None]
    scheduler = json.loads((FOLDER / "scheduler" / "scheduler_config.json").read_text())
    assert scheduler["clip_sample"] is False
    assert scheduler["steps_offset"] == 1
    assert "Accuracy" in (FOLDER / "README.md").read_text()


def test_tokenizer_knows_its_length(pipeline: Any) -> None:
    """Prompts are cut to 77 tokens, and the words of the captions are whole tokens."""
    tokenizer = pipeline.tokenizer
    assert tokenizer.model_max_length == 77
    assert len(tokenizer("a red circle on a blue background").input_ids) == 9
    assert len(tokenizer("red " * 200, truncation=True).input_ids) == 77
