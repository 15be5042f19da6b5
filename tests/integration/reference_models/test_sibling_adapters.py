"""Check that the adapters of shapes-sd15's siblings show the frame on their own models, more with more weight."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest
from safetensors import safe_open

import reference_models
from reference_models.measure import load
from reference_models.measuring.lora import FRAMES, add, asked_of, base_of, drawn, mean_score, options_of, share_right

FOLDER: Final = Path(reference_models.__file__).parent / "loras"
COUNT: Final = 8

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.mark.parametrize("name", FRAMES)
def test_more_weight_shows_more_frame(name: str) -> None:
    """Without weight there is no frame, half of it shows some, and at 1 it is there and the picture inside it is right."""
    pipeline, asked = load(base_of(name)), asked_of(COUNT)
    add(pipeline, FOLDER / f"{name}.safetensors")
    pictures = {weight: drawn(pipeline, asked, {name: weight}, **options_of(name)) for weight in (0.0, 0.5, 1.0)}
    without, half, whole = (mean_score(name, found) for found in pictures.values())
    assert without < 0.05
    assert without + 0.05 < half < whole - 0.1
    assert whole > 0.7
    assert share_right(pictures[1.0], asked, ground=False) >= 0.75


@pytest.mark.parametrize("name", FRAMES)
def test_adapter_file_is_small_and_ordinary(name: str) -> None:
    """The file has diffusers' keys and metadata, half precision, and a card beside it."""
    path = FOLDER / f"{name}.safetensors"
    assert path.stat().st_size < 700_000
    with safe_open(path, "pt") as file:
        keys = list(file.keys())
        assert file.metadata()["lora_adapter_metadata"]
        assert str(file.get_tensor(keys[0]).dtype) == "torch.float16"
    assert all(key.split(".")[-2] in ("lora_A", "lora_B") for key in keys)
    assert "score at weight 1" in path.with_suffix(".md").read_text(encoding="utf-8")
