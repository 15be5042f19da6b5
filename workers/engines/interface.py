"""What an agent says to its engine process, and what it hears back.

The engine draws one item after another, or several at once where it can; the agent never asks how. Messages are plain values, so they
travel over a `multiprocessing` connection between two processes of the same program.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol
from uuid import UUID

from jobs.analysing.findings import Findings
from jobs.contract import JobParameters
from jobs.fleet import Ledger
from jobs.inputs import Inputs
from models_registry.entries import ModelEntry

Phase = Literal["load", "encode", "step", "decode"]
EngineKind = Literal["local", "fake"]


@dataclass(frozen=True)
class Setup:
    """Everything an engine is told when its process starts; the first message on the connection."""

    engine: EngineKind
    #: For the process title: `cuda0`, `cpu1`.
    label: str
    #: What torch calls the device: the process sees no other one.
    device: str
    device_name: str
    #: Bytes of device memory the engine may fill.
    memory_bytes: int
    #: Threads of the CPU the engine may use; None leaves it to the library.
    threads: int | None = None
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["console", "json"] = "console"


@dataclass(frozen=True)
class Item:
    """One claimed job, as the engine needs it."""

    job: UUID
    epoch: int
    parameters: JobParameters
    inputs: Inputs

    @property
    def entry(self) -> ModelEntry | None:
        """Return the model whose warmth counts; None where none is needed."""
        return self.inputs.main(self.parameters)


@dataclass(frozen=True)
class Draw:
    """Draw these items; each answers for itself with `Drawn` or `Failed` or `Stopped`."""

    items: Sequence[Item]


@dataclass(frozen=True)
class Cancel:
    """Stop this item at its next step; answered by `Stopped`, or by what it had become before."""

    job: UUID
    epoch: int


@dataclass(frozen=True)
class Quit:
    """End the process once nothing is being drawn."""


Command = Draw | Cancel | Quit


@dataclass(frozen=True)
class Ready:
    """The engine has started and can take items."""


@dataclass(frozen=True)
class PhaseBegan:
    """An item entered a phase, or advanced inside it: the phase's limit starts anew."""

    job: UUID
    epoch: int
    phase: Phase


@dataclass(frozen=True)
class Stepped:
    """A denoising step ended; steps count over all pictures of the item."""

    job: UUID
    epoch: int
    step: int
    steps: int
    image: int


@dataclass(frozen=True)
class Previewed:
    """The forming picture: RGB, 8 bits, row by row."""

    job: UUID
    epoch: int
    step: int
    image: int
    width: int
    height: int
    rgb: bytes = field(repr=False)


@dataclass(frozen=True)
class Pictured:
    """A finished picture: RGB, 8 bits, row by row."""

    job: UUID
    epoch: int
    index: int
    seed: int
    width: int
    height: int
    rgb: bytes = field(repr=False)


@dataclass(frozen=True)
class Analysed:
    """What an analysis found out; `Drawn` follows."""

    job: UUID
    epoch: int
    findings: Findings = field(repr=False)


@dataclass(frozen=True)
class Drawn:
    """Every picture of the item has been sent."""

    job: UUID
    epoch: int
    seconds: float


@dataclass(frozen=True)
class Stopped:
    """The item was cancelled and nothing of it runs any more."""

    job: UUID
    epoch: int


@dataclass(frozen=True)
class Failed:
    """The item cannot be drawn; `code` names a class of `jobs.errors`."""

    job: UUID
    epoch: int
    code: str
    message: str


@dataclass(frozen=True)
class Resident:
    """What is loaded now, sent after each load or eviction; `loads` counts all loads since the process began."""

    #: Model keys, the most recently used last.
    models: Sequence[str]
    loads: int
    bytes: int
    #: None where the engine does not say.
    ledger: Ledger | None = None


Report = Ready | PhaseBegan | Stepped | Previewed | Pictured | Analysed | Drawn | Stopped | Failed | Resident


class Link(Protocol):
    """The engine's side of the connection to its agent."""

    def receive(self, timeout: float | None) -> Command | None:
        """Return the next command, or None when none came within `timeout` seconds; raise EOFError when the agent is gone."""

    def send(self, report: Report) -> None:
        """Hand a report to the agent."""


class Engine(Protocol):
    """Something that draws; runs in a process of its own until told to quit."""

    def run(self, link: Link) -> None:
        """Serve commands until `Quit` or until the agent is gone."""
