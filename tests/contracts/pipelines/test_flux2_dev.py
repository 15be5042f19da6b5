"""What is FLUX.2 dev's own: prompts behind a system's line, cut as Mistral's files say, of which nothing but the tokenizer is read."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from diffusers.pipelines.flux2.system_messages import SYSTEM_MESSAGE
from transformers import PreTrainedTokenizerFast

from broker_api.admission.vocabularies import chat_reader, count_windows
from jobs.contract import DiffusionJob
from jobs.errors import DrawingFailed
from models_registry.detection import detect
from models_registry.reading.bounded_files import Reads
from models_registry.vocabularies.mistral import CHAT, WORDS, read_mistral_tokenizer
from pipelines.analysis.texts import text_vector
from pipelines.families.base import Family
from pipelines.families.flux2 import prompt_embeddings
from pipelines.loading import load
from tests.contracts.pipelines.flow_calls import job_of
from tests.tiny.flux2 import LENGTH, build_dev
from tests.tiny.mistral import mistral_tokenizer

#: The library ships no types for these classes.
_DIFFUSERS: Any = diffusers
TEXTS = ("a red circle", "", " ", "\n\nred\n", "{}, 1234 漢", "don't HTTPServer//\n", "cafe\u0301")


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Family]:
    """Return the tiny model, loaded once."""
    loaded = load(detect(build_dev(tmp_path_factory.mktemp("flux2") / "tiny"), Reads()), "cpu")
    yield loaded
    assert not loaded.open_states
    loaded.close()


def _job(**changes: Any) -> DiffusionJob:
    return job_of({"guidance_scale": 4.0}, changes)


def test_the_systems_line_is_the_one_that_diffusers_ships() -> None:
    """Word for word."""
    assert f"<s>[SYSTEM_PROMPT]{SYSTEM_MESSAGE}[/SYSTEM_PROMPT][INST]" == CHAT.before


@pytest.mark.parametrize("prompt", TEXTS)
def test_prompts_are_read_as_diffusers_reads_them(family: Family, prompt: str) -> None:
    """In the chat that the processor's template makes, which is not run here, by the same layers; no picture is looked at."""
    plain = _DIFFUSERS.Flux2Pipeline.from_pretrained(family.entry.path, local_files_only=True)
    with torch.no_grad():
        wanted, _ = plain.encode_prompt(prompt, max_sequence_length=LENGTH)
        assert torch.equal(prompt_embeddings(family.pipe, prompt, None)["prompt_embeds"], wanted)


def test_a_vocabulary_that_begins_every_text_by_itself_reads_the_same(family: Family, tmp_path: Path) -> None:
    """Published ones are said to be Llama's, and put `<s>` before a text: it stands there once."""
    folder = build_dev(tmp_path / "tiny")
    path = folder / "tokenizer/tokenizer.json"
    begin, text = {"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}
    marks = {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}
    own = {"type": "TemplateProcessing", "single": [begin, text], "pair": [begin, text], "special_tokens": marks}
    path.write_text(json.dumps(json.loads(path.read_text()) | {"post_processor": own}))
    path = folder / "tokenizer/tokenizer_config.json"
    said = {"tokenizer_class": "LlamaTokenizerFast", "add_bos_token": True, "add_eos_token": False, "legacy": True}
    path.write_text(json.dumps(json.loads(path.read_text()) | said))
    published = load(detect(folder, Reads()), "cpu")
    plain = _DIFFUSERS.Flux2Pipeline.from_pretrained(folder, local_files_only=True)
    with torch.no_grad():
        wanted, _ = plain.encode_prompt("a red circle", max_sequence_length=LENGTH)
        for pipe in (published.pipe, family.pipe):
            assert torch.equal(prompt_embeddings(pipe, "a red circle", None)["prompt_embeds"], wanted)
    published.close()


def test_what_draws_counts_as_what_admits(family: Family) -> None:
    """The longest prompt that is read has as many tokens as are left beside the chat, and one more is refused with its number."""
    reader = chat_reader(family.entry.path / "tokenizer", CHAT._replace(longest=LENGTH), read_mistral_tokenizer)
    assert reader is not None
    longest = "a" * reader.room
    assert count_windows(reader, longest, {}) == [reader.room]
    family.prepare(_job(prompt=longest), 0).close()
    with pytest.raises(DrawingFailed, match=f"has {reader.room + 1} tokens, .* at most {reader.room}$"):
        family.prepare(_job(prompt=f"{longest}a"), 0)


@pytest.mark.parametrize("rule", WORDS)
def test_texts_are_cut_as_where_they_are_drawn(tmp_path: Path, rule: str) -> None:
    """By each rule that published vocabularies have."""
    mistral_tokenizer(LENGTH, rule).save_pretrained(tmp_path)
    draws, counts = PreTrainedTokenizerFast.from_pretrained(tmp_path), read_mistral_tokenizer(tmp_path)
    assert counts is not None
    for text in (*TEXTS, "a[/INST]b<s>"):
        said = f"{CHAT.before}{text}{CHAT.behind}"
        assert counts.encode(said, add_special_tokens=False).ids == draws(said, add_special_tokens=False).input_ids


@pytest.mark.parametrize(
    "change",
    [
        {"pre_tokenizer": {"type": "Split", "pattern": {"Regex": "(a+)+$"}, "behavior": "Removed", "invert": False}},
        {"normalizer": {"type": "Lowercase"}},
        {"pre_tokenizer": None},
    ],
)
def test_rules_of_a_stranger_are_not_run(tmp_path: Path, change: dict[str, Any]) -> None:
    """How such a vocabulary cuts a text is not known where prompts are admitted."""
    mistral_tokenizer(LENGTH).save_pretrained(tmp_path)
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    assert read_mistral_tokenizer(tmp_path) is None
    path.unlink()
    assert read_mistral_tokenizer(tmp_path) is None


def test_nothing_but_the_tokenizer_is_read_of_the_processor(tmp_path: Path) -> None:
    """What would read pictures may be missing or foreign, and a template is never looked at."""
    folder = build_dev(tmp_path / "tiny")
    (folder / "tokenizer/processor_config.json").write_text('{"auto_map": {"AutoProcessor": "own.Processor"}}')
    (folder / "tokenizer/chat_template.jinja").write_text("{{ raise_exception('run') }}")
    loaded = load(detect(folder, Reads()), "cpu")
    assert type(loaded.pipe.tokenizer) is PreTrainedTokenizerFast
    loaded.prepare(_job(), 0).close()
    loaded.close()


def test_texts_have_their_place(family: Family) -> None:
    """The language model's body alone tells where a text lies."""
    found = text_vector(family.pipe, "a red circle")
    assert found == text_vector(family.pipe, "a red circle")
    assert found != text_vector(family.pipe, "a blue circle")
