"""Server-sent events are read from bytes, however these arrive."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from client.sse import Frame, frames

STREAM = (
    b"retry: 1500\n\n"
    b": keep-alive\n\n"
    b'id: 0-1\nevent: queued\ndata: {"a": "\xe2\x80\xa8"}\n\n'
    b"id: 1-1\r\nevent: started\r\ndata: one\r\ndata: two\r\n\r\n"
    b"data:no space\rid: a\0b\r\r"
    b"unknown: x\n\n"
    b"id: 9-9\ndata: cut off"
)
EXPECTED = [
    Frame(None, "message", "", 1.5),
    Frame(None, "message", ""),
    Frame("0-1", "queued", '{"a": "\u2028"}'),
    Frame("1-1", "started", "one\ntwo"),
    Frame(None, "message", "no space"),
    Frame(None, "message", ""),
]


@given(st.lists(st.integers(0, len(STREAM))))
def test_frames_are_the_same_in_any_pieces(cuts: list[int]) -> None:
    """Wherever the network cuts the stream, the frames are those that were sent, and half a frame is none."""
    places = [0, *sorted(cuts), len(STREAM)]
    chunks = [STREAM[start:end] for start, end in itertools.pairwise(places)]
    assert list(frames(chunks)) == EXPECTED


def test_frames_come_as_soon_as_they_are_whole() -> None:
    """A frame is not held back until the next one arrives."""
    taken = []

    def chunks() -> object:
        yield b"data: a\n\n"
        taken.append(1)
        yield b"data: b\n\n"

    stream = frames(chunks())  # type: ignore[arg-type]
    assert next(stream).data == "a"
    assert not taken
