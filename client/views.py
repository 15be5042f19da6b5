"""What a fleet answers, as far as a client needs it; what newer servers add is ignored."""

from datetime import datetime
from typing import Any, Generic, TypeVar
from uuid import UUID

from pydantic import BaseModel, ConfigDict

from jobs.contract import Progress

Item = TypeVar("Item")
#: A job says nothing after one of these.
FINAL_EVENTS = frozenset({"succeeded", "failed", "cancelled"})


class View(BaseModel):
    """One answer, or a part of one."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Page(View, Generic[Item]):
    """A part of a list; `next_cursor` asks for the next one."""

    items: list[Item]
    next_cursor: str | None = None


class Event(View):
    """One thing that happened to a job."""

    job: UUID
    epoch: int
    seq: int
    #: queued, started, progress, preview, image, requeued, succeeded, failed, cancelled.
    type: str
    at: datetime
    data: dict[str, Any]

    @property
    def id(self) -> str:
        """Return what `Last-Event-ID` takes."""
        return f"{self.epoch}-{self.seq}"


class UploadView(View):
    """A picture that was taken in."""

    #: What requests name it by: `upload:<id>`.
    id: str
    sha256: str
    mime: str
    width: int
    height: int
    bytes: int


class BatchView(View):
    """A batch and how far it is."""

    id: UUID
    #: active, ended.
    state: str
    size: int
    created_at: datetime | None = None
    #: State to the number of jobs in it.
    counts: dict[str, int]
    progress: Progress
    eta_s: float | None = None
    #: Ids in the order of the request; only in the answer to the submit.
    jobs: list[UUID] = []


class ResultView(View):
    """One picture of the gallery."""

    job: UUID
    index: int
    task: str
    model: str
    prompt: str
    labels: dict[str, str]
    seed: int
    width: int
    height: int
    mime: str
    bytes: int
    sha256: str
    url: str
    thumbnail_url: str
    created_at: datetime
    finished_at: datetime


class ResultDetail(ResultView):
    """One picture, with what it was drawn from."""

    worker: str | None = None
    seconds: float | None = None
    request: dict[str, Any]


class SignedUrl(View):
    """A path that needs no key."""

    url: str
    expires_at: datetime


class WorkerView(View):
    """A worker and how it does."""

    name: str
    state: str
    online: bool
    host: str
    device: str
    device_name: str
    hardware: str
    serves: list[str]
    tags: list[str]
    tasks: list[str]
    memory_bytes: int
    engine: str
    version: str
    warm: list[str]
    loads: int
    current: list[UUID]
    started_at: datetime
    seen_at: datetime


class QueueView(View):
    """A queue: what waits, what runs, who serves it."""

    name: str
    queued: int
    running: int
    oldest_wait_s: float | None
    workers: int


class ModelView(View):
    """A checkpoint and what a request may ask of it."""

    name: str
    title: str
    kind: str
    family: str
    variant: str
    variant_title: str = ""
    tasks: list[str]
    #: `classifier_free`, `embedded` or `none`.
    guidance: str = "classifier_free"
    takes_negative_prompt: bool = True
    reads_control: bool = False
    native_size: int
    text_width: int | None = None
    #: Of the network's first layer.
    width: int | None = None
    size_step: int
    min_side: int
    max_side: int
    default_steps: int
    default_guidance_scale: float
    default_scheduler: str
    fingerprint: str
    bytes: int
    is_default: bool


class AdapterView(View):
    """A LoRA, ControlNet, embedding, VAE, upscaler, or the weights of a preprocessor."""

    name: str
    title: str
    kind: str
    family: str
    variant: str
    fingerprint: str
    bytes: int
    rank: int | None = None
    scale: int | None = None
    vectors: int | None = None
    text_width: int | None = None
    #: Of the network's first layer.
    width: int | None = None


class KeyView(View):
    """An API key without its secret."""

    id: str
    owner: str
    name: str
    scopes: list[str]
    created_at: datetime
    last_used_at: datetime | None
    revoked_at: datetime | None
    retention_days: float | None = None


class CreatedKey(KeyView):
    """A new API key with its text, shown this once."""

    key: str


class RecommendedAdapter(View):
    """An entry of the library that is recommended."""

    id: UUID
    ref: str
    kind: str
    family: str
    trigger_words: list[str] = []
    weight: float | None = None


class SourceOpinion(View):
    """What one source says of an entry."""

    score: float
    why: str
    exact: bool = True


class Recommendation(View):
    """An entry, how well it fits (0 to 1), and why."""

    adapter: RecommendedAdapter
    score: float
    why: str
    sources: dict[str, SourceOpinion]


class SourceReport(View):
    """What became of one source."""

    state: str
    share: float
    why: str


class Recommendations(View):
    """Entries, the best first, and what the sources say of themselves."""

    items: list[Recommendation]
    sources: dict[str, SourceReport]
