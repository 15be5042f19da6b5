"""The part of the route table about getting models: downloads."""

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
from broker_api.library.pull_refusals import AddressRefused, DownloadEnded, SourceInvalid, TooManyDownloads
from broker_api.refusals import NotFound
from jobs.cursors import CursorInvalid
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
)  # fmt: skip
