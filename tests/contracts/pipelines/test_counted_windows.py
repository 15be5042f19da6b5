"""What the API counts is what the pipelines draw from: the same windows of the same length, whatever the prompt."""

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import CLIPTokenizer

import reference_models
from broker_api.vocabularies import Reader, count_windows
from models_registry.clip_vocabulary import find_merges, make_tokenizer, published_vocabulary, read_vocabulary
from pipelines.adapters.embedding import Embedding
from pipelines.original.tokenizer import clip_tokenizer
from pipelines.prompts import TextEncoder, _windows

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
