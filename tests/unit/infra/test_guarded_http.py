"""Which addresses may be reached, and that a connection goes to an address that was checked."""

import ipaddress
import socket
import threading
from collections.abc import Iterator, Sequence

import httpx
import pytest

from infra.guarded_http import Address, AddressRefused, AllowListInvalid, Guard, is_public, open_guarded


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.255.0.9", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "255.255.255.255",  # noqa: S104 - not listened on
        "224.0.0.1", "192.0.2.1", "198.18.0.1", "240.0.0.1", "::", "::1", "fe80::1", "fc00::1", "fec0::1", "ff02::1", "::ffff:127.0.0.1",
        "::ffff:10.0.0.1", "2002:7f00:1::", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "2001:db8::1", "2001::1",
    ],
)  # fmt: skip
def test_address_of_no_public_network_is_refused(address: str) -> None:
    """Loopback, private, link-local, shared, reserved, in IPv4 and in every spelling of it in IPv6."""
    assert not is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    "address", ["1.1.1.1", "93.184.216.34", "2606:4700::1111", "::ffff:1.1.1.1", "64:ff9b::101:101"]
)
def test_public_address_is_reached(address: str) -> None:
    """Also through a gateway of the provider."""
    assert is_public(ipaddress.ip_address(address))


def test_guard_allows_what_the_operator_names() -> None:
    """By name or by network, and nothing beside it."""
    guard = Guard.of(" models.lan , 10.0.0.0/8,127.0.0.1 ")
    assert guard.trusts("MODELS.lan")
    assert guard.trusts("10.9.9.9")
    assert not guard.trusts("localhost")
    assert guard.allows(ipaddress.ip_address("127.0.0.1"))
    assert not guard.allows(ipaddress.ip_address("127.0.0.2"))


@pytest.mark.parametrize("text", ["10.0.0.0/99", "http://x", "a/b"])
def test_guard_refuses_a_list_it_cannot_read(text: str) -> None:
    """A typing mistake must not open or close anything."""
    with pytest.raises(AllowListInvalid):
        Guard.of(text)


@pytest.fixture
def server() -> Iterator[tuple[int, list[bytes]]]:
    """Serve one answer after the other on the loopback address; yields the port and what was asked."""
    heard: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    heard.append(connection.recv(4096))
                    connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok")

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener.getsockname()[1], heard
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(5)


def test_client_connects_to_the_address_that_was_checked(server: tuple[int, list[bytes]]) -> None:
    """A name that resolves to another address a moment later does not lead there: it is resolved once."""
    port, heard = server
    answers = iter([["127.0.0.1"], ["10.0.0.1"]])
    looked_up: list[str] = []

    def rebinding(host: str, _: int) -> Sequence[Address]:
        looked_up.append(host)
        return [ipaddress.ip_address(each) for each in next(answers)]

    guard = Guard(networks=(ipaddress.ip_network("127.0.0.1"),), resolver=rebinding)
    with open_guarded(guard) as client:
        assert client.get(f"http://models.example:{port}/").text == "ok"
    assert looked_up == ["models.example"]
    assert f"host: models.example:{port}".encode() in heard[0].lower()


@pytest.mark.parametrize("found", [["127.0.0.1"], ["1.1.1.1", "127.0.0.1"], ["::1"], ["169.254.169.254"]])
def test_client_opens_no_connection_to_a_refused_address(server: tuple[int, list[bytes]], found: list[str]) -> None:
    """One bad address among good ones is enough."""
    port, heard = server
    guard = Guard(resolver=lambda *_: [ipaddress.ip_address(each) for each in found])
    with open_guarded(guard) as client, pytest.raises(AddressRefused):
        client.get(f"http://models.example:{port}/")
    assert heard == []


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "2130706433", "0x7f.1", "0177.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "localhost"]
)
def test_client_refuses_loopback_in_every_spelling(server: tuple[int, list[bytes]], host: str) -> None:
    """The system's own resolver reads more spellings than one would think of."""
    port, heard = server
    with open_guarded(Guard()) as client, pytest.raises((AddressRefused, httpx.ConnectError, httpx.InvalidURL)):
        client.get(f"http://{host}:{port}/")
    assert heard == []


def test_client_uses_no_proxy_of_the_environment(
    server: tuple[int, list[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Behind a proxy nobody could tell where a request goes."""
    port, heard = server
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("ALL_PROXY", f"http://127.0.0.1:{port}")
    with open_guarded(Guard()) as client, pytest.raises(AddressRefused):
        client.get("http://10.0.0.1/")
    assert heard == []
