"""The states of a download, and of a look-up; pure.

queued    -> running     claimed by a keeper
queued    -> paused      user
queued    -> cancelled   user
running   -> queued      put off: the source is away or the disk is full; or its keeper died
running   -> paused      user
running   -> cancelled   user
running   -> succeeded   the entry is there
running   -> failed      an error that another try would not cure, or no new byte for too many tries
paused    -> queued      user
paused    -> cancelled   user
failed    -> queued      user
"""

from enum import StrEnum
from typing import Final


class State(StrEnum):
    """Name where a download stands."""

    QUEUED = "queued"
    RUNNING = "running"
    PAUSED = "paused"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


#: It stays so unless a person does something.
ENDED: Final = frozenset({State.SUCCEEDED, State.FAILED, State.CANCELLED})
