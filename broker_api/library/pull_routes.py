"""The part of the route table about getting models, and what is said of them: downloads and look-ups."""

from typing import Final

from broker_api.endpoints import Answer, Body, Endpoint, parse_json
from broker_api.library.downloads import (
    CreateDownload,
    DownloadPage,
    DownloadQuery,
    cancel_download,
    create_download,
    follow_download,
    list_all_downloads,
    pause_download,
    read_one_download,
    resume_download,
)
from broker_api.library.lookups import CreateLookup, create_lookup, follow_lookup, read_one_lookup
from broker_api.library.pull_refusals import AddressRefused, DownloadEnded, SourceInvalid, TooManyDownloads
from broker_api.refusals import NotFound
from jobs.cursors import CursorInvalid
from models_registry.pulls.lookups import Lookup
from models_registry.pulls.orders import Download

_EXAMPLE: Final = {
    "source": "civitai:123@456",
    "name": "red-hats",
    "tags": ["hat"],
    "visibility": "private",
}

DOWNLOAD_ENDPOINTS: Final = (
    Endpoint(
        "POST", "/v1/downloads", "createDownload", "Fetch a model", "downloads", create_download,
        description=(
            "From the Hugging Face hub, from CivitAI, or from any https address of one safetensors file. It is fetched in the background, "
            "goes on where it was broken off, is checked against the hash that its source promises, and becomes an entry of yours."
        ),
        body=Body(models=(CreateDownload,), parse=parse_json(CreateDownload), example=_EXAMPLE),
        answers=(Answer(202, "Queued.", Download, headers={"Location": "Path of the download."}),),
        errors=(SourceInvalid, AddressRefused, TooManyDownloads),
    ),
    Endpoint(
        "GET", "/v1/downloads", "listDownloads", "List downloads, newest first", "downloads", list_all_downloads,
        query=DownloadQuery, answers=(Answer(200, "A page of downloads.", DownloadPage),), errors=(CursorInvalid,),
    ),
    Endpoint(
        "GET", "/v1/downloads/{id}", "readDownload", "Read a download", "downloads", read_one_download,
        answers=(Answer(200, "The download.", Download),), errors=(NotFound,),
    ),
    Endpoint(
        "GET", "/v1/downloads/{id}/events", "readDownloadEvents", "Follow a download", "downloads", follow_download,
        description="Server-sent events: `event` is its state, `data` the download; one whenever it has changed. Ends with the download.",
        answers=(Answer(200, "The events.", media_type="text/event-stream"),), errors=(NotFound,),
    ),
    Endpoint(
        "POST", "/v1/downloads/{id}/pause", "pauseDownload", "Stop a download for now", "downloads", pause_download,
        answers=(Answer(200, "What is there stays.", Download),), errors=(NotFound, DownloadEnded),
    ),
    Endpoint(
        "POST", "/v1/downloads/{id}/resume", "resumeDownload", "Go on with a download", "downloads", resume_download,
        description="With one that was paused, or that failed.",
        answers=(Answer(200, "It waits for its turn.", Download),), errors=(NotFound, DownloadEnded),
    ),
    Endpoint(
        "POST", "/v1/downloads/{id}/cancel", "cancelDownload", "Stop a download for good", "downloads", cancel_download,
        answers=(Answer(200, "What is there is removed.", Download),), errors=(NotFound, DownloadEnded),
    ),
    Endpoint(
        "POST", "/v1/library/lookups", "createLookup", "Look entries up on CivitAI", "downloads", create_lookup,
        description=(
            "By the SHA-256 of their files: trigger words, base model, tags, description, licence and pictures, each written down where "
            "nobody has written anything. Answers are remembered, also that a file is unknown there."
        ),
        body=Body(
            models=(CreateLookup,), parse=parse_json(CreateLookup), example={"entries": ["01990000-0000-7000-8000-000000000000"]},
        ),
        answers=(Answer(202, "Queued.", Lookup, headers={"Location": "Path of the look-up."}),),
    ),
    Endpoint(
        "GET", "/v1/library/lookups/{id}", "readLookup", "Read how far a look-up is", "downloads", read_one_lookup,
        answers=(Answer(200, "The look-up.", Lookup),), errors=(NotFound,),
    ),
    Endpoint(
        "GET", "/v1/library/lookups/{id}/events", "readLookupEvents", "Follow a look-up", "downloads", follow_lookup,
        description="Server-sent events: `event` is its state, `data` the look-up; one whenever it has changed. Ends with the look-up.",
        answers=(Answer(200, "The events.", media_type="text/event-stream"),), errors=(NotFound,),
    ),
)  # fmt: skip
