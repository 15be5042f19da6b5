"""Recipes and archives of a fleet, over HTTP."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Final
from urllib.parse import quote

from client.connection import Connection

_CHUNK: Final = 1024 * 1024

Document = dict[str, Any]


class Archives:
    """Compose, keep recipes, export, import and back up; documents are as the API describes them."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def compose(self, wanted: Mapping[str, Any]) -> Document:
        """Turn adapters into a prompt, and with `submit` into a job."""
        return self._ask("POST", "/v1/compose", dict(wanted))

    def recipes(self, **query: str) -> list[Document]:
        """Return all recipes that one sees, newest first."""
        found: list[Document] = []
        while True:
            page = self._connection.ask("GET", "/v1/recipes", params=query).json()
            found += page["items"]
            if page["next_cursor"] is None:
                return found
            query["cursor"] = page["next_cursor"]

    def recipe(self, recipe: str) -> Document:
        """Return a recipe by its id."""
        return self._ask("GET", f"/v1/recipes/{quote(recipe, safe='')}")

    def create_recipe(self, wanted: Mapping[str, Any]) -> Document:
        """Keep a recipe."""
        return self._ask("POST", "/v1/recipes", dict(wanted))

    def recipe_of_picture(self, wanted: Mapping[str, Any]) -> Document:
        """Read a recipe out of a picture, and keep it unless it is a dry run."""
        return self._ask("POST", "/v1/recipes/from-picture", dict(wanted))

    def generate_recipe(self, recipe: str, changes: Mapping[str, Any]) -> Document:
        """Draw a recipe, and return the job."""
        return self._ask("POST", f"/v1/recipes/{quote(recipe, safe='')}/generate", {"changes": dict(changes)})

    def delete_recipe(self, recipe: str) -> None:
        """Delete a recipe."""
        self._connection.ask("DELETE", f"/v1/recipes/{quote(recipe, safe='')}", repeatable=False)

    def estimate(self, wanted: Mapping[str, Any]) -> Document:
        """Say how large an export would be."""
        return self._ask("POST", "/v1/archives/estimate", dict(wanted))

    def export(self, wanted: Mapping[str, Any], to: Path) -> Iterator[int]:
        """Write an export to a file, which appears whole or not at all, and yield the bytes written so far."""
        return self._fetch("POST", "/v1/archives/export", to, dict(wanted))

    def import_(self, file: Path, *, dry_run: bool = False, conflict: str = "skip") -> Document:
        """Import an archive, and return what became of each entry."""
        params = {"dry_run": str(dry_run).lower(), "conflict": conflict}
        headers = {"content-type": "application/zip", "content-length": str(file.stat().st_size)}
        with (
            file.open("rb") as opened,
            self._connection.transfer(
                "POST", "/v1/archives/import", content=_chunks(opened), params=params, headers=headers
            ) as answer,
        ):
            answer.read()
            return dict(answer.json())

    def backups(self) -> list[Document]:
        """Return all backups, newest first."""
        return list(self._ask("GET", "/v1/archives/backups")["items"])

    def back_up(self, files: str = "reference") -> Document:
        """Make a backup, and return it when it is made."""
        return self._ask("POST", "/v1/archives/backups", {"files": files})

    def verify(self, backup: str) -> Document:
        """Read a backup to its end, and say whether it is sound."""
        return self._ask("POST", f"/v1/archives/backups/{quote(backup, safe='')}/verify")

    def restore(self, backup: str) -> Document:
        """Make the library what it was."""
        return self._ask("POST", f"/v1/archives/backups/{quote(backup, safe='')}/restore")

    def delete_backup(self, backup: str) -> None:
        """Delete a backup."""
        self._connection.ask("DELETE", f"/v1/archives/backups/{quote(backup, safe='')}", repeatable=False)

    def fetch_backup(self, backup: str, to: Path) -> Iterator[int]:
        """Write a backup to a file, and yield the bytes written so far."""
        return self._fetch("GET", f"/v1/archives/backups/{quote(backup, safe='')}/content", to)

    def schedule(self) -> Document:
        """Return when backups are made by themselves."""
        return self._ask("GET", "/v1/archives/schedule")

    def set_schedule(self, wanted: Mapping[str, Any]) -> Document:
        """Set when backups are made by themselves."""
        return self._ask("PUT", "/v1/archives/schedule", dict(wanted))

    def _ask(self, method: str, path: str, body: object = None) -> Document:
        # What makes, verifies or restores takes what time it takes, and is not done twice.
        with self._connection.transfer(method, path, body=body) as answer:
            answer.read()
            return dict(answer.json())

    def _fetch(self, method: str, path: str, to: Path, body: object = None) -> Iterator[int]:
        draft = to.with_name(f"{to.name}.part")
        written = 0
        try:
            with self._connection.transfer(method, path, body=body) as answer, draft.open("wb") as file:
                for chunk in answer.iter_bytes(_CHUNK):
                    file.write(chunk)
                    written += len(chunk)
                    yield written
                file.flush()
                os.fsync(file.fileno())
            draft.replace(to)
        finally:
            draft.unlink(missing_ok=True)


def _chunks(file: BinaryIO) -> Iterator[bytes]:
    while chunk := file.read(_CHUNK):
        yield chunk
