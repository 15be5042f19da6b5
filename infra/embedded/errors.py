"""Why the embedded services cannot run.

EmbeddedError
├── HomeInUse         another instance owns the folder
├── HomeUnusable      the folder cannot be used by this user
├── BinariesMissing   no server program was found
└── ServiceFailed     a server does not come up
"""

from pathlib import Path


class EmbeddedError(Exception):
    """The embedded services cannot run."""


class HomeInUse(EmbeddedError):
    """Another instance owns the home folder."""

    def __init__(self, home: Path, pid: int | None) -> None:
        holder = f"process {pid}" if pid else "another process"
        super().__init__(
            f"{home} is in use by {holder}: stop that instance first, "
            "or give this one a folder of its own with IMAGEFLEET_HOME"
        )
        self.home = home
        #: The process that holds the folder; None where it could not be read.
        self.pid = pid


class HomeUnusable(EmbeddedError):
    """The home folder cannot be used by this user."""


class BinariesMissing(EmbeddedError):
    """No server program was found."""


class ServiceFailed(EmbeddedError):
    """A server does not come up."""

    def __init__(self, name: str, reason: str, log: Path) -> None:
        lines = tail(log)
        super().__init__(f"{name} does not come up: {reason}; the end of {log}:\n{lines}")
        self.name = name
        self.log = log


def tail(log: Path, lines: int = 12) -> str:
    """Return the last lines of a log file, or a remark when there is none."""
    try:
        return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])
    except OSError:
        return "(no log)"
