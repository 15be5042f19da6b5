"""Shapes are drawn at about the pixels a model was trained at, in steps that its family takes."""

from pathlib import Path

import pytest

from models_registry.aspects import SHAPES, aspects_of
from models_registry.entries import Kind, Layout, ModelEntry
from models_registry.families import FAMILIES


def checkpoint(family: str, native_size: int) -> ModelEntry:
    """Make a checkpoint of a family and a native size."""
    return ModelEntry(
        name="m", kind=Kind.CHECKPOINT, layout=Layout.DIFFUSERS, family=family, path=Path("m"), fingerprint="0" * 64,
        components=(), native_size=native_size, latent_factor=8, latent_channels=4,
    )  # fmt: skip


def test_aspects_of_sdxl_are_those_it_was_trained_at() -> None:
    """The published buckets come out."""
    found = {each.name: (each.width, each.height) for each in aspects_of(checkpoint("sdxl", 1024))}
    assert found["1:1"] == (1024, 1024)
    assert found["4:3"] == (1152, 896)
    assert found["16:9"] == (1344, 768)
    assert found["21:9"] == (1536, 640)
    assert found["9:16"] == (768, 1344)


@pytest.mark.parametrize("family", sorted(FAMILIES))
@pytest.mark.parametrize("native_size", [32, 64, 128, 512, 768, 1024])
def test_aspects_can_be_drawn(family: str, native_size: int) -> None:
    """Every size is a multiple of the family's step, inside its limits, near the area of the square and near its shape."""
    facts = FAMILIES[family]
    found = aspects_of(checkpoint(family, native_size))
    assert len(found) == 2 * len(SHAPES) - 1
    assert found[0] == ("1:1", native_size, native_size)
    for each in found:
        assert each.width % facts.size_step == each.height % facts.size_step == 0
        assert min(facts.min_side, native_size) <= min(each.width, each.height)
        assert max(each.width, each.height) <= facts.max_side
        if native_size >= 512:
            long, short = map(int, each.name.split(":"))
            assert 0.85 < each.width * each.height / native_size**2 < 1.15
            assert 0.8 < (each.width / each.height) / (long / short) < 1.25
