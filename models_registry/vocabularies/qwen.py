"""How Qwen cuts a text into tokens, from the files of a model; and the chat that a prompt is a line of, where a language model reads it."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from tokenizers import AddedToken, Regex, Tokenizer, normalizers, pre_tokenizers
from tokenizers.models import BPE

from models_registry.reading.bounded_files import Reads, read_small
from models_registry.refusals import ConfigInvalid
from models_registry.vocabularies.clip import LARGEST_FILE, read_vocabulary
from models_registry.vocabularies.t5 import count_pieces

#: Words with the sign before them, digits one by one, signs, and ends of lines: so all Qwens part a text before they join pieces.
_WORDS: Final = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
#: What fills a text up; every Qwen knows it, listed or not.
_END_OF_TEXT: Final = "<|endoftext|>"
#: Marks beside the vocabulary: the published models have 26 of at most 21 characters.
MOST_MARKS: Final = 2_000
_LONGEST_MARK: Final = 200
_FLAGS: Final = ("single_word", "lstrip", "rstrip", "normalized", "special")


class Chat(NamedTuple):
    """Say what lies around a prompt, and how much of both together is read."""

    before: str
    behind: str
    #: Tokens, those around the prompt among them.
    longest: int


#: By family: what its prompts lie in. A model's own template is a program in a file of somebody else's, and never run.
CHATS: Final[Mapping[str, Chat]] = MappingProxyType(
    {
        "zimage": Chat("<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n", 512),
        # Klein's, without thinking; that of dev is another's (`mistral`).
        "flux2": Chat("<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n", 512),
        # What lies before the prompt takes 34 tokens; the transformer reads the 1024 behind them.
        "qwenimage": Chat(
            "<|im_start|>system\nDescribe the image by detailing the color, shape, size, texture, quantity, text, spatial relationships"
            " of the objects and background:<|im_end|>\n<|im_start|>user\n",
            "<|im_end|>\n<|im_start|>assistant\n",
            34 + 1024,
        ),
    }
)


def read_qwen_tokenizer(folder: Path) -> Tokenizer | None:
    """Return what cuts a text as a model's Qwen does; None where its folder has no vocabulary.

    Raise `ConfigInvalid` when a file cannot be read, or holds no vocabulary of Qwen.
    """
    if not any((folder / name).is_file() for name in ("tokenizer.json", "vocab.json")):
        return None
    vocabulary = read_vocabulary(folder)
    try:
        # A model's own rules are not taken over, as where it draws: all Qwens have these.
        made = Tokenizer(BPE(vocab=vocabulary.vocab, merges=vocabulary.merges))
        made.normalizer = normalizers.NFC()
        made.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(_WORDS), behavior="isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
        made.add_tokens([*listed_marks(folder), AddedToken(_END_OF_TEXT, normalized=False, special=True)])
    except ConfigInvalid:
        raise
    except Exception as error:  # noqa: BLE001 - the library raises nothing narrower
        raise ConfigInvalid(folder, f"holds no vocabulary of Qwen: {error}") from None
    return made


def room_of(tokenizer: Tokenizer, chat: Chat) -> int:
    """Return how many tokens a prompt may have in a chat."""
    return chat.longest - count_pieces(tokenizer, chat.before + chat.behind)


def count_in_chat(tokenizer: Tokenizer, chat: Chat, text: str) -> int:
    """Return how many tokens a prompt adds to its chat: at its ends it may be joined with what lies around it.

    Raise `ValueError` where a damaged vocabulary does not let it be read.
    """
    around = count_pieces(tokenizer, chat.before + chat.behind)
    return count_pieces(tokenizer, chat.before + text + chat.behind) - around


def listed_marks(folder: Path) -> list[AddedToken]:
    """Return the marks that are never cut, by the first of the files that may list them, raising `ConfigInvalid`."""
    settings, whole = folder / "tokenizer_config.json", folder / "tokenizer.json"
    for path, key in ((settings, "added_tokens_decoder"), (whole, "added_tokens")):
        listed = read_object(path).get(key) if path.is_file() else None
        if listed:
            return list(_checked(listed, path))
    older = folder / "added_tokens.json"
    return list(_checked([{"content": each} for each in read_object(older)], older)) if older.is_file() else []


def read_object(path: Path) -> dict[str, Any]:
    """Return the object that a file of a vocabulary holds, raising `ConfigInvalid`."""
    try:
        found = json.loads(read_small(path, LARGEST_FILE, Reads()))
    except (ValueError, RecursionError):
        raise ConfigInvalid(path, "is not JSON") from None
    if not isinstance(found, dict):
        raise ConfigInvalid(path, "is not an object")
    return found


def _checked(listed: object, path: Path) -> Iterator[AddedToken]:
    marks = list(listed.values()) if isinstance(listed, dict) else listed
    if not isinstance(marks, list) or len(marks) > MOST_MARKS:
        raise ConfigInvalid(path, "lists no marks, or more than any model has")
    for each in marks:
        content = each.get("content") if isinstance(each, dict) else None
        if not isinstance(content, str) or not 0 < len(content) <= _LONGEST_MARK:
            raise ConfigInvalid(path, "lists a mark that is none")
        yield AddedToken(content, **{flag: bool(each[flag]) for flag in _FLAGS if flag in each})
