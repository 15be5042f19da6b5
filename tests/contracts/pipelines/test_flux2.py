"""What is FLUX.2's own: prompts in a chat, latents that the transformer sees four in a cell, pictures of any size."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from broker_api.admission.vocabularies import chat_reader, count_windows
from jobs.contract import DiffusionJob
from jobs.errors import DrawingFailed
from jobs.inputs import Inputs
from models_registry.vocabularies.chats import CHATS
from pipelines.analysis.texts import text_vector
from pipelines.families.base import Family
from pipelines.families.flux2 import prompt_embeddings
from pipelines.latent_forms import encoded, for_decoding
from pipelines.loading import load
from tests.contracts.pipelines.flow_calls import HOLE, PICTURES, SOURCE, entry_of, job_of, png
from tests.contracts.pipelines.running import Result, end
from tests.tiny.flux2 import LENGTH, build_klein


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Family]:
    """Return the tiny model, loaded once."""
    folder = build_klein(tmp_path_factory.mktemp("flux2") / "tiny")
    loaded = load(entry_of(folder, "flux2", "klein"), "cpu")
    yield loaded
    assert not loaded.open_states
    loaded.close()


def _job(**changes: Any) -> DiffusionJob:
    return job_of({"guidance_scale": 0.0}, changes)


def _draw(family: Family, **changes: Any) -> Result:
    inputs = Inputs({}, {ref: png(picture) for ref, picture in PICTURES.items()})
    return end(family, family.prepare(_job(**changes), 0, inputs))


@pytest.mark.parametrize("prompt", ["a red circle", "", " ", "\n\nred\n", "{}, 12 漢"])
def test_prompts_are_read_as_diffusers_reads_them(family: Family, prompt: str) -> None:
    """In the chat that the tokenizer's template makes, which is not run here, by the same layers; the head says nothing to them."""
    with torch.no_grad():
        found = prompt_embeddings(family.pipe, prompt, "blue")
        for name, text in (("prompt_embeds", prompt), ("negative_prompt_embeds", "blue")):
            wanted, _ = family.pipe.encode_prompt(text, max_sequence_length=LENGTH)
            assert torch.equal(found[name], wanted)


def test_what_draws_counts_as_what_admits(family: Family) -> None:
    """The longest prompt that is read has as many tokens as are left beside the chat, and one more is refused with its number."""
    chat = CHATS["flux2"]._replace(longest=LENGTH)
    reader = chat_reader(family.entry.path / "tokenizer", chat)
    assert reader is not None
    longest = "a" * reader.room
    assert count_windows(reader, longest, {}) == [reader.room]
    family.prepare(_job(prompt=longest), 0).close()
    with pytest.raises(DrawingFailed, match=f"has {reader.room + 1} tokens, .* at most {reader.room}$"):
        family.prepare(_job(prompt=f"{longest}a"), 0)


def test_latents_are_seen_at_one_measure(family: Family) -> None:
    """What the transformer sees of a picture is what diffusers makes of it, and leads back to what the VAE made."""
    pipe, pictures = family.pipe, torch.rand(1, 3, 32, 64, generator=torch.Generator().manual_seed(3)) * 2 - 1
    with torch.no_grad():
        seen = encoded(pipe.vae, pictures)
        wanted = pipe._encode_vae_image(pictures, None)  # noqa: SLF001 - theirs
        own = pipe.vae.encode(pictures).latent_dist.mode()
    assert torch.allclose(pipe._patchify_latents(seen), wanted, atol=1e-6)  # noqa: SLF001 - theirs
    assert torch.allclose(for_decoding(pipe.vae, seen), own, atol=1e-6)


@pytest.mark.parametrize("content", ["fill", "original", "noise", "nothing"])
def test_every_content_is_put_under_the_mask(family: Family, content: str) -> None:
    """What lies there before tells in the picture, and what lies around the mask stays."""
    common = {"task": "inpaint", "image": SOURCE, "mask": HOLE, "mask_blur": 0, "strength": 0.5}
    found = _draw(family, **common, masked_content=content).picture
    assert np.array_equal(found[:16], np.asarray(PICTURES[SOURCE])[:16])
    other = "fill" if content == "original" else "original"
    assert not np.array_equal(found, _draw(family, **common, masked_content=other).picture)


def test_large_pictures_keep_their_size(family: Family) -> None:
    """Diffusers' own inpainting would make it smaller: it has more than a million pixels."""
    picture = Image.fromarray(np.random.default_rng(4).integers(0, 256, (1040, 1040, 3), np.uint8))
    inputs = Inputs({}, {SOURCE: png(picture)})
    job = _job(task="img2img", image=SOURCE, width=1040, height=1040, steps=2, strength=0.5)
    assert end(family, family.prepare(job, 0, inputs)).picture.shape == (1040, 1040, 3)


def test_texts_have_their_place(family: Family) -> None:
    """The language model's body alone tells where a text lies."""
    found = text_vector(family.pipe, "a red circle")
    assert np.linalg.norm(found) == pytest.approx(1)
    assert found != text_vector(family.pipe, "a blue circle")
