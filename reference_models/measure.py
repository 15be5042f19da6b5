"""Measure how often a model draws what 64 fixed prompts ask: `python -m reference_models.measure FOLDER [--write]`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from reference_models.card import Accuracy, rewrite_accuracy
from reference_models.judge import Expected, Verdict, judge
from reference_models.libraries import DIFFUSERS
from reference_models.pictures import COLOURS, SHAPES, SIDE, Attributes, caption
from reference_models.training.publish import LENGTH_HINT, recommended

COUNT: Final = 64
STEPS: Final = 20
GUIDANCE: Final = 5.0
BATCH: Final = 16


@dataclass(frozen=True, slots=True)
class Question:
    """Pair a prompt with what its picture must show and the seed of its noise."""

    prompt: str
    expected: Expected
    seed: int


def questions(count: int = COUNT, seed: int = 2024) -> list[Question]:
    """Return fixed prompts; every shape, colour and background comes about equally often."""
    rng = np.random.default_rng(seed)
    asked = []
    for index in range(count):
        colour = index % len(COLOURS)
        background = (colour + 1 + (index // len(COLOURS)) % (len(COLOURS) - 1)) % len(COLOURS)
        shape = SHAPES[int(rng.permutation(len(SHAPES))[0])] if index >= len(SHAPES) else SHAPES[index]
        expected = Expected(shape, COLOURS[colour], COLOURS[background])
        said = Attributes(expected.shape, expected.colour, expected.background)
        asked.append(Question(caption(said), expected, seed + index))
    return asked


def draw_all(pipeline: Any, asked: Sequence[Question], **options: Any) -> list[Any]:
    """Return one PIL picture per question, each from its own seed; options go to the pipeline's call."""
    pictures: list[Any] = []
    given = {"num_inference_steps": STEPS, "guidance_scale": GUIDANCE, "height": SIDE, "width": SIDE, **options}
    for first in range(0, len(asked), BATCH):
        part = asked[first : first + BATCH]
        noise = [torch.Generator().manual_seed(question.seed) for question in part]
        pictures += pipeline([question.prompt for question in part], generator=noise, **given).images
    return pictures


def verdicts(pipeline: Any, asked: Sequence[Question], **options: Any) -> list[Verdict]:
    """Return one verdict per question."""
    pictures = draw_all(pipeline, asked, **options)
    return [judge(picture, question.expected) for picture, question in zip(pictures, asked, strict=True)]


def accuracy(found: Sequence[Verdict]) -> Accuracy:
    """Return the shares of the verdicts."""
    return Accuracy(
        pictures=len(found),
        background=sum(verdict.background for verdict in found) / len(found),
        colour=sum(verdict.colour for verdict in found) / len(found),
        shape=sum(verdict.shape for verdict in found) / len(found),
        all_right=sum(verdict.all_right for verdict in found) / len(found),
    )


def load(folder: Path) -> Any:
    """Load a model for measuring: single precision, quiet."""
    pipeline = DIFFUSERS.DiffusionPipeline.from_pretrained(folder, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def settings(folder: Path) -> dict[str, Any]:
    """Return the options of a pipeline's call that are the model's own: steps, guidance, and T5's length where it has one."""
    own = recommended(folder)
    names = {"steps": "num_inference_steps", "guidance_scale": "guidance_scale", LENGTH_HINT: LENGTH_HINT}
    return {option: own[hint] for hint, option in names.items() if hint in own}


def measure(folder: Path, count: int = COUNT) -> Accuracy:
    """Return the accuracy of the model in the folder, drawn with its own scheduler, steps and guidance."""
    return accuracy(verdicts(load(folder), questions(count), **settings(folder)))


def main(given: list[str] | None = None) -> None:
    """Measure one folder and print the figures."""
    parser = argparse.ArgumentParser(prog="python -m reference_models.measure", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--write", action="store_true", help="put the figures into the model's card")
    parser.add_argument("--threads", type=int, default=2)
    asked = parser.parse_args(given)
    torch.set_num_threads(asked.threads)
    figures = measure(asked.folder)
    print(figures)
    if asked.write:
        rewrite_accuracy(asked.folder, figures)


if __name__ == "__main__":
    main()
