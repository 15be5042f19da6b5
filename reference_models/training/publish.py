"""Write a finished model to disk at once: readers see the old folder or the new one, never half of one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import torch

CARD: Final = "README.md"
RECOMMENDATIONS: Final = "imagefleet.json"
LENGTH_HINT: Final = "max_sequence_length"
"""The key under which a model says how many tokens its T5 encoder is to be shown, as its tokenizer's configuration says too."""


def folder_size(folder: Path) -> int:
    """Return the bytes of all files in the folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def recommended(folder: Path) -> dict[str, Any]:
    """Return the settings that suit a model: steps, guidance_scale and scheduler, as `imagefleet.json` says."""
    settings: dict[str, Any] = json.loads((folder / RECOMMENDATIONS).read_text(encoding="utf-8"))
    return settings


def replace_folder(target: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a folder beside the target, then put it in the target's place; an old card stays."""
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh = target.with_name(f".{target.name}.fresh")
    stale = target.with_name(f".{target.name}.stale")
    for leftover in (fresh, stale):
        shutil.rmtree(leftover, ignore_errors=True)
    write(fresh)
    for config in fresh.rglob("config.json"):
        _forget_origin(config)
    card = target / CARD
    if card.exists() and not (fresh / CARD).exists():
        shutil.copyfile(card, fresh / CARD)
    if target.exists():
        target.rename(stale)
    fresh.rename(target)
    shutil.rmtree(stale, ignore_errors=True)


def _forget_origin(config: Path) -> None:
    """Take out the path at which the trainer happened to find what it began with."""
    values = json.loads(config.read_text(encoding="utf-8"))
    if values.pop("_name_or_path", None) is not None:
        config.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def save_pipeline(pipeline: Any, target: Path, recommended: Mapping[str, Any]) -> None:
    """Put the pipeline in place of the target folder: at half precision, loadable at single, with settings that suit it."""
    pipeline.to(torch.float16)

    def write(folder: Path) -> None:
        pipeline.save_pretrained(folder)
        for path in folder.glob("text_encoder*/config.json"):
            # Asked for no precision, transformers takes this one and diffusers single: they must agree.
            config = json.loads(path.read_text(encoding="utf-8"))
            path.write_text(json.dumps(config | {"dtype": "float32"}, indent=2) + "\n", encoding="utf-8")
        (folder / RECOMMENDATIONS).write_text(json.dumps(dict(recommended)) + "\n", encoding="utf-8")
        for path in folder.rglob("*.safetensors"):
            path.chmod(0o644)

    replace_folder(target, write)
