"""How CLIP text encoders cut a text into tokens, read from a model's own files without the libraries that draw."""

import gzip
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from tokenizers import AddedToken, Regex, Tokenizer, normalizers, pre_tokenizers
from tokenizers.models import BPE

from models_registry.refusals import ConfigInvalid
from models_registry.vocabularies.files import read_object, read_text

START: Final = "<|startoftext|>"
END: Final = "<|endoftext|>"
#: Places of a window where a tokenizer does not say, the two marks included.
LENGTH: Final = 77
#: One before the words of a window, one behind them.
MARKS: Final = 2
#: Packages that ship CLIP's merges as published; they are read, not imported.
_PACKAGES: Final = ("open_clip", "clip")
_MERGES: Final = "bpe_simple_vocab_16e6.txt.gz"
#: Merges of the published list that the published models use; the rest of it is never read.
_USED: Final = 49152 - 256 - 2
_WORDS: Final = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


class Vocabulary(NamedTuple):
    """Words, the pairs that are joined into them, and how many tokens a window holds between its marks."""

    vocab: dict[str, int]
    merges: list[tuple[str, str]]
    room: int


def find_merges() -> Path | None:
    """Return the file of CLIP's merges that an installed package ships."""
    for package in _PACKAGES:
        found = importlib.util.find_spec(package)
        for folder in (found.submodule_search_locations or []) if found is not None else []:
            path = Path(folder) / _MERGES
            if path.is_file():
                return path
    return None


def published_vocabulary(merges: Path) -> Vocabulary:
    """Return the vocabulary that CLIP's merges make: every byte, every byte at the end of a word, every merge, two marks.

    Raise `ConfigInvalid` when the file cannot be read.
    """
    try:
        lines = gzip.decompress(merges.read_bytes()).decode().splitlines()
    except (OSError, EOFError, ValueError) as error:
        raise ConfigInvalid(merges, f"cannot be read: {error}") from None
    pairs = [(one, other) for one, _, other in (line.partition(" ") for line in lines[1 : _USED + 1])]
    symbols = byte_symbols()
    words = [*symbols, *(f"{symbol}</w>" for symbol in symbols), *(one + other for one, other in pairs), START, END]
    return Vocabulary({word: number for number, word in enumerate(words)}, pairs, LENGTH - MARKS)


def read_vocabulary(folder: Path) -> Vocabulary:
    """Read the vocabulary of a tokenizer's folder (`tokenizer.json`, or `vocab.json` and `merges.txt`), raising `ConfigInvalid`."""
    whole = folder / "tokenizer.json"
    if whole.is_file():
        model = read_object(whole).get("model")
        if not isinstance(model, dict):
            raise ConfigInvalid(whole, "has no model")
        vocab, merges, path = model.get("vocab"), model.get("merges"), whole
    else:
        path = folder / "vocab.json"
        vocab, merges = read_object(path), read_text(folder / "merges.txt").splitlines()[1:]
    settings = folder / "tokenizer_config.json"
    length = read_object(settings).get("model_max_length") if settings.is_file() else None
    room = min(length, LENGTH) - MARKS if isinstance(length, int) and length > MARKS else LENGTH - MARKS
    return Vocabulary(_checked_words(vocab, path), _checked_pairs(merges, path), room)


def make_tokenizer(vocabulary: Vocabulary) -> Tokenizer:
    """Return what cuts a text as CLIP does, raising `ValueError` where the pairs are not those of the words."""
    try:
        model = BPE(vocab=vocabulary.vocab, merges=vocabulary.merges, end_of_word_suffix="</w>", unk_token=END)
    except Exception as error:  # noqa: BLE001 - the library raises nothing narrower
        raise ValueError(str(error)) from None
    # A model's own rules are not taken over: all CLIPs have these, and a foreign expression might never end.
    made = Tokenizer(model)
    made.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORDS), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    made.add_special_tokens([AddedToken(mark, normalized=False, special=True) for mark in (START, END)])
    return made


def byte_symbols() -> list[str]:
    """Return a visible character for each byte, as byte-level BPE writes them: itself where it is visible, else one from beyond."""
    visible = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    hidden = [byte for byte in range(256) if byte not in visible]
    return [chr(byte) for byte in visible] + [chr(256 + place) for place in range(len(hidden))]


def _checked_words(vocab: object, path: Path) -> dict[str, int]:
    if not isinstance(vocab, dict) or not vocab or not all(type(number) is int for number in vocab.values()):
        raise ConfigInvalid(path, "has no words with numbers")
    if not all(0 <= number < 2**31 for number in vocab.values()):
        raise ConfigInvalid(path, "numbers its words beyond what a vocabulary can hold")
    return vocab


def _checked_pairs(merges: object, path: Path) -> list[tuple[str, str]]:
    if not isinstance(merges, Sequence) or isinstance(merges, str):
        raise ConfigInvalid(path, "has no merges")
    pairs = [each.split(" ") if isinstance(each, str) else each for each in merges if each]
    for pair in pairs:
        if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(part, str) for part in pair):  # noqa: PLR2004 - a pair
            raise ConfigInvalid(path, "joins what is no pair")
    return [(one, other) for one, other in pairs]
