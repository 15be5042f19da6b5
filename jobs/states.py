"""The life of a job, one transition per line; the database repeats it as constraints and a test keeps both equal."""

from enum import StrEnum


class State(StrEnum):
    """Name where a job stands."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


TERMINAL = frozenset({State.SUCCEEDED, State.FAILED, State.CANCELLED})

#: Every transition that exists.
TRANSITIONS = frozenset(
    {
        (State.QUEUED, State.RUNNING),  # claimed by a worker
        (State.QUEUED, State.CANCELLED),  # by its owner
        (State.QUEUED, State.FAILED),  # deadline passed, or refused for good
        (State.RUNNING, State.SUCCEEDED),  # all pictures stored
        (State.RUNNING, State.FAILED),  # an error a retry would not cure, or no attempt left
        (State.RUNNING, State.QUEUED),  # lease lost, worker drained, retryable error
        (State.RUNNING, State.CANCELLED),  # the worker has really stopped
    }
)

#: A job that was lost so often, on at least POISON_WORKERS workers, fails as `poison` ...
POISON_LOSSES = 3
POISON_WORKERS = 2
#: ... and one lost so often fails wherever it was lost.
POISON_LOSSES_ANYWHERE = 5
#: Retryable errors of the job's own; losses by the fleet's fault never count.
MAX_ATTEMPTS = 3
