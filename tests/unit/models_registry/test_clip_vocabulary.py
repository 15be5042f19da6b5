"""The vocabulary of a CLIP text encoder, out of each form in which models bring it; and what is none."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

import reference_models
from models_registry.refusals import ModelRefused
from models_registry.vocabularies.clip import Vocabulary, make_tokenizer, published_vocabulary, read_vocabulary

REFERENCE = Path(reference_models.__file__).parent / "shapes-sd15" / "tokenizer"


def _ids(vocabulary: Vocabulary, text: str) -> list[int]:
    return make_tokenizer(vocabulary).encode(text, add_special_tokens=False).ids


def _older_form(folder: Path) -> Path:
    """Write the reference model's tokenizer as most published checkpoints have it."""
    model = json.loads((REFERENCE / "tokenizer.json").read_text())["model"]
    folder.mkdir()
    (folder / "vocab.json").write_text(json.dumps(model["vocab"]))
    pairs = [pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]]
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *pairs, ""]))
    return folder


def test_both_forms_cut_alike(tmp_path: Path) -> None:
    """`tokenizer.json`, and `vocab.json` with `merges.txt`: a word of the captions is one token, others fall apart."""
    new, old = read_vocabulary(REFERENCE), read_vocabulary(_older_form(tmp_path / "old"))
    assert new.room == old.room == 75
    assert len(_ids(new, "a red circle")) == 3
    for text in ("a red circle", "Zebra!", "  two\n\tlines ", "a<|endoftext|>b", ""):
        assert _ids(new, text) == _ids(old, text)


def test_published_merges_make_the_published_tokens(tmp_path: Path) -> None:
    """Bytes, bytes at the end of a word, merges and two marks, in this order."""
    path = tmp_path / "merges.txt.gz"
    path.write_bytes(gzip.compress(b'"version"\nr e\nre d</w>\n'))
    vocabulary = published_vocabulary(path)
    assert len(vocabulary.vocab) == 256 + 256 + 2 + 2
    assert _ids(vocabulary, "RED a") == [513, 256 + ord("a") - ord("!")]


@pytest.mark.parametrize(("length", "room"), [(77, 75), (32, 30), (10**30, 75), (1, 75), ("many", 75), (None, 75)])
def test_room_is_what_the_tokenizer_says(tmp_path: Path, length: object, room: int) -> None:
    """As long as it makes sense; no CLIP has more than 77 places."""
    folder = _older_form(tmp_path / "tokenizer")
    (folder / "tokenizer_config.json").write_text(json.dumps({"model_max_length": length}))
    assert read_vocabulary(folder).room == room


@pytest.mark.parametrize(
    "model",
    [
        None,
        {},
        {"vocab": {}, "merges": []},
        {"vocab": {"a": "1"}, "merges": []},
        {"vocab": {"a": True}, "merges": []},
        {"vocab": {"a": -1}, "merges": []},
        {"vocab": {"a": 2**40}, "merges": []},
        {"vocab": {"a": 0}, "merges": "a b"},
        {"vocab": {"a": 0}, "merges": ["a"]},
        {"vocab": {"a": 0}, "merges": [["a", 1]]},
        {"vocab": {"a": 0}, "merges": [["a", "a", "a"]]},
        {"vocab": {"a": 0}, "merges": [["a", "b"]]},
    ],
)
def test_what_is_no_vocabulary_is_refused(tmp_path: Path, model: Any) -> None:
    """Whatever stands in the file, nothing else than a refusal comes of it."""
    (tmp_path / "tokenizer.json").write_text(json.dumps({"model": model}))
    with pytest.raises((ModelRefused, ValueError)):
        make_tokenizer(read_vocabulary(tmp_path))


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff", b"[" * 100_000, b'{"model": '])
def test_what_is_no_json_is_refused(tmp_path: Path, content: bytes) -> None:
    """Damaged files are named."""
    (tmp_path / "tokenizer.json").write_bytes(content)
    with pytest.raises(ModelRefused, match=r"tokenizer\.json"):
        read_vocabulary(tmp_path)


def test_own_rules_of_a_model_are_not_run(tmp_path: Path) -> None:
    """An expression in the file that would never end is not even read."""
    whole = json.loads((REFERENCE / "tokenizer.json").read_text())
    whole["pre_tokenizer"] = {
        "type": "Split", "pattern": {"Regex": "(a+)+$"}, "behavior": "Isolated", "invert": False,
    }  # fmt: skip
    (tmp_path / "tokenizer.json").write_text(json.dumps(whole))
    text = "a" * 5_000 + "!"
    assert _ids(read_vocabulary(tmp_path), text) == _ids(read_vocabulary(REFERENCE), text)
