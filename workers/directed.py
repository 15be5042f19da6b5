"""Whom the foreman directs, and what it says of its standing."""

from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from jobs.errors import JobFailure
from jobs.fleet import Ledger, WorkerState
from workers.engines.interface import Command, Pictured
from workers.held import Held


class EngineHold(Protocol):
    """What the foreman may do to the engine; neither waits."""

    def send(self, life: int, command: Command) -> None:
        """Hand it a command."""

    def kill(self, life: int) -> None:
        """End it."""


class OutcomeKeeper(Protocol):
    """Who stores pictures and records outcomes; nothing here waits, and every held job is released once, later."""

    def can_store(self) -> bool:
        """Tell whether there is a storage to draw for."""

    def picture(self, held: Held, report: Pictured) -> None:
        """Begin to encode and store a picture."""

    def complete(self, held: Held, seconds: float) -> None:
        """Record success once the pictures are stored."""

    def fail(self, held: Held, failure: JobFailure) -> None:
        """Record a failure."""

    def stopped(self, held: Held) -> None:
        """Record that a cancelled job has really stopped."""

    def hand_back(self, held: Held, reason: str) -> None:
        """Put the job back into its queue."""

    def discard(self, held: Held) -> None:
        """Forget a job that is another writer's, and what was stored for it."""


@dataclass(frozen=True)
class Room:
    """The engine is free, or nearly: a job may be claimed."""

    #: Model key that is warm, or will be.
    warm: str | None
    #: The stack of LoRAs that is on it, or will be, as `jobs.intake.lora_key` names it.
    loras: str
    #: The job being drawn, when the claim is made ahead of its end.
    ahead_of: tuple[UUID, int] | None


@dataclass(frozen=True)
class Standing:
    """How the worker does, for its row."""

    state: WorkerState
    warm: tuple[str, ...]
    loads: int
    current: tuple[UUID, ...]
    ledger: Ledger | None
