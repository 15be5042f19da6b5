"""Speak HTTP to addresses that other people name, without being led into one's own network.

The guard is on the socket: a name is resolved once, every address of it is checked, and the connection goes to a checked address, so that
neither a redirect nor a name that resolves differently the second time leads elsewhere. Proxies of the environment are not used: behind one
nobody could tell where a request goes.
"""

import ipaddress
import socket
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

import httpcore
import httpx

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
#: Host and port to the addresses that the name has now.
Resolver = Callable[[str, int], Sequence[Address]]

CONNECT_SECONDS: Final = 15.0
#: A server that sends nothing for so long is given up.
SILENCE_SECONDS: Final = 60.0
#: IPv4 addresses written as IPv6, which a gateway would translate back: RFC 6052.
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")


class AddressRefused(Exception):
    """The address lies in a network that must not be reached from here."""


class AllowListInvalid(ValueError):
    """The list of allowed hosts and networks cannot be read."""


def resolve(host: str, port: int) -> Sequence[Address]:
    """Return the addresses of a name, raising OSError when there are none."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [ipaddress.ip_address(str(entry[4][0]).partition("%")[0]) for entry in found]


@dataclass(frozen=True)
class Guard:
    """Tell which addresses may be connected to: public ones, and those that the operator allows."""

    #: Host names, lower case: whatever they resolve to is allowed.
    hosts: frozenset[str] = frozenset()
    networks: tuple[Network, ...] = ()
    resolver: Resolver = field(default=resolve)

    @classmethod
    def of(cls, allowed: str, resolver: Resolver = resolve) -> "Guard":
        """Read `models.lan, 10.0.0.0/8, 127.0.0.1`, raising `AllowListInvalid`."""
        hosts, networks = set(), []
        for part in filter(None, (text.strip().lower() for text in allowed.split(","))):
            try:
                networks.append(ipaddress.ip_network(part))
            except ValueError:
                if "/" in part or ":" in part or not part.isascii():
                    raise AllowListInvalid(
                        f"{part!r} is neither a host name nor a network such as 10.0.0.0/8"
                    ) from None
                hosts.add(part)
        return cls(frozenset(hosts), tuple(networks), resolver)

    def addresses(self, host: str, port: int) -> Sequence[Address]:
        """Resolve a name, raising `AddressRefused` when any of its addresses may not be reached."""
        try:
            found = self.resolver(host, port)
        except OSError as problem:
            raise httpcore.ConnectError(f"{host} cannot be resolved: {problem}") from None
        if not found:
            raise httpcore.ConnectError(f"{host} has no address")
        # One bad address is enough: a name that mixes them is somebody's trick.
        if host.lower() not in self.hosts and not all(self.allows(address) for address in found):
            raise AddressRefused(
                f"{host} is not on the public network; IMAGEFLEET_FETCH_ALLOW names hosts and networks that may be fetched from"
            )
        return found

    def trusts(self, host: str) -> bool:
        """Tell whether the operator allows this very host, by its name or its address."""
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            return host.lower() in self.hosts
        return any(address in network for network in self.networks)

    def allows(self, address: Address) -> bool:
        """Tell whether an address is public or allowed."""
        return any(address in network for network in self.networks) or is_public(address)


def is_public(address: Address) -> bool:
    """Tell whether an address, and the IPv4 address it may carry inside, is of the public network."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return is_public(address.ipv4_mapped)
        if address in _NAT64:
            return is_public(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
        if address.is_site_local or (address.sixtofour is not None and not is_public(address.sixtofour)):
            return False
    return address.is_global and not (address.is_multicast or address.is_reserved)


class _GuardedBackend(httpcore.NetworkBackend):
    """Open connections to checked addresses alone."""

    def __init__(self, guard: Guard) -> None:
        self._guard = guard
        self._plain = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        """Connect to the first address of a name that answers."""
        problem: Exception | None = None
        for address in self._guard.addresses(host, port):
            try:
                return self._plain.connect_tcp(str(address), port, timeout, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                problem = error
        raise problem or httpcore.ConnectError(f"{host} does not answer")

    def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,  # noqa: ARG002 - the library's signature
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,  # noqa: ARG002
    ) -> httpcore.NetworkStream:
        """Refuse: no address of the network is a file."""
        raise AddressRefused(f"{path} is no address of the network")


class _GuardedTransport(httpx.HTTPTransport):
    """The library's transport over guarded connections."""

    def __init__(self, guard: Guard) -> None:
        super().__init__(trust_env=False)
        self._pool = httpcore.ConnectionPool(
            ssl_context=httpx.create_ssl_context(trust_env=False),
            keepalive_expiry=15.0,
            network_backend=_GuardedBackend(guard),
        )


def open_guarded(guard: Guard, *, user_agent: str = "imagefleet") -> httpx.Client:
    """Return a client that reaches only what the guard allows and follows no redirect by itself; raises `AddressRefused` at requests."""
    return httpx.Client(
        transport=_GuardedTransport(guard),
        trust_env=False,
        follow_redirects=False,
        timeout=httpx.Timeout(SILENCE_SECONDS, connect=CONNECT_SECONDS),
        # What is fetched is hashed as it was sent.
        headers={"user-agent": user_agent, "accept-encoding": "identity"},
    )
