"""People name a model in several ways."""

from pathlib import Path
from types import MappingProxyType

import pytest

from models_registry.entries import Component, Kind, Layout, ModelEntry
from models_registry.offers import Catalogue


def entry(name: str, fingerprint: str, kind: Kind = Kind.CHECKPOINT, variant: str = "base") -> ModelEntry:
    """Make an entry of this name and fingerprint."""
    return ModelEntry(
        name=name,
        kind=kind,
        variant=variant,
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
LORAS = (entry("shapes-sd15", "abcdef33", Kind.LORA), entry("Frame", "abcdef44", Kind.LORA))
CATALOGUE = Catalogue(MappingProxyType({model.ref: model for model in (*LORAS, *MODELS)}), frozenset())


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
    """The first ordinary checkpoint draws when none is named, whatever else came before; an empty catalogue has none."""
    assert CATALOGUE.default() == MODELS[0]
    inpaint = entry("paint", "abcdef55", variant="inpaint")
    entries = {each.ref: each for each in (inpaint, *LORAS)}
    assert Catalogue(MappingProxyType(entries), frozenset()).default() is None
    assert Catalogue(MappingProxyType(entries | {MODELS[1].ref: MODELS[1]}), frozenset()).default() == MODELS[1]
    assert Catalogue(MappingProxyType({}), frozenset()).default() is None


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("frame", LORAS[1]),
        ("FRAME.safetensors", LORAS[1]),
        ("Frame [abcdef44]", LORAS[1]),
        ("abcdef4", LORAS[1]),
        ("shapes-sd15", LORAS[0]),
        ("DreamShaper 8", None),
        ("abcdef2", None),
    ],
)
def test_find_keeps_the_kinds_apart(given: str, expected: ModelEntry | None) -> None:
    """A LoRA is found as checkpoints are, and a checkpoint of the same name is another thing."""
    assert CATALOGUE.find(given, Kind.LORA) == expected
    assert CATALOGUE.find("shapes-sd15") == MODELS[1]


def test_of_kind_lists_one_kind_in_order() -> None:
    """Checkpoints come without LoRAs, LoRAs without checkpoints."""
    assert CATALOGUE.of_kind(Kind.CHECKPOINT) == MODELS
    assert CATALOGUE.of_kind(Kind.LORA) == LORAS
    assert CATALOGUE.of_kind(Kind.VAE) == ()
