"""Ask a source what there is to fetch."""

from dataclasses import dataclass
from email.message import Message
from pathlib import PurePosixPath
from typing import Final
from urllib.parse import urlsplit

import httpx

from models_registry.pulls.civitai import plan_civitai
from models_registry.pulls.failures import FileRefused
from models_registry.pulls.hub import plan_hub
from models_registry.pulls.plans import Facts, Plan, WantedFile, usable_name
from models_registry.pulls.sources import CivitaiSource, HubSource, UrlSource, file_name, parse_source
from models_registry.pulls.web import Web
from models_registry.reading.weights import PICKLE_SUFFIXES

_DEFAULT: Final = "model.safetensors"


@dataclass(frozen=True)
class Sites:
    """Where the hub and CivitAI, or their mirrors, are."""

    hub: str
    civitai: str


def make_plan(web: Web, sites: Sites, source: str, sha256: str | None = None) -> Plan:
    """Return what to fetch, raising a `PullError`; `sha256` is what the one file must hash to, whatever its source says."""
    parsed = parse_source(source)
    if isinstance(parsed, HubSource):
        plan = plan_hub(web, sites.hub.rstrip("/"), parsed)
    elif isinstance(parsed, CivitaiSource):
        plan = plan_civitai(web, sites.civitai.rstrip("/"), parsed)
    else:
        plan = _plan_url(web, parsed)
    if sha256 is None or plan.is_folder:
        return plan
    return plan.model_copy(update={"files": (plan.files[0].model_copy(update={"sha256": sha256.lower()}),)})


def _plan_url(web: Web, source: UrlSource) -> Plan:
    # One byte is asked for, to learn of the file without fetching it; who sends all of it is not listened to any further.
    with web.open(source.url, {"range": "bytes=0-0"}) as response:
        name = _named(response) or file_name(source.url) or _DEFAULT
        size = _size(response)
    suffix = PurePosixPath(name).suffix.lower()
    if suffix in PICKLE_SUFFIXES:
        raise FileRefused("The file is a pickle, which can run code when it is opened.", "pickle_refused")
    return Plan(
        name=usable_name(PurePosixPath(name).stem) or "model",
        is_folder=False,
        files=(WantedFile(name=_DEFAULT, url=source.url, bytes=size),),
        # What stands behind the question mark may be a key.
        facts=Facts(source=urlsplit(source.url)._replace(query="", fragment="").geturl()),
    )


def _named(response: httpx.Response) -> str:
    """Return the file name that an answer gives, in either of the two spellings; empty where it gives none."""
    header = Message()
    header["content-disposition"] = response.headers.get("content-disposition", "")
    return PurePosixPath((header.get_filename() or "").replace("\\", "/")).name


def _size(response: httpx.Response) -> int | None:
    _, slash, total = response.headers.get("content-range", "").partition("/")
    text = total if slash else response.headers.get("content-length", "")
    return int(text) if text.isascii() and text.isdigit() and response.is_success else None
