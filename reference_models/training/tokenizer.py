"""Make the family's CLIP tokenizer: the words of the captions are single tokens, all else falls apart into letters."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import Any, Final

from reference_models.libraries import TRANSFORMERS
from reference_models.pictures import COLOURS, POSITIONS, SHAPES, SIZES
from reference_models.training.fillers import WORDS

LENGTH: Final = 77
START: Final = "<|startoftext|>"
END: Final = "<|endoftext|>"

_CAPTION_WORDS: Final = ("a", "an", "on", "at", "shape", "background", "colour")
_MERGES: Final = 212


def _byte_symbols() -> list[str]:
    """Return the 256 printable stand-ins for bytes, in CLIP's own order."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) for byte in printable] + [chr(256 + index) for index in range(len(others))]


def _joined(symbols: tuple[str, ...], pair: tuple[str, str]) -> tuple[str, ...]:
    out: list[str] = []
    for symbol in symbols:
        if out and (out[-1], symbol) == pair:
            out[-1] += symbol
        else:
            out.append(symbol)
    return tuple(out)


def _learn_merges(words: list[str], count: int) -> list[tuple[str, str]]:
    """Learn byte-pair merges, most frequent first, ties in alphabetical order."""
    spelt = [(*word[:-1], word[-1] + "</w>") for word in words]
    merges: list[tuple[str, str]] = []
    while len(merges) < count:
        pairs = Counter(pair for word in spelt for pair in pairwise(word))
        if not pairs:
            break
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        spelt = [_joined(word, best) for word in spelt]
    return merges


def build() -> Any:
    """Return the CLIP tokenizer (699 tokens, 77 positions)."""
    own = [*COLOURS, *SHAPES, *SIZES, *(word for phrase in POSITIONS.values() for word in phrase.split())]
    words = sorted({*own, *_CAPTION_WORDS, *WORDS})
    # The captions' own words come first, so that each of them surely ends up whole.
    merges = _learn_merges(sorted({*own, "a", "an", "background", "shape"}), _MERGES)
    merges += [merge for merge in _learn_merges(words, 10 * _MERGES) if merge not in merges]
    merges = merges[:_MERGES]
    symbols = _byte_symbols()
    tokens = [*symbols, *(f"{symbol}</w>" for symbol in symbols), *("".join(merge) for merge in merges)]
    vocabulary = {token: index for index, token in enumerate(dict.fromkeys([*tokens, START, END]))}
    return TRANSFORMERS.CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=LENGTH)
