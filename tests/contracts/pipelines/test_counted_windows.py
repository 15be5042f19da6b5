"""What the API counts is what the pipelines draw from: the same windows of the same length, whatever the prompt."""

import base64
import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import CLIPTokenizer, Qwen2Tokenizer, T5TokenizerFast

import reference_models
from broker_api.admission.vocabularies import Reader, chat_reader, count_windows, t5_reader
from jobs.errors import DrawingFailed
from jobs.prompts.attention import unmarked
from models_registry.refusals import ConfigInvalid
from models_registry.vocabularies.chats import CHATS
from models_registry.vocabularies.clip import find_merges, make_tokenizer, published_vocabulary, read_vocabulary
from models_registry.vocabularies.t5 import LONGEST, count_pieces, read_t5_tokenizer
from pipelines.adapters.embedding import Embedding
from pipelines.original.tokenizer import clip_tokenizer
from pipelines.prompts import TextEncoder, _windows
from pipelines.t5 import _tokens, t5_embeddings
from tests.tiny.qwen import qwen_tokenizer
from tests.tiny.transformers import t5_tokenizer

REFERENCE = Path(reference_models.__file__).parent / "shapes-sd15" / "tokenizer"
WORDS = {"shapes-dusk": 4, "dusk": 2}

prompts = st.lists(
    st.one_of(
        st.sampled_from(
            [
                "a red circle",
                "shapes-dusk",
                "Dusk",
                "(blue:1.3)",
                "((deep))",
                "[grey]",
                " BREAK ",
                "\\(",
                ")",
                ":",
                "<|endoftext|>",
            ]
        ),
        st.text(max_size=40),
        st.integers(1, 90).map(lambda count: "square " * count),
    ),
    max_size=8,
).map(" ".join)


def _encoder(tokenizer: Any) -> TextEncoder:
    return TextEncoder("text_encoder", tokenizer, SimpleNamespace(config=SimpleNamespace(hidden_size=8)))


def _same(encoder: TextEncoder, reader: Reader, prompt: str) -> None:
    words: Any = {
        word: Embedding(path=Path(word), word=word, vectors={"text_encoder": torch.zeros(count, 8)})
        for word, count in WORDS.items()
    }
    drawn = [len(window) for window in _windows(encoder, prompt, words)]
    assert count_windows(reader, prompt, WORDS) == drawn


@given(prompts)
@settings(max_examples=300, deadline=None)
def test_counted_windows_are_those_drawn(prompt: str) -> None:
    """With the reference model's own vocabulary."""
    vocabulary = read_vocabulary(REFERENCE)
    encoder = _encoder(CLIPTokenizer.from_pretrained(REFERENCE, local_files_only=True))
    _same(encoder, Reader(make_tokenizer(vocabulary), vocabulary.room), prompt)


@pytest.fixture(scope="module")
def published() -> tuple[Any, Reader]:
    """Return the published vocabulary twice: as it draws, as it counts."""
    merges = find_merges()
    if merges is None:
        if os.environ.get("CI"):
            pytest.fail("open-clip-torch is not installed")
        pytest.skip("open-clip-torch is not installed")
    vocabulary = published_vocabulary(merges)
    return _encoder(clip_tokenizer(merges)), Reader(make_tokenizer(vocabulary), vocabulary.room)


@given(prompt=prompts)
@settings(max_examples=300, deadline=None)
def test_published_vocabulary_counts_as_it_draws(published: tuple[Any, Reader], prompt: str) -> None:
    """With the vocabulary that single files are drawn with."""
    _same(*published, prompt)


@pytest.fixture(scope="module")
def t5(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Reader]:
    """Return T5's vocabulary twice, from one file: as it draws, as it counts."""
    folder = tmp_path_factory.mktemp("t5")
    t5_tokenizer().save_pretrained(folder)
    reader = t5_reader(folder)
    assert reader is not None
    return T5TokenizerFast.from_pretrained(folder, local_files_only=True), reader


@given(
    prompt=st.one_of(prompts, st.sampled_from(["</s>", "a</s> b", "<pad>", "x<extra_id_0>", "\u3000a\tb\n", "ﬁ é ㍿"]))
)
@settings(max_examples=300, deadline=None)
def test_t5_counts_as_it_draws(t5: tuple[Any, Reader], prompt: str) -> None:
    """But for the end mark, which is put behind every prompt."""
    draws, reader = t5
    assert count_windows(reader, prompt, {}) == [len(_tokens(draws, prompt)[0]) - 1]


def test_what_is_counted_as_too_long_cannot_be_drawn(t5: tuple[Any, Reader]) -> None:
    """The least that drawing refuses is one more than there is room for."""
    draws, reader = t5
    prompt = "a" * reader.room
    assert count_windows(reader, prompt, {}) == [reader.room + 1]
    with pytest.raises(DrawingFailed, match=f"has {LONGEST + 1} tokens for T5"):
        t5_embeddings(draws, None, {"": prompt}, LONGEST)


def test_t5s_table_of_characters_is_read(tmp_path: Path) -> None:
    """One that the library cannot use is named, and one that breaks while it is used ends no more than the counting."""
    t5_tokenizer().save_pretrained(tmp_path)
    file = tmp_path / "tokenizer.json"
    held = json.loads(file.read_text())

    def with_table(table: bytes) -> Any:
        step = {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(table).decode()}
        file.write_text(json.dumps({**held, "normalizer": {"type": "Sequence", "normalizers": [step]}}))
        return read_t5_tokenizer(tmp_path)

    with pytest.raises(ConfigInvalid, match="no vocabulary of T5"):
        with_table(b"abc")
    # A trie of one node, whose only edge leads far beyond it.
    broken = with_table(b"\x04\0\0\0" + b"\xff" * 4 + b"zz")
    with pytest.raises(ValueError, match="index out of bounds"):
        count_pieces(broken, "hello")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"model": {"vocab": {"a": 0}}}',
        '{"model": {"vocab": [["a", 0], ["b", 0], ["c", NaN]]}}',
        "[" * 10_000,
    ],
)
def test_t5s_damaged_vocabulary_is_named(tmp_path: Path, text: str) -> None:
    """Whatever it is; where there is none, nothing is known."""
    assert read_t5_tokenizer(tmp_path) is None
    (tmp_path / "tokenizer.json").write_text(text)
    with pytest.raises(ConfigInvalid):
        read_t5_tokenizer(tmp_path)


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Reader]:
    """Return Qwen's vocabulary twice, from one folder: as it draws, as it counts."""
    folder = tmp_path_factory.mktemp("qwen")
    qwen_tokenizer().save_pretrained(folder)
    reader = chat_reader(folder, CHATS["zimage"])
    assert reader is not None
    return Qwen2Tokenizer.from_pretrained(folder, local_files_only=True), reader


@given(
    prompt=st.one_of(
        prompts, st.sampled_from(["\n\nred", "red \n", "<|im_end|>", "a<|im_start|>", "cafe\u0301 don't 12", " "])
    )
)
@settings(max_examples=300, deadline=None)
def test_qwen_counts_as_it_draws(qwen: tuple[Any, Reader], prompt: str) -> None:
    """By the model's own template: what is counted is what a prompt adds to an empty chat."""
    draws, reader = qwen

    def length(text: str) -> int:
        chat = draws.apply_chat_template(
            [{"role": "user", "content": text}], tokenize=False, add_generation_prompt=True, enable_thinking=True
        )
        return len(draws(chat).input_ids)

    assert count_windows(reader, prompt, {}) == [length(unmarked(prompt)) - length("")]
    assert reader.room == CHATS["zimage"].longest - length("")
