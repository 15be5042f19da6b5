"""What a fleet answers about fetching models and sending files."""

from datetime import datetime
from uuid import UUID

from client.views import View

#: A download or a look-up stays so unless a person does something.
ENDED = frozenset({"succeeded", "failed", "cancelled"})


class DownloadView(View):
    """A model that is fetched, or was."""

    id: UUID
    owner: str
    source: str
    #: queued, running, paused, succeeded, failed, cancelled.
    state: str
    name: str | None = None
    files: int = 0
    bytes_done: int
    bytes_total: int | None
    #: The entry that it became, and what a job names it by.
    model: UUID | None
    ref: str | None
    #: Why it failed, or why it waits.
    error_code: str | None
    error_message: str | None
    created_at: datetime
    finished_at: datetime | None


class LookupView(View):
    """Entries that are looked up, and how far that is."""

    id: UUID
    state: str
    total: int
    done: int
    #: Entries that CivitAI knows, and those of which something was written down.
    found: int
    changed: int
    error_code: str | None
    error_message: str | None


class FileUploadView(View):
    """A file that arrives in pieces."""

    id: UUID
    bytes: int
    received: int
    model: UUID | None


class TakenInView(View):
    """The entry that a file became."""

    id: UUID
    name: str
    version: str
    #: What a job names it by.
    ref: str
    kind: str
    family: str
    variant: str
    visibility: str
    tags: list[str]
    trigger_words: list[str]
    sha256: str | None
    bytes: int
