"""An adapter fits a checkpoint of its family and widths alone."""

from pathlib import Path
from typing import Any

import pytest

from models_registry.compatibility import TITLES, mismatch
from models_registry.entries import ANY_FAMILY, Kind, Layout, ModelEntry
from models_registry.families import FAMILIES, tasks_of


def entry(name: str, kind: Kind, **changes: Any) -> ModelEntry:
    """Make an entry."""
    values: dict[str, Any] = {
        "name": name, "kind": kind, "layout": Layout.SINGLE_FILE, "family": "sd15", "path": Path(name),
        "fingerprint": "0" * 64, "components": (),
    }  # fmt: skip
    return ModelEntry(**(values | changes))


SHAPES = entry("shapes", Kind.CHECKPOINT, text_width=64, latent_factor=8, latent_channels=4)


@pytest.mark.parametrize(
    ("adapter", "words"),
    [
        (entry("frame", Kind.LORA, text_width=64), None),
        (entry("frame", Kind.LORA), None),
        (entry("frame", Kind.LORA, text_width=768), ("a LoRA", "width 768", "shapes has 64")),
        (entry("dusk", Kind.EMBEDDING, text_width=768, vectors=2), ("an embedding", "width 768")),
        (entry("canny", Kind.CONTROLNET, text_width=64, latent_channels=4), None),
        (entry("canny", Kind.CONTROLNET, text_width=768, latent_channels=4), ("a ControlNet", "width 768")),
        (entry("canny", Kind.CONTROLNET, text_width=64, latent_channels=16), ("16 channels", "shapes has 4")),
        (entry("grey", Kind.VAE, latent_factor=8, latent_channels=4), None),
        (entry("grey", Kind.VAE, latent_factor=4, latent_channels=4), ("a VAE", "4 pixels a cell", "shapes has 8")),
        (entry("grey", Kind.VAE, latent_factor=8, latent_channels=16), ("16 channels",)),
        (entry("x4", Kind.UPSCALER, family=ANY_FAMILY, scale=4), None),
        (entry("other", Kind.CHECKPOINT, text_width=64), ("a checkpoint", "does not take")),
    ],
)
def test_mismatch_says_why(adapter: ModelEntry, words: tuple[str, ...] | None) -> None:
    """What is known of both and differs is told in one sentence; what is not known does not matter."""
    sentence = mismatch(adapter, SHAPES)
    if words is None:
        assert sentence is None
        return
    assert sentence is not None
    assert sentence.startswith(adapter.name)
    assert sentence.endswith(".")
    assert all(word in sentence for word in words)


def test_mismatch_tells_families_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """An adapter of another family is refused whatever its widths are."""
    other = FAMILIES["sd15"]._replace(name="sdxl", title="SDXL")
    monkeypatch.setattr("models_registry.compatibility.FAMILIES", {**FAMILIES, "sdxl": other})
    sentence = mismatch(entry("frame", Kind.LORA, family="sdxl", text_width=64), SHAPES)
    assert sentence == "frame is a LoRA for SDXL; shapes is Stable Diffusion 1.x."


def test_every_kind_has_a_title() -> None:
    """A sentence can be made about every kind."""
    assert TITLES.keys() == set(Kind)


def test_tasks_follow_kind_and_variant() -> None:
    """An ordinary checkpoint does everything, one for inpainting nothing else, and adapters do nothing by themselves."""
    assert tasks_of(SHAPES) == {"txt2img", "img2img", "inpaint"}
    assert tasks_of(SHAPES.model_copy(update={"variant": "inpaint"})) == {"inpaint"}
    assert tasks_of(entry("x4", Kind.UPSCALER, family=ANY_FAMILY)) == {"upscale"}
    assert tasks_of(entry("hed", Kind.PREPROCESSOR, family=ANY_FAMILY)) == {"preprocess"}
    assert tasks_of(entry("frame", Kind.LORA)) == frozenset()
