"""Measure LoRA adapters: how much of a style each weight shows, and whether the picture stays right."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from reference_models.judge import Picture, judge
from reference_models.measure import Question, accuracy, draw_all, load, questions, settings
from reference_models.measuring.figures import Figures
from reference_models.styles import frame_score, ground_score, inside
from reference_models.training.family import PUBLISHED

SCORES: Final[dict[str, Callable[[Picture], float]]] = {
    "shapes-frame": frame_score,
    "shapes-frame-2": frame_score,
    "shapes-ground": ground_score,
}
"""The adapters of `shapes-sd15`."""

FRAMES: Final[dict[str, Path]] = {
    "shapes-sdxl-frame": PUBLISHED.with_name("shapes-sdxl"),
    "shapes-flux-frame": PUBLISHED.with_name("shapes-flux"),
}
"""The adapters of its siblings, which all paint the frame, and the models that they add to."""

WEIGHTS: Final = (-1.0, 0.0, 0.5, 1.0)
_UNSEEN: Final = ("black", "white")
"""A frame on black and a ground on white would be invisible."""


def add(pipeline: Any, *adapters: Path) -> None:
    """Load adapters, each under the name of its file."""
    for path in adapters:
        pipeline.load_lora_weights(path.parent, weight_name=path.name, adapter_name=path.stem)


def asked_of(count: int) -> list[Question]:
    """Return fixed questions whose backgrounds show every style."""
    return [question for question in questions(2 * count) if question.expected.background not in _UNSEEN][:count]


def base_of(name: str) -> Path:
    """Return the folder of the model that the adapter of this name adds to."""
    return FRAMES.get(name, PUBLISHED)


def options_of(name: str) -> dict[str, Any]:
    """Return the options of a pipeline's call that the adapter of this name is measured with."""
    return settings(FRAMES[name]) if name in FRAMES else {}


def drawn(pipeline: Any, asked: Sequence[Question], weights: Mapping[str, float], **options: Any) -> list[Any]:
    """Return the pictures with the adapters at these weights; options go to the pipeline's call."""
    pipeline.set_adapters(list(weights), list(weights.values()))
    return draw_all(pipeline, asked, **options)


def mean_score(name: str, pictures: Sequence[Picture]) -> float:
    """Return the mean score of the style that the adapter of this name draws."""
    return sum(SCORES.get(name, frame_score)(picture) for picture in pictures) / len(pictures)


def share_right(pictures: Sequence[Picture], asked: Sequence[Question], *, ground: bool) -> float:
    """Return the share of pictures that are right inside the frame, and above the ground."""
    pairs = zip(pictures, asked, strict=True)
    return accuracy([judge(inside(picture, ground=ground), one.expected) for picture, one in pairs]).all_right


def measure(target: Path, count: int) -> Figures:
    """Return the style's mean score at each weight, and what share of the pictures is right."""
    asked, name = asked_of(count), target.stem
    pipeline, own = load(base_of(name)), options_of(name)
    add(pipeline, target)
    figures: Figures = {}
    for weight in WEIGHTS:
        pictures = drawn(pipeline, asked, {name: weight}, **own)
        figures[f"score at weight {weight:g}"] = mean_score(name, pictures)
    figures["right in shape, colour and background at weight 1"] = share_right(pictures, asked, ground="ground" in name)
    if pipeline.get_list_adapters().get("text_encoder"):
        pipeline.set_adapters([name], [{"unet": 1.0, "text_encoder": 0.0}])
        figures["score at weight 1 without the text encoder's part"] = mean_score(
            name, draw_all(pipeline, asked, **own)
        )
    other = target.with_name("shapes-frame.safetensors")
    if "ground" in name and other.exists():
        add(pipeline, other)
        pictures = drawn(pipeline, asked, {name: 1.0, other.stem: 1.0}, **own)
        figures["score beside shapes-frame, both at weight 1"] = mean_score(name, pictures)
        figures["score of shapes-frame beside it"] = mean_score(other.stem, pictures)
        figures["right with both"] = share_right(pictures, asked, ground=True)
    return figures
