"""How long a prompt is, told before it is sent."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import reference_models
from models_registry.entries import Component, Kind, Layout
from models_registry.vocabularies.mistral import WORDS
from tests.tiny.mistral import mistral_tokenizer
from tests.tiny.qwen import qwen_tokenizer
from tests.tiny.qwenimage import TEMPLATE_WORDS
from tests.tiny.transformers import t5_tokenizer

REFERENCE = Path(reference_models.__file__).parent / "shapes-sd15"
#: 512 tokens for the tiny T5: a mark for the beginning of the word, and its letters.
LONG = "a" * 511
#: One token more than Qwen-Image reads, for the tiny one.
LONGER = "a" * 1020
LATENTS: dict[str, Any] = {"native_size": 128, "latent_factor": 8, "latent_channels": 4}
NOTHING: dict[str, Any] = {"native_size": 0, "latent_factor": 0, "latent_channels": 0}


@pytest.fixture(scope="module")
def shelf(shared_world: Any) -> Any:
    """Register a model whose files are here, a single file, one whose files are elsewhere, an embedding, some that T5 reads for."""
    shared_world.add_model("here", path=REFERENCE)
    single = shared_world.home / "single.safetensors"
    shutil.copytree(REFERENCE / "tokenizer", shared_world.home / "single.config" / "tokenizer")
    shared_world.add_model("single", path=single, layout=Layout.SINGLE_FILE)
    shared_world.add_model("bare", path=shared_world.home / "bare.safetensors", layout=Layout.SINGLE_FILE)
    shared_world.add_model("flux", family="flux", variant="dev", path=REFERENCE)
    for name, family, variant, tokenizer in (
        ("flux-here", "flux", "dev", "tokenizer_2"),
        ("sd3-here", "sd3", "medium", "tokenizer_3"),
    ):
        t5_tokenizer().save_pretrained(shared_world.home / name / tokenizer)
        shared_world.add_model(name, family=family, variant=variant, path=shared_world.home / name, **LATENTS)
    shared_world.add_model("sd3-clip", family="sd3", variant="medium", path=REFERENCE)
    qwen_tokenizer(TEMPLATE_WORDS).save_pretrained(shared_world.home / "qwenimage-here" / "tokenizer")
    qwen_tokenizer().save_pretrained(shared_world.home / "flux2-here" / "tokenizer")
    place = shared_world.home / "flux2-here"
    shared_world.add_model("flux2-here", family="flux2", variant="klein-base", path=place, **LATENTS)
    for name, rule in (("flux2-dev-here", WORDS[0]), ("flux2-dev-own", "(a+)+$")):
        mistral_tokenizer(512, rule).save_pretrained(shared_world.home / name / "tokenizer")
        shared_world.add_model(name, family="flux2", variant="dev", path=shared_world.home / name, **LATENTS)
    shared_world.add_model("qwenimage-here", family="qwenimage", path=shared_world.home / "qwenimage-here", **LATENTS)
    shared_world.add_model("qwenimage-away", family="qwenimage", path=shared_world.home / "nowhere", **LATENTS)
    third = Component(name="text_encoder_3", bytes=1, parameters=1, dtype="F32")
    shared_world.add_model("sd3-spiece", family="sd3", variant="medium", path=REFERENCE, components=(third,))
    qwen_tokenizer().save_pretrained(shared_world.home / "zimage-here" / "tokenizer")
    shared_world.add_model("zimage-here", family="zimage", path=shared_world.home / "zimage-here", **LATENTS)
    broken = shared_world.home / "broken" / "tokenizer"
    broken.mkdir(parents=True)
    (broken / "tokenizer.json").write_text("no vocabulary")
    shared_world.add_model("broken", path=broken.parent)
    shared_world.add_model("dusk", kind=Kind.EMBEDDING, vectors=4, **NOTHING)
    return shared_world


@pytest.fixture
def count(shared_live: Any, shelf: Any) -> Any:
    """Return a function that asks for the counts of a prompt."""

    def asked(prompt: str, model: str | None = "here", negative: str = "") -> Any:
        with shared_live.client(shelf.key()) as client:
            body = {"prompt": prompt, "negative_prompt": negative} | ({} if model is None else {"model": model})
            answer = client.post("/v1/prompts/tokens", json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()

    return asked


@pytest.mark.parametrize(
    ("prompt", "tokens", "windows"),
    [
        ("", 0, 1),
        ("a red circle", 3, 1),
        ("a (red:1.3) [circle]", 3, 1),
        ("a red circle <lora:any:0.5>", 3, 1),
        ("a red circle BREAK a blue star", 6, 2),
        ("circle " * 75, 75, 1),
        ("circle " * 76, 76, 2),
        ("a red dusk circle", 7, 1),
    ],
)
def test_prompt_is_counted_as_its_model_reads_it(count: Any, prompt: str, tokens: int, windows: int) -> None:
    """Emphasis and tags cost nothing, an embedding its vectors, and what does not fit goes into another window."""
    found = count(prompt)
    assert (found["window"], found["prompt"]) == (75, {"tokens": tokens, "windows": windows})
    assert count("", negative=prompt)["negative_prompt"] == found["prompt"]
    assert count(prompt, "single")["prompt"] == found["prompt"]


def test_single_file_without_a_vocabulary_has_the_published_one(count: Any) -> None:
    """A photo of a cat is five tokens for every published Stable Diffusion."""
    assert count("a photo of a cat", "bare")["prompt"] == {"tokens": 5, "windows": 1}


@pytest.mark.parametrize("model", ["flux-here", "sd3-here"])
@pytest.mark.parametrize(
    ("prompt", "tokens"), [("", 0), ("red", 4), ("a (red:1.3) <lora:any:0.5> BREAK b", 8), ("red " * 200, 800)]
)
def test_prompt_is_counted_as_t5_reads_it(count: Any, model: str, prompt: str, tokens: int) -> None:
    """One window whatever its length: here a token for each letter and the beginning of each word."""
    found = count(prompt, model)
    assert (found["window"], found["prompt"]) == (511, {"tokens": tokens, "windows": 1})


@pytest.mark.parametrize(
    ("prompt", "tokens"), [("", 0), ("red", 1), ("a (red:1.3) <lora:any:0.5> BREAK b", 4), ("é" * 509, 1018)]
)
@pytest.mark.parametrize(
    # In the chat of the one its transformer reads 1024 tokens from the prompt on, five of them behind it; in that of the other 512 in all.
    ("model", "window"),
    [("qwenimage-here", 1019), ("zimage-here", 496)],
)
def test_prompt_is_counted_as_qwen_reads_it(count: Any, model: str, window: int, prompt: str, tokens: int) -> None:
    """One window, without what lies around a prompt: here nearly a token for each byte."""
    found = count(prompt, model)
    assert (found["window"], found["prompt"]) == (window, {"tokens": tokens, "windows": 1})


def test_chat_takes_its_part_of_what_is_read(count: Any) -> None:
    """Of 512 tokens FLUX.2's chat takes 12 of the published ones, and more here, where nearly every letter is one."""
    found = count("a (red:1.3) circle", "flux2-here")
    assert found["prompt"] == count("a red circle", "flux2-here")["prompt"]
    assert found["prompt"]["windows"] == 1
    assert 400 < found["window"] < 500


def test_prompt_is_counted_as_mistral_reads_it(count: Any) -> None:
    """Beside the system's line, which takes as many tokens of the 512 as it has."""
    found = count("a (red:1.3) circle <lora:any:0.5>", "flux2-dev-here")
    # `a`, ` red`, and a space with the letters of the last word.
    assert (found["window"], found["prompt"]) == (480, {"tokens": 2 + len(" circle"), "windows": 1})


def test_stable_diffusion_3_without_t5_counts_as_clip_does(count: Any) -> None:
    """In windows, of which there may be several."""
    found = count("circle " * 76, "sd3-clip")
    assert (found["window"], found["prompt"]) == (75, {"tokens": 76, "windows": 2})


@pytest.mark.parametrize(
    ("model", "asked", "field"),
    [
        ("flux-here", {"prompt": LONG}, "prompt"),
        ("sd3-here", {"prompt": LONG}, "prompt"),
        ("sd3-here", {"prompt": "red", "negative_prompt": LONG}, "negative_prompt"),
        ("qwenimage-here", {"prompt": LONGER}, "prompt"),
        ("qwenimage-here", {"prompt": "red", "negative_prompt": LONGER}, "negative_prompt"),
        ("zimage-here", {"prompt": LONG}, "prompt"),
        ("flux2-dev-here", {"prompt": LONG}, "prompt"),
        ("zimage-here", {"prompt": "red", "negative_prompt": LONG, "guidance_scale": 0.5}, "negative_prompt"),
    ],
)
def test_prompt_that_is_not_read_to_its_end_is_refused(
    shared_live: Any, shelf: Any, model: str, asked: dict[str, Any], field: str
) -> None:
    """Before anything is stored, with its number of tokens and the limit."""
    with shared_live.client(shelf.key()) as client:
        answer = client.post("/v1/jobs?dry_run=1", json={"task": "txt2img", "model": model, **asked})
    assert (answer.status_code, answer.json()["code"], answer.json()["field"]) == (422, "prompt_too_long", field)
    longest = {"qwenimage-here": 1019, "zimage-here": 496, "flux2-dev-here": 480}.get(model, 511)
    count = max(len(text) for text in asked.values() if isinstance(text, str)) + (longest == 511)
    assert f"{count} tokens" in answer.json()["detail"]
    assert f"at most {longest}" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("model", "asked"),
    [
        ("flux-here", {"prompt": LONG[1:]}),
        ("sd3-here", {"prompt": "red", "negative_prompt": LONG, "guidance_scale": 1}),
        ("qwenimage-here", {"prompt": LONGER[1:]}),
        ("qwenimage-here", {"prompt": "red", "negative_prompt": LONGER, "guidance_scale": 1}),
        ("sd3-clip", {"prompt": LONG}),
        ("zimage-here", {"prompt": LONG[:496], "negative_prompt": LONG, "guidance_scale": 0}),
        # Not known here: what draws it has the last word.
        ("flux", {"prompt": LONG}),
    ],
)
def test_prompt_that_is_read_to_its_end_is_admitted(
    shared_live: Any, shelf: Any, model: str, asked: dict[str, Any]
) -> None:
    """One of exactly as many tokens, a negative one that nobody reads, and one that goes on in another window."""
    with shared_live.client(shelf.key()) as client:
        answer = client.post("/v1/jobs?dry_run=1", json={"task": "txt2img", "model": model, **asked})
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("model", ["shapes-sd15", "flux", "broken", "sd3-spiece", "qwenimage-away", "flux2-dev-own"])
def test_count_that_cannot_be_known_is_null(count: Any, model: str) -> None:
    """Files on another host, T5 without a `tokenizer.json`, a damaged vocabulary, rules of a stranger: nothing is guessed."""
    assert count("a red circle", model) == {"model": model, "window": None, "prompt": None, "negative_prompt": None}


def test_model_left_out_is_the_usual_one(count: Any) -> None:
    """As for a request that names none."""
    assert count("x", None)["model"] == "shapes-sd15"


def test_unknown_model_is_refused(shared_live: Any, shelf: Any) -> None:
    """With the nearest name, as a request is."""
    with shared_live.client(shelf.key()) as client:
        answer = client.post("/v1/prompts/tokens", json={"model": "heer", "prompt": "x"})
        too_long = client.post("/v1/prompts/tokens", json={"prompt": "x" * 32_001})
    assert (answer.status_code, answer.json()["code"], answer.json()["field"]) == (422, "model_unknown", "model")
    assert "here" in answer.json()["detail"]
    assert too_long.status_code == 422


def test_longest_prompt_is_counted(count: Any) -> None:
    """Of as many characters as a request may have."""
    assert count("circle " * 4_571)["prompt"]["tokens"] == 4_571


def test_counting_imports_nothing_that_draws() -> None:
    """The server counts without torch, diffusers or transformers."""
    script = "import sys, broker_api.routes; print([name for name in ('torch', 'diffusers', 'transformers') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
