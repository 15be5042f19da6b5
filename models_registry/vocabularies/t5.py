"""How T5 cuts a text into tokens, from the `tokenizer.json` of a model; a `spiece.model` alone is not read here."""

import base64
import binascii
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from tokenizers import AddedToken, Tokenizer, normalizers, pre_tokenizers
from tokenizers.models import Unigram

from models_registry.refusals import ConfigInvalid
from models_registry.vocabularies.files import read_object

#: Tokens of a prompt, the end mark among them: the models that read T5 were trained with no more.
LONGEST: Final = 512
#: Of the three marks that every vocabulary of T5 begins with.
_UNKNOWN: Final = 2
#: Vocabularies without it have a hundred of these.
_MARKS: Final = ("<pad>", "</s>", "<unk>", *(f"<extra_id_{number}>" for number in range(100)))


def read_t5_tokenizer(folder: Path) -> Tokenizer | None:
    """Return what cuts a text as a model's T5 does, without its end mark; None where its folder has no `tokenizer.json`.

    Raise `ConfigInvalid` when the file cannot be read, or holds no vocabulary of T5.
    """
    path = folder / "tokenizer.json"
    if not path.is_file():
        return None
    held = read_object(path)
    pieces, charsmap = _pieces(held, path), _charsmap(held, path)
    try:
        # A model's own rules are not taken over, as where it draws: all T5s have these.
        made = Tokenizer(Unigram(pieces, unk_id=_UNKNOWN, byte_fallback=False))
        if charsmap is not None:
            made.normalizer = normalizers.Precompiled(charsmap)
    except Exception as error:  # noqa: BLE001 - the library raises nothing narrower
        raise ConfigInvalid(path, f"holds no vocabulary of T5: {error}") from None
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.WhitespaceSplit(),
            pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always", split=True),
        ]
    )
    known = {piece for piece, _ in pieces}
    made.add_special_tokens([AddedToken(mark, normalized=False, special=True) for mark in _MARKS if mark in known])
    return made


def count_pieces(tokenizer: Tokenizer, text: str) -> int:
    """Return how many tokens a text has, raising `ValueError` where a damaged table of characters does not let it be read."""
    try:
        return len(tokenizer.encode(text, add_special_tokens=False).ids)
    except BaseException as error:
        # Of the library's own kind, and no `Exception`: it would end the thread's work.
        if type(error).__name__ != "PanicException":
            raise
        raise ValueError(str(error)) from None


def _pieces(held: Mapping[str, Any], path: Path) -> list[tuple[str, float]]:
    model = held.get("model")
    vocab = model.get("vocab") if isinstance(model, dict) else None
    if not isinstance(vocab, list) or len(vocab) <= _UNKNOWN:
        raise ConfigInvalid(path, "has no pieces with scores")
    pieces = []
    for each in vocab:
        match each:
            case [str(piece), int() | float() as score] if math.isfinite(score):
                pieces.append((piece, float(score)))
            case _:
                raise ConfigInvalid(path, "has a piece without a score")
    return pieces


def _charsmap(held: Mapping[str, Any], path: Path) -> bytes | None:
    """Return the table by which characters are brought to one form; None where there is none."""
    normalizer = held.get("normalizer")
    steps = normalizer.get("normalizers", [normalizer]) if isinstance(normalizer, dict) else []
    for step in steps if isinstance(steps, list) else []:
        if isinstance(step, dict) and step.get("type") == "Precompiled":
            try:
                return base64.b64decode(step["precompiled_charsmap"], validate=True)
            except (KeyError, TypeError, binascii.Error):
                raise ConfigInvalid(path, "has a damaged table of characters") from None
    return None
