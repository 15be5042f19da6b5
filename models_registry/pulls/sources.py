"""Understand what a person names as the source of a model; pure.

`owner/repo`, `owner/repo:path/in/it.safetensors@revision`   the Hugging Face hub
`civitai:123`, `civitai:123@456`, `urn:air:sdxl:lora:civitai:123@456`   CivitAI: a model, or one version of it
an address of either site, or any other https address of one file
"""

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qs, unquote, urlsplit

from models_registry.pulls.failures import SourceInvalid

LONGEST: Final = 2000
LONGEST_PATH: Final = 500
_MOST_DIGITS: Final = 12
_REPO: Final = r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}"
_HUB: Final = re.compile(rf"(?:hf:|huggingface:)?(?P<repo>{_REPO})(?::(?P<file>[^@]+))?(?:@(?P<revision>[^@]+))?")
_CIVITAI: Final = re.compile(r"civitai:(?P<model>\d{1,12})(?:@(?P<version>\d{1,12}))?", re.ASCII)
_AIR: Final = re.compile(
    r"(?:urn:)?(?:air:)(?P<ecosystem>[a-z0-9_-]+):(?P<type>[a-z0-9_-]+):(?P<source>[a-z0-9_-]+):(?P<id>[^@:]+)"
    r"(?:@(?P<version>[^:.]+))?(?::[^.]*)?(?:\.[a-z0-9]+)?",
    re.ASCII | re.IGNORECASE,
)
_CIVITAI_MODEL: Final = re.compile(r"/models/(\d{1,12})(?:/|$)", re.ASCII)
_CIVITAI_VERSION: Final = re.compile(
    r"/(?:api/download/models|api/v1/model-versions|model-versions)/(\d{1,12})/?", re.ASCII
)
_HUB_FILE: Final = re.compile(rf"/(?P<repo>{_REPO})/(?:blob|resolve|raw)/(?P<revision>[^/]+)/(?P<file>.+)")
_HUB_PAGE: Final = re.compile(rf"/(?P<repo>{_REPO})(?:/tree/(?P<revision>[^/]+))?/?")
_REVISION: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,199}")
HUB_HOSTS: Final = frozenset({"huggingface.co", "www.huggingface.co", "hf.co"})
CIVITAI_HOSTS: Final = frozenset({"civitai.com", "www.civitai.com", "civitai.red", "www.civitai.red"})


@dataclass(frozen=True)
class HubSource:
    """A repository of the hub, or one file of it."""

    repo: str
    file: str | None = None
    revision: str = "main"


@dataclass(frozen=True)
class CivitaiSource:
    """A version of a CivitAI model; the newest one where only the model is named."""

    model: int | None = None
    version: int | None = None


@dataclass(frozen=True)
class UrlSource:
    """One file at an address."""

    url: str


Source = HubSource | CivitaiSource | UrlSource


def parse_source(text: str) -> Source:
    """Return what a text names, raising `SourceInvalid`; whether it exists is only known once it is asked for."""
    if not 0 < len(text) <= LONGEST or not text.isprintable() or text != text.strip():
        raise SourceInvalid(f"A source is a text of 1 to {LONGEST} printable characters.")
    if "://" in text:
        return _of_url(text)
    if text.lower().startswith(("urn:", "air:")):
        return _of_air(text)
    found = _CIVITAI.fullmatch(text)
    if found:
        return CivitaiSource(int(found["model"]), None if found["version"] is None else int(found["version"]))
    found = _HUB.fullmatch(text)
    if found:
        return _hub(found["repo"], found["file"], found["revision"])
    raise SourceInvalid(
        f"{text[:100]!r} is no source: use `owner/repo[:file][@revision]`, `civitai:<model>[@<version>]`, an AIR, or an https address."
    )


def file_name(url: str) -> str:
    """Return the last part of an address's path, empty where there is none."""
    return unquote(urlsplit(url).path.rpartition("/")[2])


def _of_air(text: str) -> Source:
    found = _AIR.fullmatch(text)
    if found is None:
        raise SourceInvalid(f"{text[:100]!r} is no AIR: it looks like urn:air:sdxl:lora:civitai:123@456.")
    place, name, version = found["source"].lower(), found["id"], found["version"]
    if place == "civitai" and name.isascii() and name.isdigit() and (version is None or version.isdigit()):
        return CivitaiSource(int(name), None if version is None else int(version))
    if place == "huggingface" and re.fullmatch(_REPO, name):
        return _hub(name, None, version)
    raise SourceInvalid(f"An AIR of {place[:40]!r} cannot be fetched: only those of civitai and huggingface.")


def _of_url(text: str) -> Source:
    try:
        parts = urlsplit(text)
        host, port = (parts.hostname or "").lower(), parts.port
    except ValueError:
        raise SourceInvalid(f"{text[:100]!r} is no address.") from None
    if parts.scheme not in {"https", "http"} or not host:
        raise SourceInvalid("An address begins with https:// and names a host.")
    if parts.username is not None or parts.password is not None:
        raise SourceInvalid("An address must not hold a user name or password: it is shown in lists.")
    if port is None and host in HUB_HOSTS:
        return _of_hub_page(unquote(parts.path))
    if port is None and host in CIVITAI_HOSTS:
        return _of_civitai_page(parts.path, parts.query)
    return UrlSource(text)


def _of_hub_page(path: str) -> HubSource:
    found = _HUB_FILE.fullmatch(path)
    if found:
        return _hub(found["repo"], found["file"], found["revision"])
    found = _HUB_PAGE.fullmatch(path)
    if found is None:
        raise SourceInvalid("The address names no repository of models on the hub.")
    return _hub(found["repo"], None, found["revision"])


def _of_civitai_page(path: str, query: str) -> CivitaiSource:
    found = _CIVITAI_VERSION.match(path)
    if found:
        return CivitaiSource(None, int(found[1]))
    found = _CIVITAI_MODEL.search(path)
    if found is None:
        raise SourceInvalid("The address names no model on CivitAI.")
    version = parse_qs(query).get("modelVersionId", [""])[0]
    if version and not (version.isascii() and version.isdigit() and len(version) <= _MOST_DIGITS):
        raise SourceInvalid("The address has a modelVersionId that is no number.")
    return CivitaiSource(int(found[1]), int(version) if version else None)


def _hub(repo: str, file: str | None, revision: str | None) -> HubSource:
    if revision is not None and (not _REVISION.fullmatch(revision) or ".." in revision):
        raise SourceInvalid(f"{revision[:100]!r} is no revision.")
    if file is not None and not is_inner_path(file):
        raise SourceInvalid(f"{file[:100]!r} is no path inside a repository.")
    return HubSource(repo, file, revision or "main")


def is_inner_path(path: str) -> bool:
    """Tell whether a path that somebody else wrote stays below the folder it is put in."""
    parts = path.split("/")
    return (
        0 < len(path) <= LONGEST_PATH
        and path.isprintable()
        and "\\" not in path
        and all(part not in {"", ".", ".."} and not part.startswith(".") for part in parts)
    )
