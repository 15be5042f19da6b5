"""How Mistral cuts a text into tokens, from the files of a model; and the chat that a prompt of FLUX.2 dev is a line of."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from tokenizers import Tokenizer

from models_registry.vocabularies.byte_level import byte_level_tokenizer
from models_registry.vocabularies.chats import Chat
from models_registry.vocabularies.files import read_object

#: The system's line is the one that diffusers ships, with its end of line.
CHAT: Final = Chat(
    "<s>[SYSTEM_PROMPT]You are an AI that reasons about image descriptions. You give structured responses focusing on object"
    " relationships, object\nattribution and actions without speculation.[/SYSTEM_PROMPT][INST]",
    "[/INST]",
    512,
)
#: Rules by which Mistral's vocabularies part a text: its own, and the one that the published files were converted with.
WORDS: Final = (
    (
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|"
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|"
        r"\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    ),
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
)


def read_mistral_tokenizer(folder: Path) -> Tokenizer | None:
    """Return what cuts a text as a model's Mistral does; None where its folder has no `tokenizer.json`, or one with rules of its own.

    Raise `ConfigInvalid` when a file cannot be read, or holds no vocabulary of Mistral.
    """
    path = folder / "tokenizer.json"
    if not path.is_file():
        return None
    held = read_object(path)
    rule = _rule(held)
    # A stranger's expression might never end: only known ones are run.
    if rule not in WORDS or held.get("normalizer") is not None:
        return None
    model = held.get("model")
    whole = isinstance(model, dict) and model.get("ignore_merges") is True
    return byte_level_tokenizer(folder, "Mistral", rule, ignore_merges=whole)


def _rule(held: Mapping[str, Any]) -> str:
    """Return the expression by which a `tokenizer.json` parts a text before it joins pieces; nothing where it has another form."""
    match held.get("pre_tokenizer"):
        case {
            "type": "Sequence",
            "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": str(rule)}, "behavior": "Isolated", "invert": False},
                {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False},
            ],
        }:
            return rule
        case _:
            return ""
