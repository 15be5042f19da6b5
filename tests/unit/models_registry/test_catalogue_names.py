"""People name a model in several ways."""

from pathlib import Path
from types import MappingProxyType

import pytest

from models_registry.catalogue import Catalogue
from models_registry.entries import Component, Kind, Layout, ModelEntry


def entry(name: str, fingerprint: str) -> ModelEntry:
    """Make an entry of this name and fingerprint."""
    return ModelEntry(
        name=name,
        kind=Kind.CHECKPOINT,
        layout=Layout.DIFFUSERS,
        family="sd15",
        path=Path("/models") / name,
        fingerprint=fingerprint.ljust(64, "0"),
        components=(Component(name="unet", bytes=2, parameters=1, dtype="F16"),),
        native_size=512,
        latent_factor=8,
        latent_channels=4,
    )


MODELS = (entry("DreamShaper 8", "abcdef11"), entry("shapes-sd15", "abcdef22"), entry("deadbeef", "1234567890"))
CATALOGUE = Catalogue(MappingProxyType({model.name: model for model in MODELS}), frozenset())


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("shapes-sd15", "shapes-sd15"),
        ("Shapes-SD15", "shapes-sd15"),
        ("dreamshaper 8.safetensors", "DreamShaper 8"),
        ("DreamShaper 8 [abcdef11]", "DreamShaper 8"),
        ("DreamShaper 8.safetensors [ABCDEF1100]", "DreamShaper 8"),
        ("DreamShaper 8 [abcdef22]", None),
        ("abcdef1", "DreamShaper 8"),
        ("ABCDEF22", "shapes-sd15"),
        ("abcdef", None),
        ("12345", None),
        ("123456", "deadbeef"),
        ("deadbeef", "deadbeef"),
        ("", None),
        ("shapes", None),
        ("shapes-sd15\n", None),
    ],
)
def test_find_knows_names_titles_and_hashes(given: str, expected: str | None) -> None:
    """A name in any case, a title with its hash, and an unambiguous beginning of the fingerprint find the model; nothing else does."""
    found = CATALOGUE.find(given)
    assert (found.name if found else None) == expected


def test_find_knows_the_title_of_every_entry() -> None:
    """What an entry calls itself finds it again."""
    assert [CATALOGUE.find(model.title) for model in MODELS] == list(MODELS)


def test_default_is_the_model_known_longest() -> None:
    """The first of the catalogue draws when none is named; an empty catalogue has none."""
    assert CATALOGUE.default() == MODELS[0]
    assert Catalogue(MappingProxyType({}), frozenset()).default() is None
