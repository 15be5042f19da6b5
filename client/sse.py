"""Read server-sent events from bytes, as the WHATWG specification says; pure."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

_NEWLINE = b"\n"


class Frame(NamedTuple):
    """One event, or a comment (`event` and `data` empty), which says that the server lives."""

    id: str | None
    event: str
    data: str
    #: Seconds to wait before a reconnection, when the server asks for it.
    retry: float | None = None

    @property
    def is_comment(self) -> bool:
        """Tell whether it carries nothing."""
        return not self.data


def frames(chunks: Iterable[bytes]) -> Iterator[Frame]:
    """Yield whole frames as they arrive; one that is cut off at the end is dropped, as the specification wants."""
    fields: dict[str, list[str]] = {}
    for line in _lines(chunks):
        if line:
            name, _, value = line.partition(":")
            fields.setdefault(name, []).append(value.removeprefix(" "))
        elif fields:
            yield _frame(fields)
            fields = {}


def _frame(fields: dict[str, list[str]]) -> Frame:
    ids = [text for text in fields.get("id", []) if "\0" not in text]
    retries = [text for text in fields.get("retry", []) if text.isascii() and text.isdigit()]
    return Frame(
        id=ids[-1] if ids else None,
        event=fields.get("event", ["message"])[-1],
        data="\n".join(fields.get("data", [])),
        retry=int(retries[-1]) / 1000 if retries else None,
    )


def _lines(chunks: Iterable[bytes]) -> Iterator[str]:
    # Not `str.splitlines`: it also breaks lines at characters that JSON leaves as they are, such as U+2028.
    rest = b""
    after_return = False
    for chunk in chunks:
        # A line may end with "\r\n" whose two bytes arrive apart.
        part = chunk.removeprefix(_NEWLINE) if after_return else chunk
        if chunk:
            after_return = chunk.endswith(b"\r")
        rest += part.replace(b"\r\n", _NEWLINE).replace(b"\r", _NEWLINE)
        *lines, rest = rest.split(_NEWLINE)
        for line in lines:
            yield line.decode("utf-8", "replace")
