"""How long a prompt is, told before it is sent."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import reference_models
from models_registry.entries import Kind, Layout

REFERENCE = Path(reference_models.__file__).parent / "shapes-sd15"
NOTHING: dict[str, Any] = {"native_size": 0, "latent_factor": 0, "latent_channels": 0}


@pytest.fixture(scope="module")
def shelf(shared_world: Any) -> Any:
    """Register a model whose files are here, a single file, one whose files are elsewhere, an embedding, one of a foreign family."""
    shared_world.add_model("here", path=REFERENCE)
    single = shared_world.home / "single.safetensors"
    shutil.copytree(REFERENCE / "tokenizer", shared_world.home / "single.config" / "tokenizer")
    shared_world.add_model("single", path=single, layout=Layout.SINGLE_FILE)
    shared_world.add_model("bare", path=shared_world.home / "bare.safetensors", layout=Layout.SINGLE_FILE)
    shared_world.add_model("flux", family="flux", path=REFERENCE)
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


@pytest.mark.parametrize("model", ["shapes-sd15", "flux", "broken"])
def test_count_that_cannot_be_known_is_null(count: Any, model: str) -> None:
    """Files on another host, a family that counts in another way, a damaged vocabulary: nothing is guessed."""
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
