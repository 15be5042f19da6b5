"""The vocabulary of Qwen, out of each form in which models bring it; and what is none."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from models_registry.refusals import ModelRefused
from models_registry.vocabularies.byte_level import MOST_MARKS
from models_registry.vocabularies.chats import CHATS, count_in_chat, room_of
from models_registry.vocabularies.qwen import read_qwen_tokenizer
from tests.tiny.qwen import MARKS, qwen_tokenizer

TEXTS = ("a red circle", "Zebra, 42!", "  two\n\n\tlines ", "a<|im_end|>b", "漢字 café", "")


def _whole(folder: Path) -> Path:
    """Write `tokenizer.json`, as every published folder has it."""
    qwen_tokenizer().save_pretrained(folder)
    return folder


def _older_form(folder: Path) -> Path:
    """Write `vocab.json`, `merges.txt` and the marks in the settings, as published folders have them too."""
    model = json.loads((_whole(folder / "whole") / "tokenizer.json").read_text())["model"]
    (folder / "vocab.json").write_text(json.dumps(model["vocab"]))
    pairs = [pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]]
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *pairs, ""]))
    listed = {str(len(model["vocab"]) + place): {"content": mark, "special": True} for place, mark in enumerate(MARKS)}
    (folder / "tokenizer_config.json").write_text(json.dumps({"added_tokens_decoder": listed}))
    return folder


def _cut(folder: Path, text: str) -> list[str]:
    made = read_qwen_tokenizer(folder)
    assert made is not None
    return made.encode(text).tokens


def test_every_form_cuts_alike(tmp_path: Path) -> None:
    """Both files, and marks that are listed in the settings or in a file of their own."""
    new, old = _whole(tmp_path / "new"), _older_form(tmp_path / "old")
    assert [_cut(new, text) for text in TEXTS] == [_cut(old, text) for text in TEXTS]
    # `a`, ` red`, and a space with the letters of the last word.
    assert len(_cut(new, "a red circle")) == 2 + len(" circle")
    (old / "tokenizer_config.json").unlink()
    (old / "added_tokens.json").write_text(json.dumps({mark: 300 + place for place, mark in enumerate(MARKS)}))
    assert [_cut(new, text) for text in TEXTS] == [_cut(old, text) for text in TEXTS]


def test_rules_of_a_file_are_never_run(tmp_path: Path) -> None:
    """Expressions and templates of a stranger change nothing: neither how a text is cut, nor what lies around a prompt."""
    folder = _whole(tmp_path)
    right = [_cut(folder, text) for text in TEXTS]
    held = json.loads((folder / "tokenizer.json").read_text())
    held["pre_tokenizer"] = {"type": "Split", "pattern": {"Regex": "(a+)+$"}, "behavior": "Removed", "invert": False}
    held["normalizer"] = {"type": "Lowercase"}
    (folder / "tokenizer.json").write_text(json.dumps(held))
    (folder / "chat_template.jinja").write_text("{% for each in range(99999999) %}x{% endfor %}")
    assert [_cut(folder, text) for text in TEXTS] == right


def test_prompt_counts_what_it_adds_to_its_chat(tmp_path: Path) -> None:
    """Its ends may be joined with the line that it stands in: then it counts less."""
    made, chat = read_qwen_tokenizer(_whole(tmp_path)), CHATS["zimage"]
    assert made is not None
    assert room_of(made, chat) == chat.longest - len(made.encode(chat.before + chat.behind).ids)
    assert [count_in_chat(made, chat, text) for text in ("", "a", "a red", "\na")] == [0, 1, 2, 1]


def test_folder_without_a_vocabulary_is_none(tmp_path: Path) -> None:
    """Nothing is guessed."""
    assert read_qwen_tokenizer(tmp_path) is None


def _changed(**values: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / "tokenizer.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | values))

    return change


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "tokenizer.json").write_text("no vocabulary"),
        _changed(model=None),
        _changed(model={"vocab": {"a": -1}, "merges": []}),
        _changed(model={"vocab": {"a": 0}, "merges": [["a", "b"]]}),
        _changed(added_tokens=[{"content": ""}]),
        _changed(added_tokens=[{"content": "x" * 1_000}]),
        _changed(added_tokens=["x"]),
        _changed(added_tokens=[{"content": f"<{number}>"} for number in range(MOST_MARKS + 1)]),
    ],
)
def test_damaged_vocabulary_is_refused(tmp_path: Path, damage: Callable[[Path], object]) -> None:
    """With the file at fault, whatever is wrong with it."""
    damage(_whole(tmp_path))
    with pytest.raises(ModelRefused):
        read_qwen_tokenizer(tmp_path)
