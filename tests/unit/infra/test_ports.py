"""Ports that servers can keep."""

import socket
from pathlib import Path

import pytest

from infra import ports
from infra.ports import NoFreePort, free_port, is_free


def test_port_in_use_is_not_free() -> None:
    """A listener is noticed, and its end too."""
    port = free_port()
    with socket.create_server(("127.0.0.1", port)):
        assert not is_free(port)
        assert free_port(port) != port
    assert free_port(port) == port


def test_ports_lie_below_those_of_clients() -> None:
    """No client is ever given such a port as its source, so none can sit on a stopped server's port."""
    text = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text(encoding="ascii")
    assert all(15_000 <= free_port() < int(text.split()[0]) for _ in range(50))


def test_no_free_port_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without a free port does not hang."""
    monkeypatch.setattr(ports, "is_free", lambda _: False)
    with pytest.raises(NoFreePort):
        free_port()
