"""What the vocabularies of language models have in common: pieces of bytes, cut within words by one rule, and marks that are never cut."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from tokenizers import AddedToken, Regex, Tokenizer, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.normalizers import Normalizer

from models_registry.refusals import ConfigInvalid
from models_registry.vocabularies.clip import read_vocabulary
from models_registry.vocabularies.files import read_object

#: Marks beside the vocabulary: the published models have 26 of at most 21 characters.
MOST_MARKS: Final = 2_000
_LONGEST_MARK: Final = 200
_FLAGS: Final = ("single_word", "lstrip", "rstrip", "normalized", "special")


def byte_level_tokenizer(
    folder: Path,
    title: str,
    rule: str,
    *,
    more_marks: Sequence[AddedToken] = (),
    normalizer: Normalizer | None = None,
    ignore_merges: bool = False,
) -> Tokenizer:
    """Return what cuts a text by a rule, with the vocabulary and the marks of a folder.

    Raise `ConfigInvalid` when a file cannot be read, or holds no vocabulary of the language model that `title` names.
    """
    vocabulary = read_vocabulary(folder)
    try:
        made = Tokenizer(BPE(vocab=vocabulary.vocab, merges=vocabulary.merges, ignore_merges=ignore_merges))
        if normalizer is not None:
            made.normalizer = normalizer
        made.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(rule), behavior="isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
        made.add_tokens([*_listed_marks(folder), *more_marks])
    except ConfigInvalid:
        raise
    except Exception as error:  # noqa: BLE001 - the library raises nothing narrower
        raise ConfigInvalid(folder, f"holds no vocabulary of {title}: {error}") from None
    return made


def _listed_marks(folder: Path) -> list[AddedToken]:
    """Return the marks that are never cut, by the first of the files that may list them, raising `ConfigInvalid`."""
    settings, whole = folder / "tokenizer_config.json", folder / "tokenizer.json"
    for path, key in ((settings, "added_tokens_decoder"), (whole, "added_tokens")):
        listed = read_object(path).get(key) if path.is_file() else None
        if listed:
            return list(_checked(listed, path))
    older = folder / "added_tokens.json"
    return list(_checked([{"content": each} for each in read_object(older)], older)) if older.is_file() else []


def _checked(listed: object, path: Path) -> Iterator[AddedToken]:
    marks = list(listed.values()) if isinstance(listed, dict) else listed
    if not isinstance(marks, list) or len(marks) > MOST_MARKS:
        raise ConfigInvalid(path, "lists no marks, or more than any model has")
    for each in marks:
        content = each.get("content") if isinstance(each, dict) else None
        if not isinstance(content, str) or not 0 < len(content) <= _LONGEST_MARK:
            raise ConfigInvalid(path, "lists a mark that is none")
        yield AddedToken(content, **{flag: bool(each[flag]) for flag in _FLAGS if flag in each})
