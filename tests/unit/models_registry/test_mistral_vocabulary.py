"""Mistral's vocabulary is read where its rules are known; what is damaged is said, and a stranger's rule is never run."""

import json
from pathlib import Path
from typing import Any

import pytest

from models_registry.refusals import ConfigInvalid
from models_registry.vocabularies.mistral import WORDS, read_mistral_tokenizer


def _write(folder: Path, rule: str = WORDS[0], **more: Any) -> Path:
    split = {"type": "Split", "pattern": {"Regex": rule}, "behavior": "Isolated", "invert": False}
    pieces = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    held = {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, pieces]}, "normalizer": None, **more}
    (folder / "tokenizer.json").write_text(json.dumps(held))
    return folder


@pytest.mark.parametrize("rule", WORDS)
def test_known_rules_are_run(tmp_path: Path, rule: str) -> None:
    """By either of them a text is cut, and a mark stays whole."""
    marks = [{"id": 3, "content": "[INST]", "special": True}]
    model = {"vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b"]}
    made = read_mistral_tokenizer(_write(tmp_path, rule, model=model, added_tokens=marks))
    assert made is not None
    assert made.encode("[INST]abb").tokens == ["[INST]", "ab", "b"]


def test_unknown_rules_are_not_run(tmp_path: Path) -> None:
    """Neither another expression, nor a normalizer; nor is anything made of a folder without the file."""
    assert read_mistral_tokenizer(tmp_path) is None
    assert read_mistral_tokenizer(_write(tmp_path, "(a+)+$")) is None
    assert read_mistral_tokenizer(_write(tmp_path, normalizer={"type": "NFC"})) is None


@pytest.mark.parametrize("model", [None, [], {}, {"vocab": {"a": 0}, "merges": [["b", "c"]]}])
def test_damaged_vocabularies_are_refused(tmp_path: Path, model: Any) -> None:
    """With a reason, whatever stands in the place of the model."""
    with pytest.raises(ConfigInvalid):
        read_mistral_tokenizer(_write(tmp_path, model=model))
