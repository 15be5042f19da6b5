"""Find TCP ports on the loopback address that a server can keep."""

import secrets
import socket
from pathlib import Path

LOOPBACK = "127.0.0.1"
#: Below this live well-known services.
LOWEST = 15_000
#: Where the system's own range is unknown, stay below what Linux, macOS and Windows hand out.
USUAL_EPHEMERAL_START = 32_768


class NoFreePort(OSError):
    """No free port was found on the loopback address."""


def is_free(port: int) -> bool:
    """Tell whether a server could listen on this loopback port now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # Servers set this too: connections that linger after a stop must not move a server to another port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def free_port(preferred: int | None = None) -> int:
    """Return the preferred port while it is free, else a random free one.

    Ports come from below the system's ephemeral range: a client that keeps dialling a stopped server inside that range
    can be given the server's own port as its source and connect to itself, and the server could not come back.
    """
    if preferred is not None and is_free(preferred):
        return preferred
    top = _ephemeral_start()
    for _ in range(200):
        # Not from `random`: two programs that have seeded it alike would seek the same ports at the same time.
        port = LOWEST + secrets.randbelow(top - LOWEST)
        if is_free(port):
            return port
    raise NoFreePort("no free TCP port on 127.0.0.1 was found in 200 tries")


def _ephemeral_start() -> int:
    try:
        start = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text(encoding="ascii").split()[0])
    except (OSError, ValueError, IndexError):
        return USUAL_EPHEMERAL_START
    return start if start > LOWEST + 1000 else USUAL_EPHEMERAL_START
