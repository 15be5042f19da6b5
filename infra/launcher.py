"""Become another program that dies with its parent: a stand-alone script, run by path with only the standard library.

Usage: launcher.py PARENT_PID DEATH_SIGNAL UID GID PROGRAM ARGUMENTS…   (UID -1 keeps the present user)

It stands between the supervisor and each child because the parent-death signal must be set after the change of user
(which clears it) and before exec, and running Python between fork and exec of a process with threads can deadlock.
"""

import ctypes
import os
import sys

PR_SET_PDEATHSIG = 1
#: Exit status when the parent was gone before the signal could be set.
ORPHANED = 111


def become(parent: int, death_signal: int, uid: int, gid: int, argv: list[str]) -> None:
    """Change user, tie this process to its parent, and exec the program; returns only by raising."""
    # Loaded first: after the change of user the interpreter's own folder may be out of reach.
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if uid >= 0:
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)
    if libc is not None:
        libc.prctl(PR_SET_PDEATHSIG, death_signal, 0, 0, 0)
    # The parent may have died before prctl; then no signal would ever come.
    if os.getppid() != parent:
        raise SystemExit(ORPHANED)
    os.execvp(argv[0], argv)  # noqa: S606 - no shell is wanted


if __name__ == "__main__":
    become(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), sys.argv[5:])
