"""Send one request to a fleet and understand its answer; repeat it while the fleet restarts, where repeating is safe."""

import ipaddress
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from http import HTTPStatus
from typing import Self
from urllib.parse import urlsplit

import httpx

from client.errors import AnswerUnusable, ClientError, FleetUnreachable, RequestUnusable, Unavailable, problem_of

#: Answers that say "soon again": a proxy without its server, or a server without its database.
_PASSING = frozenset({HTTPStatus.BAD_GATEWAY, HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.GATEWAY_TIMEOUT})
_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 2.0
#: A stream is silent for 7 s at most: the server says so often that it lives.
_STREAM_SILENCE = 30.0


class Connection:
    """Hold the address, the key and the open sockets of one fleet."""

    def __init__(self, url: str, key: str | None, *, timeout: float, patience: float) -> None:
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise RequestUnusable(
                f"the fleet's address must begin with http:// or https:// and name a host; {url!r} does not"
            )
        if key is not None and not (key.isascii() and key.isprintable() and " " not in key):
            raise RequestUnusable("the API key must be printable ASCII without spaces")
        self.url = url.rstrip("/")
        self.key = key
        #: On this machine: a proxy for the world outside cannot reach its servers.
        self.direct = _is_loopback(parts.hostname)
        #: Seconds for which a fleet that has answered before may be away.
        self.patience = patience
        #: Whether anybody has answered yet.
        self.has_answered = False
        self._http = httpx.Client(
            base_url=self.url,
            headers={} if key is None else {"authorization": f"Bearer {key}"},
            timeout=timeout,
            trust_env=not self.direct,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the sockets; open streams end."""
        self._http.close()

    def ask(
        self,
        method: str,
        path: str,
        *,
        repeatable: bool = True,
        params: Mapping[str, str] | None = None,
        body: object = None,
        content: bytes | None = None,
        parts: Sequence[tuple[str, tuple[None, str]]] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> httpx.Response:
        """Return a successful answer, raising a `ClientError` for any other; `body` is sent as JSON, `content` as it is.

        `parts` are sent as the fields of a form.
        """
        request = self._http.build_request(
            method,
            path,
            params=params or None,
            json=body,
            content=content,
            files=parts,
            headers=headers,
            timeout=httpx.USE_CLIENT_DEFAULT if timeout is None else timeout,
        )
        until = time.monotonic() + self.patience
        pause = _FIRST_PAUSE
        while True:
            late = not repeatable or time.monotonic() + pause > until
            try:
                return self._checked(self._http.send(request))
            except httpx.TransportError as error:
                # A fleet that has never answered is not restarting: it is not there.
                if late or not self.has_answered:
                    raise FleetUnreachable(self.url, _reason(error)) from None
            except Unavailable as problem:
                if late or problem.status not in _PASSING:
                    raise
                pause = max(pause, problem.retry_after or 0)
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    @contextmanager
    def stream(self, path: str, *, headers: Mapping[str, str]) -> Iterator[httpx.Response]:
        """Open a stream of events, raising a `ClientError` when it is refused or breaks."""
        timeout = httpx.Timeout(self._http.timeout.connect, read=_STREAM_SILENCE)
        try:
            with self._http.stream("GET", path, headers=dict(headers), timeout=timeout) as response:
                if not response.is_success:
                    response.read()
                yield self._checked(response)
        except httpx.TransportError as error:
            raise FleetUnreachable(self.url, _reason(error)) from None

    @contextmanager
    def transfer(
        self,
        method: str,
        path: str,
        *,
        body: object = None,
        content: Iterable[bytes] | None = None,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Iterator[httpx.Response]:
        """Send or fetch what is too large to hold, once, taking what time it takes; raise a `ClientError` when it is refused or breaks."""
        timeout = httpx.Timeout(self._http.timeout.connect, read=None)
        try:
            with self._http.stream(
                method, path, json=body, content=content, params=params, headers=headers, timeout=timeout
            ) as response:
                if not response.is_success:
                    response.read()
                yield self._checked(response)
        except httpx.TransportError as error:
            raise FleetUnreachable(self.url, _reason(error)) from None

    def _checked(self, response: httpx.Response) -> httpx.Response:
        self.has_answered = True
        if response.is_success:
            return response
        raise _problem(self.url, response)


def _problem(url: str, response: httpx.Response) -> ClientError:
    try:
        document = response.json()
    except ValueError:
        document = None
    if not isinstance(document, dict) or "code" not in document:
        if response.status_code in _PASSING:
            # A proxy speaks for the fleet.
            return Unavailable(response.status_code, {}, _retry_after(response))
        return AnswerUnusable(f"{url} answers {response.status_code} {response.reason_phrase}, and not as a fleet does")
    return problem_of(response.status_code, document, _retry_after(response))


def _retry_after(response: httpx.Response) -> float | None:
    text = response.headers.get("retry-after", "")
    return float(text) if text.isascii() and text.isdigit() else None


def _reason(error: httpx.TransportError) -> str:
    if isinstance(error, httpx.TimeoutException):
        return "it did not answer in time"
    return str(error) or type(error).__name__


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
