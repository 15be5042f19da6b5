"""The workers as everyone sees them; pure."""

from datetime import datetime
from typing import Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict

WorkerState = Literal["idle", "busy", "draining", "offline"]


class HeldComponent(BaseModel):
    """Weights that lie in a device's memory."""

    model_config = ConfigDict(frozen=True)

    #: Of what `name` is: `checkpoint`, `lora`, `controlnet`, …
    kind: str
    name: str
    #: Part of it, e.g. `unet`; empty for the whole.
    component: str = ""
    bytes: int
    #: Other models that have the same copy.
    shared_with: tuple[str, ...] = ()


class Ledger(BaseModel):
    """What an engine holds in its device's memory, and how much it may."""

    model_config = ConfigDict(frozen=True)

    #: What models and pictures may fill.
    capacity_bytes: int
    components: tuple[HeldComponent, ...] = ()
    #: Since the engine began: parts of checkpoints read from their files, those that were there already for another checkpoint, and weights
    #: of anything read and copied to the device.
    components_read: int = 0
    components_shared: int = 0
    bytes_read: int = 0
    bytes_copied: int = 0


class WorkerFacts(BaseModel):
    """What a worker says of itself when it starts."""

    model_config = ConfigDict(frozen=True)

    name: str
    run: UUID
    host: str
    pid: int
    device: str
    device_name: str
    hardware: str
    serves: tuple[str, ...]
    tags: tuple[str, ...]
    tasks: tuple[str, ...]
    queues: tuple[str, ...]
    #: Bytes it offers to a job, at half precision: a CPU worker, drawing at full precision, offers half its memory.
    memory_bytes: int
    engine: str
    version: str


class WorkerView(WorkerFacts):
    """A worker and how it does."""

    state: WorkerState
    online: bool
    warm: tuple[str, ...]
    loads: int
    current: tuple[UUID, ...]
    started_at: datetime
    seen_at: datetime
    #: Since when an operator wants it to take no jobs.
    drain_requested_at: datetime | None = None
    #: As its engine last said; None where it never did.
    ledger: Ledger | None = None


class Fleet(BaseModel):
    """Every worker known, online or away."""

    model_config = ConfigDict(frozen=True)

    workers: tuple[WorkerView, ...] = ()

    def online(self) -> tuple[WorkerView, ...]:
        """Return the workers that have been heard of lately."""
        return tuple(worker for worker in self.workers if worker.online)

    def known_tags(self) -> frozenset[str]:
        """Return every tag an operator gave any worker."""
        return frozenset(tag for worker in self.workers for tag in worker.tags)

    def wakes_for(self, queue: str, jobs: int) -> int:
        """Return how many wake-ups reach a worker for so many new jobs: all of the queue's when they differ in memory.

        The first to be woken may not be one whose memory holds the job.
        """
        serving = [worker for worker in self.online() if worker.state != "draining" and queue in worker.queues]
        alike = len({worker.memory_bytes for worker in serving}) <= 1
        return max(1, min(jobs, len(serving)) if alike else len(serving))

    def serving(self, queue: str) -> int:
        """Return how many online workers take jobs from a queue."""
        return sum(
            1 for worker in self.workers if worker.online and worker.state != "draining" and queue in worker.queues
        )
