"""Own a server's data folder: who runs it, what it keeps between starts, and what a dead one left there."""

import contextlib
import json
import os
import pwd
import secrets
import signal
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from infra.embedded.errors import HomeUnusable
from infra.files import write_private
from infra.ports import free_port
from infra.processes import RunAs

#: Seconds for leftovers of a dead server to go by themselves, after SIGQUIT, and after SIGKILL.
LEAVE_SECONDS = 0.3


@dataclass(frozen=True)
class Access:
    """Keep what a server needs to come back as itself: its port and its password."""

    port: int
    password: str


def keep_access(path: Path) -> Access:
    """Return the port and password kept in this file, the port changed only when it is taken; writes the file."""
    kept = _read_access(path)
    port = free_port(kept.port if kept else None)
    access = Access(port, kept.password if kept else secrets.token_urlsafe(32))
    if access != kept:
        write_private(path, json.dumps(asdict(access)))
    return access


def _read_access(path: Path) -> Access | None:
    with contextlib.suppress(FileNotFoundError):
        try:
            kept = json.loads(path.read_text(encoding="utf-8"))
            return Access(int(kept["port"]), str(kept["password"]))
        except PermissionError as problem:
            raise HomeUnusable(f"{path} belongs to another user: use the same user as before") from problem
        except (ValueError, KeyError, TypeError) as problem:
            raise HomeUnusable(f"{path} is damaged: restore it from a backup ({problem})") from problem
    return None


def server_user(data: Path) -> RunAs | None:
    """Return the user a server must run as when this process is root; None keeps the present user."""
    if os.geteuid() != 0:
        if data.exists() and data.stat().st_uid != os.geteuid():
            raise HomeUnusable(f"{data} belongs to another user: use the same user as before, or another folder")
        return None
    if data.exists() and (found := data.stat()).st_uid != 0:
        return RunAs(found.st_uid, found.st_gid)
    nobody = pwd.getpwnam("nobody")
    return RunAs(nobody.pw_uid, nobody.pw_gid)


def make_data_folder(data: Path, user: RunAs | None) -> None:
    """Create a folder that only the server's user may enter."""
    data.mkdir(mode=0o700, exist_ok=True)
    if user is not None:
        os.chown(data, user.uid, user.gid)


def own_path(data: Path, user: RunAs | None) -> str:
    """Return how a server that was started inside its data folder names it.

    As another user it may not be able to walk there from the root (a home below /root, or one of mode 0700): the
    kernel's link to the working folder needs no permission on the folders above.
    """
    return "/proc/self/cwd" if user is not None and sys.platform == "linux" else str(data)


def clear_leftovers(data: Path, program: str) -> None:
    """End what is left of an earlier server in its data folder; afterwards no such process is alive there.

    A server that was killed leaves children that hold its memory or port for a moment, or for ever when busy.
    """
    for action in (None, signal.SIGQUIT, signal.SIGKILL):
        deadline = time.monotonic() + LEAVE_SECONDS
        left = _processes(data, program)
        for process in left if action else ():
            with contextlib.suppress(psutil.Error):
                process.send_signal(int(action or 0))
        while left and time.monotonic() < deadline:
            time.sleep(0.02)
            left = [process for process in left if _alive(process)]
        if not left:
            return
    raise HomeUnusable(f"an earlier server still runs in {data}: end process {left[0].pid}")


def _processes(data: Path, program: str) -> list[psutil.Process]:
    folder = str(data.resolve())
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            # The working folder tells our servers from all others; a process id in a file does not.
            if process.name().startswith(program[:15]) and process.cwd() == folder and _alive(process):
                found.append(process)
    return found


def _alive(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False
