"""Entries of the library without files, for tests of what the library says of them."""

from pathlib import Path
from typing import Any

from models_registry.entries import Component, Kind, Layout, ModelEntry


def entry(name: str, kind: Kind = Kind.LORA, **changes: Any) -> ModelEntry:
    """Make a model without files."""
    weights = (Component(name="lora", bytes=1000, parameters=500, dtype="F16"),)
    values: dict[str, Any] = {
        "name": name, "kind": kind, "layout": Layout.SINGLE_FILE, "family": "sd15", "path": Path("/models") / name,
        "fingerprint": "ab" * 32, "components": weights,
    }  # fmt: skip
    return ModelEntry(**(values | changes))
