"""How an entry lies in the table of models."""

from typing import Any, Final

from psycopg.rows import DictRow
from psycopg.types.json import Jsonb

from models_registry.entries import ModelEntry

#: What a row and an entry have in common, by the same names.
FIELDS: Final = (
    "name", "kind", "layout", "family", "variant", "path", "fingerprint", "components", "native_size", "latent_factor",
    "latent_channels", "text_width", "text_layers", "width", "scale", "rank", "vectors", "default_steps", "default_guidance_scale",
    "default_scheduler",
)  # fmt: skip


def entry_of(row: DictRow) -> ModelEntry:
    """Return the entry of a row that holds every field."""
    return ModelEntry.model_validate({field: row[field] for field in FIELDS})


def values_of(entry: ModelEntry) -> dict[str, Any]:
    """Return the values of an entry's fields, and the size of its weights."""
    values = entry.model_dump(mode="json")
    return values | {"components": Jsonb(values["components"]), "weight_bytes": entry.bytes}
