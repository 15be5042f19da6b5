"""What must be there before the examples of the library's routes can run, and how each is then sent."""

import itertools
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

import reference_models
from models_registry.entries import Kind
from tests.lora_file import lora_bytes
from tests.picture_files import png

TAGS = frozenset({"library", "downloads", "archives"})
_TUS = {"tus-resumable": "1.0.0"}
_ADAPTER: dict[str, Any] = {"kind": Kind.LORA, "native_size": 0, "latent_factor": 0, "latent_channels": 0}


class LibraryExamples:
    """Make one thing per route, so that a route that deletes takes nothing from another."""

    def __init__(self, world: Any) -> None:
        self._world = world
        self._numbers = itertools.count(1)
        world.add_model("frame", **_ADAPTER)
        folder = world.home / "models"
        folder.mkdir()
        (folder / "dusk.safetensors").write_bytes(lora_bytes())
        shutil.copytree(Path(reference_models.__file__).parent / "shapes-sd15", folder / "whole")

    def send(self, client: httpx.Client, endpoint: Any) -> httpx.Response:
        """Send a route's example about a thing of its own."""
        path = endpoint.path.replace("{id}", self._thing(client, endpoint)).replace("{n}", "0")
        return client.request(endpoint.method, path, **self._content(client, endpoint))

    def _thing(self, client: httpx.Client, endpoint: Any) -> str:
        if "{id}" not in endpoint.path:
            return ""
        makers: dict[str, Callable[[httpx.Client, str], str]] = {
            "/v1/adapters/": self._adapter,
            "/v1/models/": self._model,
            "/v1/recipes/": self._recipe,
            "/v1/downloads/": self._download,
            "/v1/library/lookups/": self._lookup,
            "/v1/library/scans/": lambda client, _: _made(client.post("/v1/library/scans", json={})),
            "/v1/archives/backups/": lambda client, _: _made(client.post("/v1/archives/backups", json={})),
            "/v1/files/": self._file,
        }
        (maker,) = (made for start, made in makers.items() if endpoint.path.startswith(start))
        return maker(client, endpoint.name)

    def _adapter(self, client: httpx.Client, route: str) -> str:
        name = f"adapter-{next(self._numbers)}"
        self._world.add_model(name, **_ADAPTER)
        return _with_preview(client, "adapters", name, route)

    def _model(self, client: httpx.Client, route: str) -> str:
        name = f"model-{next(self._numbers)}"
        self._world.add_model(name)
        return _with_preview(client, "models", name, route)

    def _recipe(self, client: httpx.Client, _: str) -> str:
        number = next(self._numbers)
        picture = client.post("/v1/uploads", content=png(16, 16)).json()["id"]
        recipe = {"name": f"recipe {number}", "prompt": f"circle {number}", "preview": f"upload:{picture}"}
        return _made(client.post("/v1/recipes", json=recipe))

    def _download(self, client: httpx.Client, route: str) -> str:
        source = f"https://models.example/{next(self._numbers)}.safetensors"
        made = _made(client.post("/v1/downloads", json={"source": source, "name": f"hat-{next(self._numbers)}"}))
        if route == "resumeDownload":
            client.post(f"/v1/downloads/{made}/pause").raise_for_status()
        if route == "readDownloadEvents":
            client.post(f"/v1/downloads/{made}/cancel").raise_for_status()
        return made

    def _lookup(self, client: httpx.Client, route: str) -> str:
        made = _made(client.post("/v1/library/lookups", json={}))
        if route == "readLookupEvents":
            # Its events end with it.
            self._world.connection.execute(
                "update library_lookups set state = 'succeeded', finished_at = now() where id = %s", (made,)
            )
        return made

    def _file(self, client: httpx.Client, _: str) -> str:
        answer = client.post("/v1/files", headers={**_TUS, "upload-length": "3"})
        return _made(answer)

    def _doubled(self, client: httpx.Client) -> str:
        names = [f"double-{next(self._numbers)}" for _ in range(2)]
        for name in names:
            self._world.add_model(name, **_ADAPTER)
        self._world.connection.execute("update models set sha256 = %s where name = any (%s)", ("ab" * 32, names))
        return str(client.get(f"/v1/adapters/{names[0]}").json()["id"])

    def _content(self, client: httpx.Client, endpoint: Any) -> dict[str, Any]:
        if endpoint.name == "uploadAdapter":
            return {"data": {"name": "uploaded"}, "files": {"file": lora_bytes(2.0)}}
        if endpoint.name == "importArchive":
            archive = client.post("/v1/archives/export", json={"filter": {"kinds": ["lora"]}, "files": "reference"})
            return {"content": archive.content, "headers": {"content-type": "application/zip"}}
        if endpoint.path.startswith("/v1/files"):
            headers = {**_TUS, **({"upload-length": "3"} if endpoint.name == "createFile" else {})}
            if endpoint.name != "appendFile":
                return {"headers": headers}
            headers |= {"upload-offset": "0", "content-type": "application/offset+octet-stream"}
            return {"content": b"abc", "headers": headers}
        body = dict(endpoint.body.example) if endpoint.body else None
        changes: dict[str, Callable[[], dict[str, Any]]] = {
            "addAdapter": lambda: {"path": str(self._world.home / "models" / "dusk.safetensors")},
            "addModel": lambda: {"path": str(self._world.home / "models" / "whole"), "name": "whole"},
            "keepDuplicate": lambda: {"id": self._doubled(client)},
        }
        return {"json": body if body is None else body | changes.get(endpoint.name, dict)()}


def _with_preview(client: httpx.Client, shelf: str, name: str, route: str) -> str:
    if "Preview" in route and not route.startswith("add"):
        picture = client.post("/v1/uploads", content=png(16, 16)).json()["id"]
        client.post(f"/v1/{shelf}/{name}/previews", json={"image": f"upload:{picture}"}).raise_for_status()
    return name


def _made(answer: httpx.Response) -> str:
    answer.raise_for_status()
    return str(answer.json()["id"])
