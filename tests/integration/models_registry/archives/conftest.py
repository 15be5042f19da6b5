"""A registry with real files, previews, marks and recipes, and a way to compare two of them."""

import hashlib
import io
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from psycopg.types.json import Jsonb
from safetensors.numpy import save_file

from infra.database import Connection, connect
from infra.storage import Storage, open_storage
from models_registry.contents.shelving import Wanted, take_in
from models_registry.preview_bytes import preview_key
from models_registry.recipes.store import RecipeLora, content_of
from models_registry.records import Facts

LAYER = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_k"
_ENTRIES = """
select kind, name, layout, family, variant, path, fingerprint, components, weight_bytes, text_width, rank, owner, visibility, allowed_keys,
    description, licence, source, base_model, tags, trigger_words, weight, weight_min, weight_max, sha256, hashes, metadata,
    (select jsonb_agg(file - 'mtime_ns' order by file ->> 'path') from jsonb_array_elements(files) file) as files,
    missing_since is null as here, stored_at is null as elsewhere,
    array(select alias from model_aliases where model = models.id order by alias) as aliases,
    (select jsonb_agg(to_jsonb(shown) - 'model' order by index) from model_previews shown where model = models.id) as previews,
    (select jsonb_agg(to_jsonb(mark) - 'model' - 'changed_at' order by owner) from model_marks mark where model = models.id) as marks
from models order by kind, name
"""
_RECIPES = """
select owner, name, visibility, description, tags, prompt, negative_prompt, model, loras, settings, source, content, preview
from recipes order by owner, name
"""


@pytest.fixture
def conn(database_url: str) -> Iterator[Connection]:
    """Connect to a fresh database."""
    with connect(database_url, application_name="test") as connection:
        yield connection


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    """Return an empty storage on disk."""
    return open_storage((tmp_path / "storage").as_uri())


def lora_file(path: Path, value: float) -> Path:
    """Write a LoRA of rank 4 whose content is its own."""
    path.parent.mkdir(parents=True, exist_ok=True)
    down, up = np.full((4, 16), value, np.float32), np.ones((8, 4), np.float32)
    save_file({f"{LAYER}.lora_down.weight": down, f"{LAYER}.lora_up.weight": up}, path, {"ss_network_alpha": "2.0"})
    return path


def picture(shade: int) -> bytes:
    """Return a small picture."""
    file = io.BytesIO()
    Image.new("RGB", (8, 8), (shade, 0, 0)).save(file, "WEBP")
    return file.getvalue()


class Registry:
    """Fill a registry, and say what it holds."""

    def __init__(self, connection: Connection, storage: Storage, folder: Path) -> None:
        self.connection = connection
        self.storage = storage
        self._folder = folder

    def add(
        self, number: int, ref: str, facts: Facts, *, mark: Mapping[str, Any] | None = None, shade: int | None = None
    ) -> Any:
        """Take an entry in, with a mark of the owner `ann` and a preview; `number` makes its file's content."""
        name, _, version = ref.partition("@")
        path = lora_file(self._folder / "in" / f"{number}.safetensors", float(number))
        shelved = take_in(self.connection, path, Wanted(name, version), facts, storage=self.storage)
        path.unlink()
        if mark is not None:
            self.connection.execute(
                "insert into model_marks (owner, model, favourite, rating, active, position, weight) "
                "values (%(owner)s, %(model)s, %(favourite)s, %(rating)s, %(active)s, %(position)s, %(weight)s)",
                {"owner": "ann", **mark, "model": shelved.id},
            )
        if shade is not None:
            self.connection.execute(
                "insert into model_previews (model, index, sha256, mime, width, height, bytes, key) values (%s, 0, %s, %s, 8, 8, %s, %s)",
                (shelved.id, *self._preview(shade)),
            )
        return shelved

    def add_recipe(self, name: str, prompt: str, *, owner: str = "ann", shade: int | None = None) -> None:
        """Keep a recipe."""
        values: dict[str, Any] = {
            "prompt": prompt, "negative_prompt": "", "model": None, "settings": {"steps": 7},
            "loras": [RecipeLora(name="frame", weight=0.5)],
        }  # fmt: skip
        preview = None
        if shade is not None:
            sha256, mime, size, _ = self._preview(shade)
            preview = Jsonb({"sha256": sha256, "mime": mime, "width": 8, "height": 8, "bytes": size})
        self.connection.execute(
            "insert into recipes (id, owner, name, prompt, settings, loras, content, preview) "
            "values (gen_random_uuid(), %s, %s, %s, %s, %s, %s, %s)",
            (
                owner, name, prompt, Jsonb(values["settings"]), Jsonb([each.model_dump() for each in values["loras"]]),
                content_of(values), preview,
            ),
        )  # fmt: skip

    def content(self) -> tuple[list[Any], list[Any]]:
        """Return everything that people can see, without ids and times."""
        return self.connection.execute(_ENTRIES).fetchall(), self.connection.execute(_RECIPES).fetchall()

    def objects(self) -> dict[str, bytes]:
        """Return what lies in storage, but for backups."""
        found = {each.key: self.storage.get(each.key) for each in self.storage.list()}
        return {key: data for key, data in found.items() if not key.startswith("backups/")}

    def wipe(self, *, objects: bool = True) -> None:
        """Empty the registry, and its storage."""
        for table in ("model_pins", "models", "recipes", "garbage"):
            self.connection.execute(f"delete from {table}")
        if objects:
            for key in self.objects():
                self.storage.delete(key)

    def _preview(self, shade: int) -> tuple[str, str, int, str]:
        data = picture(shade)
        sha256 = hashlib.sha256(data).hexdigest()
        self.storage.put(preview_key(sha256), data)
        return sha256, "image/webp", len(data), preview_key(sha256)


@pytest.fixture
def registry(conn: Connection, storage: Storage, tmp_path: Path) -> Registry:
    """Return an empty registry."""
    return Registry(conn, storage, tmp_path)


@pytest.fixture
def filled(registry: Registry) -> Callable[[], Registry]:
    """Return a way to fill the registry with a bit of everything."""

    def fill() -> Registry:
        mark = {"favourite": True, "rating": 4, "active": True, "position": 1, "weight": 0.7}
        frame = Facts(tags=["border"], trigger_words=["framed"], description="A frame.", weight=0.8, aliases=["rahmen"])
        registry.add(1, "frame", frame, mark=mark, shade=10)
        registry.add(2, "frame@2", Facts(owner="ann", visibility="private"), shade=10)
        registry.add(3, "dusk", Facts(owner="bob", visibility="private", allowed_keys=["k"]))
        registry.add_recipe("Framed", "a circle", shade=20)
        registry.add_recipe("Bob's", "a square", owner="bob")
        return registry

    return fill
