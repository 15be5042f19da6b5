"""How Qwen cuts a text into tokens, from the files of a model."""

from pathlib import Path
from typing import Final

from tokenizers import AddedToken, Tokenizer, normalizers

from models_registry.vocabularies.byte_level import byte_level_tokenizer

#: Words with the sign before them, digits one by one, signs, and ends of lines: so all Qwens part a text before they join pieces.
_WORDS: Final = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
#: What fills a text up; every Qwen knows it, listed or not.
_END_OF_TEXT: Final = "<|endoftext|>"


def read_qwen_tokenizer(folder: Path) -> Tokenizer | None:
    """Return what cuts a text as a model's Qwen does; None where its folder has no vocabulary.

    Raise `ConfigInvalid` when a file cannot be read, or holds no vocabulary of Qwen.
    """
    if not any((folder / name).is_file() for name in ("tokenizer.json", "vocab.json")):
        return None
    # A model's own rules are not taken over, as where it draws: all Qwens have these.
    end = AddedToken(_END_OF_TEXT, normalized=False, special=True)
    return byte_level_tokenizer(folder, "Qwen", _WORDS, more_marks=[end], normalizer=normalizers.NFC())
