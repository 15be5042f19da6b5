"""Ask sources over guarded HTTP: redirects one by one, tokens for their own site alone, every answer bounded."""

import contextlib
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from types import MappingProxyType
from typing import Any, Final

import httpx
from pydantic_core import from_json

from infra import guarded_http
from infra.guarded_http import Guard, open_guarded
from models_registry.pulls.failures import (
    AddressRefused,
    AnswerInvalid,
    PullError,
    SourceAway,
    SourceForbidden,
    SourceMissing,
)

MOST_REDIRECTS: Final = 8
#: No description of a model comes near.
MOST_JSON_BYTES: Final = 16 * 1024 * 1024
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_PASSING: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
#: A source that asks for more is asked again sooner.
LONGEST_PAUSE: Final = 3600.0
_NO_HEADERS: Final[Mapping[str, str]] = MappingProxyType({})


class Web:
    """Hold a guarded client and the tokens, each for the site that gave it."""

    def __init__(self, guard: Guard, tokens: Mapping[str, str] = _NO_HEADERS) -> None:
        self._guard = guard
        self._client = open_guarded(guard)
        self._tokens = {_origin(httpx.URL(site)): token for site, token in tokens.items()}

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def get_json(self, url: str) -> Any:
        """Return the decoded answer to a GET, raising a `PullError`."""
        return self._json("GET", url, None)

    def post_json(self, url: str, body: object) -> Any:
        """Return the decoded answer to a POST, raising a `PullError`."""
        return self._json("POST", url, body)

    def get_bytes(self, url: str, most: int) -> bytes:
        """Return a small body, raising a `PullError`, `AnswerInvalid` for one of more than `most` bytes."""
        with self.open(url) as response:
            return _bounded(response, most)

    @contextlib.contextmanager
    def open(self, url: str, headers: Mapping[str, str] = _NO_HEADERS) -> Iterator[httpx.Response]:
        """Yield the answer to a GET behind all redirects: 200, 206 or 416, its body unread; raises a `PullError`, also while it is read."""
        with self._errors(url), self._following("GET", url, headers, None) as response:
            yield response

    def _json(self, method: str, url: str, body: object) -> Any:
        headers = {"accept": "application/json"}
        with self._errors(url), self._following(method, url, headers, body) as response:
            data = _bounded(response, MOST_JSON_BYTES)
        try:
            return from_json(data)
        except ValueError:
            raise AnswerInvalid(f"{_host(url)} answers with something that is not JSON.") from None

    @contextlib.contextmanager
    def _following(self, method: str, url: str, headers: Mapping[str, str], body: object) -> Iterator[httpx.Response]:
        at = _url(url)
        for _ in range(MOST_REDIRECTS + 1):
            self._check(at)
            request = self._client.build_request(method, at, headers=self._headers(at, headers), json=body)
            response = self._client.send(request, stream=True)
            try:
                location = response.headers.get("location")
                if response.status_code not in _REDIRECTS or not location:
                    _check_status(response)
                    yield response
                    return
            finally:
                response.close()
            try:
                at = at.join(location)
            except httpx.InvalidURL:
                raise AnswerInvalid(f"{at.host} leads to something that is no address.") from None
        raise AnswerInvalid(f"{_host(url)} leads from one address to the next without end.")

    def _headers(self, at: httpx.URL, headers: Mapping[str, str]) -> Mapping[str, str]:
        token = self._tokens.get(_origin(at))
        return headers if token is None else {**headers, "authorization": f"Bearer {token}"}

    def _check(self, at: httpx.URL) -> None:
        if at.scheme == "https" or (at.scheme == "http" and self._guard.trusts(at.host)):
            return
        raise AddressRefused(f"{at.host} would send it without encryption: only https is fetched.")

    @contextlib.contextmanager
    def _errors(self, url: str) -> Iterator[None]:
        try:
            yield
        except PullError:
            raise
        except guarded_http.AddressRefused as refusal:
            raise AddressRefused(f"{refusal}.") from None
        except httpx.InvalidURL:
            raise AnswerInvalid("The source leads to something that is no address.") from None
        except httpx.HTTPError as problem:
            raise SourceAway(f"{_host(url)} does not answer: {problem or type(problem).__name__}.") from None


def _check_status(response: httpx.Response) -> None:
    status, host = response.status_code, response.url.host
    if status in {HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT, HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE}:
        return
    if status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
        raise SourceForbidden(
            f"{host} wants a token for it, or another one: IMAGEFLEET_HUB_TOKEN, IMAGEFLEET_CIVITAI_TOKEN."
        )
    if status in {HTTPStatus.NOT_FOUND, HTTPStatus.GONE}:
        raise SourceMissing(f"{host} has no such thing, or it is not public.")
    if status in _PASSING:
        raise SourceAway(f"{host} answers {status} for now.", _retry_after(response))
    raise AnswerInvalid(f"{host} answers {status}.")


def _retry_after(response: httpx.Response) -> float | None:
    text = response.headers.get("retry-after", "")
    if text.isascii() and text.isdigit():
        return min(float(text[:9]), LONGEST_PAUSE)
    try:
        wait = (parsedate_to_datetime(text) - datetime.now(UTC)).total_seconds()
    except (ValueError, TypeError):
        return None
    return min(max(wait, 0.0), LONGEST_PAUSE)


def _bounded(response: httpx.Response, most: int) -> bytes:
    data = bytearray()
    for chunk in response.iter_raw():
        data += chunk
        if len(data) > most:
            raise AnswerInvalid(f"{response.url.host} answers with more than {most} bytes.")
    return bytes(data)


def _url(url: str) -> httpx.URL:
    return httpx.URL(url)


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port or {"https": 443, "http": 80}.get(url.scheme)


def _host(url: str) -> str:
    return _url(url).host
