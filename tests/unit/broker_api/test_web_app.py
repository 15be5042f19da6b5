"""The built application as it is served: addresses, encodings, caching, policy; and what stands there without a build."""

import gzip
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from broker_api.application import create_application
from broker_api.web_app import VIEWS, load_web_app
from infra.settings import Settings

SCRIPT = b"export const answer = 42"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder as a build leaves it."""
    built = tmp_path / "app"
    (built / "assets").mkdir(parents=True)
    (built / "index.html").write_bytes(b"<!doctype html><title>app</title>")
    (built / "sw.js").write_bytes(b"// worker")
    (built / "assets" / "main-1a2b.js").write_bytes(SCRIPT)
    (built / "assets" / "main-1a2b.js.gz").write_bytes(gzip.compress(SCRIPT))
    (built / "notes.secret").write_bytes(b"not for the web")
    return built


def _application(folder: Path) -> Starlette:
    def never() -> Any:
        raise AssertionError("pages need no services")

    application = create_application(Settings(_env_file=None), never)
    application.state.services = None
    application.state.web_app = load_web_app(folder)
    return application


@pytest.mark.parametrize("path", ["/", *(f"/{view}" for view in VIEWS), "/gallery/0199/0"])
def test_every_view_has_an_address(folder: Path, path: str) -> None:
    """A link into the application opens it; it is asked for anew each time, and nothing but its own scripts may run."""
    client = TestClient(_application(folder))
    answer = client.get(path)
    assert answer.status_code == 200
    assert "<title>app</title>" in answer.text
    assert answer.headers["cache-control"] == "no-cache"
    policy = answer.headers["content-security-policy"]
    assert "script-src 'self';" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert client.get(path, headers={"if-none-match": answer.headers["etag"]}).status_code == 304


def test_hashed_files_are_kept_for_ever(folder: Path) -> None:
    """They come compressed to those that read it, plain to others, with their own type."""
    client = TestClient(_application(folder))
    packed = client.get("/assets/main-1a2b.js", headers={"accept-encoding": "gzip"})
    plain = client.get("/assets/main-1a2b.js", headers={"accept-encoding": "identity"})
    assert packed.content == plain.content == SCRIPT
    assert packed.headers["content-encoding"] == "gzip"
    assert "content-encoding" not in plain.headers
    assert "immutable" in packed.headers["cache-control"]
    assert packed.headers["content-type"].startswith("text/javascript")
    assert client.get("/sw.js").headers["cache-control"] == "no-cache"


@pytest.mark.parametrize(
    "path", ["/assets/nothing.js", "/assets/../notes.secret", "/assets/%2e%2e/notes.secret", "/unheard-of"]
)
def test_nothing_else_is_served(folder: Path, path: str) -> None:
    """What the build did not make is not found, as everywhere in the API."""
    answer = TestClient(_application(folder)).get(path)
    assert answer.status_code == 404
    assert answer.json()["code"] == "not_found"


def test_page_says_how_to_get_the_application(tmp_path: Path) -> None:
    """Without a build the landing page stands at `/` and names the command; the views say the same."""
    client = TestClient(_application(tmp_path))
    assert "make web" in client.get("/").text
    answer = client.get("/draw")
    assert answer.status_code == 404
    assert "make web" in answer.json()["detail"]
