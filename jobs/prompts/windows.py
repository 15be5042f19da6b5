"""How a prompt is laid into the windows of a CLIP text encoder, one behind the other; pure.

Drawing and counting lay in the same way: tokens fill a window until the next group does not fit, `BREAK` begins a new one.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple, TypeVar

from jobs.prompts.attention import Segment

Token = TypeVar("Token")


class Part(NamedTuple):
    """Some text of a prompt, or a word that stands for an embedding."""

    text: str
    is_word: bool


def lay(
    segments: Iterable[Segment], groups: Callable[[Segment], Iterable[list[Token]]], room: int
) -> list[list[Token]]:
    """Return the tokens of each window, of which each holds `room`; the tokens of a group are never parted.

    `groups` yields those of one segment. No group may be larger than `room`.
    """
    windows: list[list[Token]] = [[]]
    for segment in segments:
        if segment.breaks:
            windows.append([])
        for group in groups(segment):
            if len(windows[-1]) + len(group) > room:
                windows.append([])
            windows[-1].extend(group)
    return windows


def parts(text: str, words: Iterable[str]) -> Iterator[Part]:
    """Yield a text in pieces: `words` where they stand as whole words, in any case, and what is between them.

    A longer word wins over one that it begins with.
    """
    pattern = "|".join(re.escape(word) for word in sorted(words, key=len, reverse=True))
    if not pattern:
        yield Part(text, is_word=False)
        return
    for place, part in enumerate(re.split(rf"(?<![\w-])({pattern})(?![\w-])", text, flags=re.IGNORECASE)):
        yield Part(part, is_word=place % 2 == 1)
