"""A shared server whose world has adapters for text features of two widths."""

from typing import Any

import pytest

from models_registry.entries import Component, Kind, Layout, ModelEntry

SHA = {"frame": "9f8e7d6c5b4a" + "0" * 52, "dusk": "0011223344556677" + "0" * 48}


def _adapter(world: Any, name: str, kind: Kind = Kind.LORA, **changes: Any) -> ModelEntry:
    sums = (Component(name="weights", bytes=1000, parameters=500, dtype="F16"),)
    found: ModelEntry = world.add_model(
        name, kind=kind, layout=Layout.SINGLE_FILE, variant="lora", components=sums, native_size=0, latent_factor=0,
        latent_channels=0, rank=4, **changes,
    )  # fmt: skip
    return found


@pytest.fixture(scope="module")
def library(shared_world: Any) -> Any:
    """Register adapters with what people say of them."""
    world = shared_world
    world.connection.execute("update models set text_width = 768 where name = 'shapes-sd15'")
    _adapter(world, "frame", text_width=768)
    _adapter(world, "dusk", text_width=768)
    _adapter(world, "dusk-wide", text_width=1024)
    _adapter(world, "hidden")
    _adapter(world, "glow", Kind.EMBEDDING)
    world.add_model("shapes-wide", text_width=1024)
    say = "update models set {} where name = %(name)s"
    facts: dict[str, dict[str, Any]] = {
        "frame": {"trigger_words": ["framed", "thin border"], "weight": 0.8, "weight_max": 1.0, "sha256": SHA["frame"]},
        "dusk": {"trigger_words": ["dusk"], "sha256": SHA["dusk"]},
        "hidden": {"owner": "bob", "visibility": "private"},
    }
    for name, values in facts.items():
        sets = ", ".join(f"{column} = %({column})s" for column in values)
        world.connection.execute(say.format(sets), {**values, "name": name})
    return world


@pytest.fixture
def world(library: Any, clean_world: Any) -> Any:
    """Share one world, emptied before each test."""
    assert library is clean_world
    return clean_world


@pytest.fixture
def live(shared_live: Any, library: Any) -> Any:
    """Share one server."""
    assert library is not None
    return shared_live
