"""How A1111 writes emphasis into prompts; pure.

`(words)` weighs 1.1 times as much, `[words]` 1/1.1 times, `(words:1.3)` 1.3 times; they nest and multiply. A backslash takes a bracket's
meaning away. `BREAK` by itself begins a new window of the text encoder.
"""

import re
from typing import Final, NamedTuple

#: What a pair of brackets without a number multiplies by.
STEP: Final = 1.1
_PIECE: Final = re.compile(
    r"\\(?P<escaped>[()\[\]\\])"
    r"|(?P<open>[(\[])"
    r"|:\s*(?P<weight>[+-]?(?:\d+\.?\d*|\.\d+))\s*\)"
    r"|(?P<close>[)\]])"
    r"|(?P<text>[^\\()\[\]:]+|[\\:])"
)
_BREAK: Final = re.compile(r"\s*\bBREAK\b\s*")


class Segment(NamedTuple):
    """Some words of a prompt and how much they weigh."""

    text: str
    weight: float = 1.0
    #: Whether a new window begins before it.
    breaks: bool = False


def parse_attention(prompt: str) -> list[Segment]:
    """Return a prompt's segments in order, neighbours of equal weight as one; brackets that nothing closes reach to the end."""
    pieces: list[_Piece] = []
    #: Where each bracket that is open began, by its kind.
    begun: dict[str, list[int]] = {"(": [], "[": []}
    for found in _PIECE.finditer(prompt):
        kind, text = found.lastgroup, found[0]
        if kind == "escaped":
            pieces.append(_Piece(found["escaped"]))
        elif kind == "open":
            begun[text].append(len(pieces))
        elif kind == "weight" and begun["("]:
            _multiply(pieces, begun["("].pop(), float(found["weight"]))
        elif text == ")" and begun["("]:
            _multiply(pieces, begun["("].pop(), STEP)
        elif text == "]" and begun["["]:
            _multiply(pieces, begun["["].pop(), 1 / STEP)
        else:
            pieces.extend(_broken(text))
    for kind, factor in (("(", STEP), ("[", 1 / STEP)):
        for start in begun[kind]:
            _multiply(pieces, start, factor)
    return _joined(pieces)


def unmarked(prompt: str) -> str:
    """Return a prompt without the marks of emphasis, for models to which no word weighs more than another; a `BREAK` is a space."""
    segments = parse_attention(prompt)
    return "".join(f" {each.text}" if each.breaks else each.text for each in segments)


class _Piece:
    __slots__ = ("breaks", "text", "weight")

    def __init__(self, text: str, *, breaks: bool = False) -> None:
        self.text = text
        self.weight = 1.0
        self.breaks = breaks


def _broken(text: str) -> list[_Piece]:
    return [_Piece(part, breaks=place > 0) for place, part in enumerate(_BREAK.split(text))]


def _multiply(pieces: list[_Piece], start: int, factor: float) -> None:
    for piece in pieces[start:]:
        piece.weight *= factor


def _joined(pieces: list[_Piece]) -> list[Segment]:
    joined: list[Segment] = []
    for piece in pieces:
        if joined and not piece.breaks and joined[-1].weight == piece.weight:
            joined[-1] = joined[-1]._replace(text=joined[-1].text + piece.text)
        elif piece.text or piece.breaks:
            joined.append(Segment(piece.text, piece.weight, piece.breaks))
    return joined or [Segment("")]
