"""Talk to a fleet over HTTP: submit jobs, follow them, fetch their pictures.

with Client("http://127.0.0.1:8420", key) as fleet:
    job = fleet.submit({"prompt": "a red circle on a blue background", "seed": 7})
    job = fleet.wait(job.id)
    Path("out.png").write_bytes(fleet.picture(job.id, job.images[0]))
"""

import hashlib
import re
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from http import HTTPStatus
from typing import Any, Self, TypeVar
from urllib.parse import quote
from uuid import UUID

from pydantic import BaseModel

from client.answers import Answer, segment, understood
from client.archives import Archives
from client.connection import Connection
from client.errors import FleetUnreachable, PictureDamaged, RequestUnusable, Unavailable
from client.library import Library, Shelf
from client.model_files import ModelFiles
from client.progress import Progress
from client.pulls import Pulls
from client.shelves import Shelves
from client.sse import frames
from client.views import (
    FINAL_EVENTS,
    AdapterView,
    BatchView,
    CreatedKey,
    Event,
    KeyView,
    ModelView,
    Page,
    QueueView,
    Recommendations,
    ResultDetail,
    ResultView,
    SignedUrl,
    UploadView,
    WorkerView,
)
from jobs.contract import Image, JobRequest, JobView

_EVENT_ID = re.compile(r"(\d{1,10})-(\d{1,10})", re.ASCII)
_BEFORE_ALL = (-1, -1)
#: Beyond the time that the server was asked to wait.
_WAIT_MARGIN = 30.0
_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 2.0
_LONGEST_PAGE = "1000"

Listed = TypeVar("Listed", bound=BaseModel)


class _EndSeenError(Exception):
    """The reader has seen the end of the job already."""


class Client:
    """Hold a connection to one fleet; close it, or use it in a `with` statement."""

    def __init__(self, url: str, key: str | None, *, timeout: float = 30.0, patience: float = 60.0) -> None:
        """Prepare to talk to the fleet at `url`; nothing is sent yet.

        `timeout` is how many seconds an answer may take, `patience` for how many a fleet that has answered may then be away.
        """
        self._connection = Connection(url, key, timeout=timeout, patience=patience)
        self.url = self._connection.url
        #: Fetches models, and looks up what is there.
        self.pulls = Pulls(self._connection)
        self.shelves = Shelves(self._connection)
        #: Sends models' files.
        self.model_files = ModelFiles(self._connection)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def submit(
        self, request: JobRequest | Mapping[str, Any], *, idempotency_key: str | None = None, wait: float | None = None
    ) -> JobView:
        """Submit a job once, however often it must be sent, and return it.

        With `wait` the server answers when the job has ended, but after so many seconds at most.
        """
        body = request.model_dump(mode="json", exclude_unset=True) if isinstance(request, BaseModel) else dict(request)
        response = self._connection.ask(
            "POST",
            "/v1/jobs",
            params={} if wait is None else {"wait": f"{wait:g}"},
            body=body,
            headers={"idempotency-key": idempotency_key or uuid.uuid4().hex},
            timeout=None if wait is None else wait + _WAIT_MARGIN,
        )
        return understood(JobView, response.content)

    def read(self, job: UUID | str) -> JobView:
        """Return a job."""
        return self._get(JobView, f"/v1/jobs/{segment(job)}")

    def list(self, *, state: str | None = None, cursor: str | None = None, limit: int | None = None) -> Page[JobView]:
        """Return one page of jobs, newest first."""
        params = {"state": state, "cursor": cursor, "limit": None if limit is None else str(limit)}
        return self._get(Page[JobView], "/v1/jobs", {name: text for name, text in params.items() if text is not None})

    def cancel(self, job: UUID | str) -> JobView:
        """Ask for a job to be stopped and return it: a running one is `cancelled` only when it has really stopped."""
        return understood(JobView, self._connection.ask("POST", f"/v1/jobs/{segment(job)}/cancel").content)

    def change_priority(self, job: UUID | str, priority: int) -> JobView:
        """Give a waiting job another priority, 0 (first) to 9, and return it; refused as `job_not_waiting` once it runs or has ended."""
        body = {"priority": priority}
        return understood(JobView, self._connection.ask("PATCH", f"/v1/jobs/{segment(job)}", body=body).content)

    def delete(self, job: UUID | str) -> None:
        """Delete a finished job and its pictures."""
        self._connection.ask("DELETE", f"/v1/jobs/{segment(job)}", repeatable=False)

    def image(self, job: UUID | str, index: int) -> bytes:
        """Return the bytes of one picture."""
        return self._connection.ask("GET", f"/v1/jobs/{segment(job)}/images/{index}").content

    def picture(self, job: UUID | str, image: Image) -> bytes:
        """Return the bytes of one picture, raising `PictureDamaged` when they are not those that were recorded."""
        found = self.image(job, image.index)
        if hashlib.sha256(found).hexdigest() != image.sha256:
            raise PictureDamaged(f"picture {image.index} of job {job} arrived with other bytes than were recorded")
        return found

    def events(
        self, job: UUID | str, *, after: str | None = None, on_silence: Callable[[], object] | None = None
    ) -> Iterator[Event]:
        """Yield the events of a job, each once and in order, until it has ended; a broken stream is resumed.

        `after` is the id of the last event already seen; `on_silence` is called each time the server says that there is no news.
        """
        last = None if after is None else _order(after)
        last_heard = time.monotonic()
        pause = _FIRST_PAUSE
        while True:
            before = last
            try:
                for event in self._stream(job, last, on_silence):
                    last_heard = time.monotonic()
                    if event is not None:
                        last = (event.epoch, event.seq)
                        yield event
                        if event.type in FINAL_EVENTS:
                            return
            except _EndSeenError:
                return
            except (FleetUnreachable, Unavailable):
                away = time.monotonic() - last_heard
                if not self._connection.has_answered or away > self._connection.patience:
                    raise
            # A server that closes every stream at once must not be asked without pause.
            pause = _FIRST_PAUSE if last != before else min(2 * pause, _LONGEST_PAUSE)
            time.sleep(pause)

    def follow(
        self, *, jobs: Sequence[UUID | str] = (), batches: Sequence[UUID | str] = (), mine: bool = False
    ) -> Iterator[Event]:
        """Yield the events of many jobs over one WebSocket, those of each job once and in order, until all have ended.

        With `mine` all of one's own are followed, those to come too, and it never ends by itself.
        """
        if not (jobs or batches or mine):
            raise RequestUnusable("name jobs or batches, or follow all of your own")
        connection = self._connection
        named = ([segment(each) for each in jobs], [segment(each) for each in batches])
        return iter(Progress(connection.url, connection.key, connection.patience, connection.direct, *named, mine=mine))

    def wait(self, job: UUID | str) -> JobView:
        """Return a job when it has ended."""
        for _ in self.events(job):
            pass
        return self.read(job)

    def upload(self, picture: bytes) -> UploadView:
        """Upload a picture file (PNG, JPEG, WebP) and return it; jobs name it as `upload:<id>`, and the same one is kept once."""
        headers = {"content-type": "application/octet-stream"}
        return understood(
            UploadView, self._connection.ask("POST", "/v1/uploads", content=picture, headers=headers).content
        )

    def replay(self, job: UUID | str, changes: Mapping[str, Any] | None = None) -> JobView:
        """Draw a job again with other fields, and return the new job; None takes a field back to its default."""
        response = self._connection.ask(
            "POST",
            f"/v1/jobs/{segment(job)}/replay",
            body={"changes": dict(changes or {})},
            headers={"idempotency-key": uuid.uuid4().hex},
        )
        return understood(JobView, response.content)

    def submit_batch(
        self,
        jobs: Sequence[Mapping[str, Any]] = (),
        *,
        request: Mapping[str, Any] | None = None,
        matrix: Mapping[str, Sequence[Any]] | None = None,
        idempotency_key: str | None = None,
    ) -> BatchView:
        """Submit many jobs, all or none: a list of requests, or one request and the values that its fields are to take."""
        body = (
            {"jobs": [dict(job) for job in jobs]} if request is None else {"request": dict(request), "matrix": matrix}
        )
        headers = {"idempotency-key": idempotency_key or uuid.uuid4().hex}
        return understood(BatchView, self._connection.ask("POST", "/v1/batches", body=body, headers=headers).content)

    def batches(self, *, cursor: str | None = None, limit: int | None = None) -> Page[BatchView]:
        """Return one page of batches, newest first."""
        params = {"cursor": cursor, "limit": None if limit is None else str(limit)}
        return self._get(
            Page[BatchView], "/v1/batches", {name: text for name, text in params.items() if text is not None}
        )

    def batch(self, batch: UUID | str) -> BatchView:
        """Return how far a batch is."""
        return self._get(BatchView, f"/v1/batches/{segment(batch)}", {"limit": "0"})

    def batch_jobs(self, batch: UUID | str) -> Iterator[JobView]:
        """Yield the jobs of a batch in their order."""
        cursor: str | None = None
        while True:
            page = self._get(
                Page[JobView], f"/v1/batches/{segment(batch)}", {} if cursor is None else {"cursor": cursor}
            )
            yield from page.items
            cursor = page.next_cursor
            if cursor is None:
                return

    def cancel_batch(self, batch: UUID | str) -> BatchView:
        """Ask for all jobs of a batch to be stopped, and return how it stands."""
        return understood(BatchView, self._connection.ask("POST", f"/v1/batches/{segment(batch)}/cancel").content)

    def results(self, **query: str) -> Page[ResultView]:
        """Return one page of pictures, newest first; `query` is that of `GET /v1/results`."""
        return self._get(Page[ResultView], "/v1/results", query)

    def result(self, job: UUID | str, index: int) -> ResultDetail:
        """Return one picture with everything needed to draw it again."""
        return self._get(ResultDetail, f"/v1/results/{segment(job)}/{index}")

    def delete_result(self, job: UUID | str, index: int) -> None:
        """Delete one picture."""
        self._connection.ask("DELETE", f"/v1/results/{segment(job)}/{index}", repeatable=False)

    def thumbnail(self, job: UUID | str, index: int, size: int = 256) -> bytes:
        """Return a smaller copy of a picture, WebP."""
        params = {"thumbnail": str(size)}
        return self._connection.ask("GET", f"/v1/jobs/{segment(job)}/images/{index}", params=params).content

    def signed_url(self, job: UUID | str, index: int, *, seconds: int = 3600) -> str:
        """Return a URL that reads a picture without a key for so long."""
        path = f"/v1/jobs/{segment(job)}/images/{index}/url"
        signed = understood(SignedUrl, self._connection.ask("POST", path, body={"expires_in_s": seconds}).content)
        return f"{self.url}{signed.url}"

    def models(self) -> Page[ModelView]:
        """Return all models that can be asked for, however many requests that takes."""
        return self._whole(Page[ModelView], "/v1/models", {})

    def adapters(self, *, kind: str | None = None, family: str | None = None) -> Page[AdapterView]:
        """Return all LoRAs, ControlNets, embeddings, VAEs, upscalers and annotators, of one kind or family if asked."""
        params = {"kind": kind, "family": family}
        given = {name: text for name, text in params.items() if text is not None}
        return self._whole(Page[AdapterView], "/v1/adapters", given)

    def library(self, shelf: Shelf = "adapters") -> Library:
        """Return a way to speak of the entries of one shelf: `models` are the checkpoints, `adapters` everything else."""
        return Library(self._connection, shelf)

    def archives(self) -> Archives:
        """Return what exports, imports, backs up, composes and keeps recipes."""
        return Archives(self._connection)

    def workers(self) -> Page[WorkerView]:
        """Return the workers, those that are away too."""
        return self._get(Page[WorkerView], "/v1/workers")

    def drain_worker(self, name: str) -> WorkerView:
        """Let a worker take no more jobs until it is resumed; for admins."""
        return understood(WorkerView, self._connection.ask("POST", f"/v1/workers/{quote(name, safe='')}/drain").content)

    def resume_worker(self, name: str) -> WorkerView:
        """Let a worker take jobs again; for admins."""
        return understood(
            WorkerView, self._connection.ask("POST", f"/v1/workers/{quote(name, safe='')}/resume").content
        )

    def queues(self) -> Page[QueueView]:
        """Return the queues."""
        return self._get(Page[QueueView], "/v1/queues")

    def keys(self) -> Page[KeyView]:
        """Return the API keys, revoked ones too; for admins."""
        return self._get(Page[KeyView], "/v1/keys")

    def similar(self, adapter: str, *, sources: str | None = None, limit: int = 10, wait: float = 0) -> Recommendations:
        """Return adapters like one, named by its id or as jobs name it; `sources` are `weights`, `text`, `use`, by commas."""
        return self._recommended("similar", {"adapter": adapter}, sources, limit, wait)

    def together(
        self, adapter: str, *, sources: str | None = None, limit: int = 10, wait: float = 0
    ) -> Recommendations:
        """Return adapters that work together with one."""
        return self._recommended("together", {"adapter": adapter}, sources, limit, wait)

    def suggest(
        self, prompt: str, *, model: str | None = None, sources: str | None = None, limit: int = 10, wait: float = 3
    ) -> Recommendations:
        """Return adapters for a prompt, those alone that fit the model where one is named."""
        query = {"prompt": prompt} if model is None else {"prompt": prompt, "model": model}
        return self._recommended("for-prompt", query, sources, limit, wait)

    def _recommended(
        self, what: str, query: Mapping[str, str], sources: str | None, limit: int, wait: float
    ) -> Recommendations:
        params = {**query, "limit": str(limit), "wait": f"{wait:g}"} | ({} if sources is None else {"sources": sources})
        # The server may wait twice: for its first look, and for the exact comparison.
        timeout = 2 * wait + _WAIT_MARGIN
        answer = self._connection.ask("GET", f"/v1/recommendations/{what}", params=params, timeout=timeout)
        return understood(Recommendations, answer.content)

    def create_key(self, *, owner: str, name: str, scopes: tuple[str, ...] = ("user",)) -> CreatedKey:
        """Create an API key; for admins. Its text is never shown again."""
        body = {"owner": owner, "name": name, "scopes": list(scopes)}
        # Not repeated: the text of a key whose answer was lost would be lost too.
        return understood(CreatedKey, self._connection.ask("POST", "/v1/keys", body=body, repeatable=False).content)

    def revoke_key(self, key: str) -> None:
        """Revoke an API key by its id; for admins."""
        self._connection.ask("DELETE", f"/v1/keys/{segment(key)}")

    def _whole(self, kind: type[Page[Listed]], path: str, params: Mapping[str, str]) -> Page[Listed]:
        """Return all pages of a list as one."""
        whole = self._get(kind, path, {**params, "limit": _LONGEST_PAGE})
        cursor = whole.next_cursor
        while cursor is not None:
            page = self._get(kind, path, {**params, "limit": _LONGEST_PAGE, "cursor": cursor})
            whole.items.extend(page.items)
            cursor = page.next_cursor
        return whole.model_copy(update={"next_cursor": None})

    def _get(self, kind: type[Answer], path: str, params: Mapping[str, str] | None = None) -> Answer:
        return understood(kind, self._connection.ask("GET", path, params=params).content)

    def _stream(
        self, job: UUID | str, last: tuple[int, int] | None, on_silence: Callable[[], object] | None
    ) -> Iterator[Event | None]:
        """Yield new events of one connection, and None where the server only says that it lives."""
        headers = {"accept": "text/event-stream"}
        if last is not None:
            headers["last-event-id"] = f"{last[0]}-{last[1]}"
        with self._connection.stream(f"/v1/jobs/{segment(job)}/events", headers=headers) as response:
            if response.status_code == HTTPStatus.NO_CONTENT:
                raise _EndSeenError
            for frame in frames(response.iter_bytes()):
                if not frame.data:
                    if on_silence is not None and frame.retry is None:
                        on_silence()
                    yield None
                    continue
                event = understood(Event, frame.data)
                if (event.epoch, event.seq) > (last or _BEFORE_ALL):
                    last = (event.epoch, event.seq)
                    yield event


def _order(event_id: str) -> tuple[int, int]:
    found = _EVENT_ID.fullmatch(event_id)
    if found is None:
        raise RequestUnusable(f"an event id looks like 1-7, not {event_id!r}")
    return int(found[1]), int(found[2])
