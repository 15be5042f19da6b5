"""Entries of the library without files, for tests of what the library says of them."""

from pathlib import Path
from typing import Any

from infra.database import Connection
from models_registry.entries import Component, Kind, Layout, ModelEntry


def entry(name: str, kind: Kind = Kind.LORA, **changes: Any) -> ModelEntry:
    """Make a model without files."""
    weights = (Component(name="lora", bytes=1000, parameters=500, dtype="F16"),)
    values: dict[str, Any] = {
        "name": name, "kind": kind, "layout": Layout.SINGLE_FILE, "family": "sd15", "path": Path("/models") / name,
        "fingerprint": "ab" * 32, "components": weights,
    }  # fmt: skip
    return ModelEntry(**(values | changes))


def fill_library(connection: Connection, count: int) -> None:
    """Fill an empty library with LoRAs: `lora 1` …, each with one of 100 tags, half of them odd; ten are favourites of `ann`."""
    connection.execute(
        """
        insert into models (kind, name, layout, family, variant, path, fingerprint, components, weight_bytes, native_size, latent_factor,
            latent_channels, tags, description, found_at, changed_at)
        select 'lora', 'lora ' || n, 'file', 'sd15', 'lora', '/models/' || n, md5(n::text) || md5(n::text),
            '[{"name": "lora", "bytes": 1000, "parameters": 500, "dtype": "F16"}]', n % 977 * 1000, 0, 0, 0,
            array['tag' || n % 100, case n % 2 when 0 then 'even' else 'odd' end],
            case when n % (%(count)s / 10) = 0 then 'rareword' else '' end,
            now() - make_interval(secs => n), now() - make_interval(secs => n * 7919 %% %(count)s)
        from generate_series(1, %(count)s) n
        """.replace("n % ", "n %% "),
        {"count": count},
    )
    connection.execute(
        "insert into model_marks (owner, model, favourite) select 'ann', id, true from models where description <> ''"
    )
    connection.execute("vacuum analyze models")
    connection.execute("vacuum analyze model_use_totals")
    connection.execute("analyze model_marks")
