"""What is Qwen-Image's own: how prompts are read, two calls a step, latents with an axis for frames."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch

from broker_api.admission.vocabularies import chat_reader, count_windows
from jobs.contract import DiffusionJob
from jobs.errors import DrawingFailed, ModelDamaged
from jobs.inputs import Inputs
from jobs.prompts.attention import unmarked
from models_registry.detection import detect
from models_registry.entries import Kind
from models_registry.reading.bounded_files import Reads
from models_registry.schedulers import SCHEDULERS
from models_registry.vocabularies.chats import CHATS
from pipelines.analysis.texts import text_vector
from pipelines.families.base import Family
from pipelines.families.qwenimage import prompt_embeddings
from pipelines.latent_forms import encoded, for_decoding, pictures_in
from pipelines.loading import load
from tests.contracts.pipelines.flow_calls import HOLE, PICTURES, SOURCE, entry_of, job_of, png
from tests.contracts.pipelines.running import Result, end, take_step
from tests.tiny.qwenimage import build_qwenimage

#: The library ships no types for these classes.
_DIFFUSERS: Any = diffusers
PROMPTS = ("a red circle", "", " ", "{}, 12 (of them) 漢字", "a red circle\n\n" * 40)


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Family]:
    """Return the tiny model, loaded once."""
    folder = build_qwenimage(tmp_path_factory.mktemp("qwenimage") / "tiny")
    loaded = load(entry_of(folder, "qwenimage", "base"), "cpu")
    yield loaded
    assert not loaded.open_states
    loaded.close()


def _job(**changes: Any) -> DiffusionJob:
    return job_of({"guidance_scale": 4.0, "negative_prompt": "blue"}, changes)


def _draw(family: Family, **changes: Any) -> Result:
    inputs = Inputs({}, {ref: png(picture) for ref, picture in PICTURES.items()})
    return end(family, family.prepare(_job(**changes), 0, inputs))


@pytest.mark.parametrize("prompt", PROMPTS)
def test_prompts_are_read_as_diffusers_reads_them(family: Family, prompt: str) -> None:
    """Both prompts, each by itself, in the template without its beginning; the layer that is left out says nothing to it."""
    with torch.no_grad():
        found = prompt_embeddings(family.pipe, prompt.replace("(", "\\(").replace(")", "\\)"), "blue")
        for start, text in (("", prompt), ("negative_", "blue")):
            right, mask = family.pipe.encode_prompt(text)
            assert mask is None
            assert torch.equal(found[f"{start}prompt_embeds"], right)
            assert found[f"{start}prompt_embeds_mask"].shape == right.shape[:2]
    assert prompt_embeddings(family.pipe, prompt, None).keys() == {"prompt_embeds", "prompt_embeds_mask"}


def test_marks_of_emphasis_are_left_out_because_weights_would_be_undone(family: Family) -> None:
    """The transformer brings what it reads of each token to one length; a backslash keeps a bracket."""
    plain = _draw(family)
    assert _draw(family, prompt="a (red:1.5) circle", negative_prompt="[blue]").same(plain)
    assert not _draw(family, prompt="a \\(red\\) circle").same(plain)
    state = family.prepare(_job(), 0)
    assert state.ask is not None
    told = dict(state.ask.kwargs)
    heavier = {**told, "encoder_hidden_states": told["encoder_hidden_states"] * 1.5}
    with torch.no_grad():
        one, other = (family.pipe.transformer(**each)[0] for each in (told, heavier))
    state.close()
    assert torch.allclose(one, other, atol=1e-4)


def test_counted_tokens_are_those_that_are_read(family: Family) -> None:
    """Where the least prompt that does not fit begins, the server and the pipeline agree."""
    reader = chat_reader(family.entry.path / "tokenizer", CHATS["qwenimage"])
    assert reader is not None
    # The template of the published model: 34 tokens before the prompt, and five behind.
    assert reader.room == 1024 - 5
    for prompt in (*PROMPTS, "a (red:1.2) BREAK circle"):
        read = prompt_embeddings(family.pipe, prompt, None)["prompt_embeds"].shape[1]
        assert count_windows(reader, prompt, {}) == [read - 5], unmarked(prompt)
    longest = "é" * (reader.room // 2)
    assert prompt_embeddings(family.pipe, f"{longest}a", None)["prompt_embeds"].shape[1] == 1024
    assert count_windows(reader, f"{longest}ab", {}) == [reader.room + 1]
    with pytest.raises(
        DrawingFailed, match=f"has {reader.room + 1} tokens, of which this model reads at most {reader.room}"
    ):
        prompt_embeddings(family.pipe, f"{longest}ab", None)


def test_long_prompts_are_read_to_their_end(family: Family) -> None:
    """The pipelines of diffusers stop at half of what the model reads, where nobody says otherwise."""
    words = "a red circle " * 60
    assert not _draw(family, prompt=f"{words}on blue").same(_draw(family, prompt=f"{words}on green"))


@pytest.mark.parametrize(("guidance", "each"), [(4.0, 2), (1.0, 1)])
@pytest.mark.parametrize("scheduler", ["Euler", "Heun"])
def test_cost_foretells_calls_of_one_row(family: Family, scheduler: str, guidance: float, each: int) -> None:
    """Guidance asks twice, because prompts of two lengths do not lie in one call."""
    wanted = _job(scheduler=scheduler, guidance_scale=guidance)
    cost, before = family.cost(wanted), family.counters.denoise_calls
    end(family, family.prepare(wanted, 0))
    assert (cost.rows, cost.calls) == (1, family.counters.denoise_calls - before)
    assert cost.calls == each * (3 if scheduler == "Euler" else 5)


def test_calls_that_may_travel_together_have_one_key(family: Family) -> None:
    """Prompts of one length share a call whatever they say; other lengths and sizes do not."""

    def key_of(**changes: Any) -> object:
        state = family.prepare(_job(**changes), 0)
        assert state.ask is not None
        key, rows = state.ask.key, state.ask.rows
        state.close()
        assert rows == 1
        return key

    one = key_of()
    assert key_of(seed=2, guidance_scale=1.0, steps=9, prompt="a red bottle") == one
    assert key_of(prompt="a red circle on blue") != one
    assert key_of(width=48, height=64) != one


_OFFERED = [
    (each.name, kind)
    for each in SCHEDULERS.values()
    if each.flow is not None
    for kind in (None, *sorted(each.flow.schedule_types))
]


@pytest.mark.parametrize(("scheduler", "kind"), _OFFERED)
@pytest.mark.parametrize("steps", [1, 3])
def test_every_scheduler_that_is_offered_draws(family: Family, scheduler: str, kind: str | None, steps: int) -> None:
    """Whoever hands out the noise levels: as many steps as were asked for, and numbers at the end, of one step too."""
    state = family.prepare(_job(scheduler=scheduler, schedule_type=kind, steps=steps), 0)
    assert state.total == steps
    found = end(family, state)
    assert np.isfinite(found.latents).all()
    assert found.picture.std() > 1


@pytest.mark.parametrize("content", ["noise", "nothing", "fill"])
def test_every_content_under_a_mask_is_drawn_over(family: Family, content: str) -> None:
    """What is decoded of noise or emptiness is a picture, without the axis for frames."""
    hole = {"task": "inpaint", "image": SOURCE, "mask": HOLE, "mask_blur": 0, "strength": 0.6}
    original = _draw(family, **hole)
    assert not _draw(family, **hole, masked_content=content).same(original)


def test_latents_become_what_the_denoiser_sees_and_back(family: Family) -> None:
    """By the mean and the spread of each channel, as the pipelines have them."""
    vae = family.pipe.vae
    pictures = torch.rand(2, 3, 48, 64, generator=torch.Generator().manual_seed(1)) * 2 - 1
    with torch.no_grad():
        seen = encoded(vae, pictures)
        own = vae.encode(pictures[:, :, None]).latent_dist.mode()
        assert torch.allclose(for_decoding(vae, seen), own, atol=1e-5)
        assert pictures_in(vae, vae.decode(own)[0]).shape == pictures.shape
    figures = torch.tensor(vae.config.latents_mean)[:, None, None], torch.tensor(vae.config.latents_std)[:, None, None]
    assert torch.allclose(seen, (own[:, :, 0] - figures[0]) / figures[1], atol=1e-5)


def test_another_kind_of_vae_is_refused(family: Family, tmp_path: Path) -> None:
    """FLUX.1's has as many channels and cells of the same size, and means something else by them."""
    _DIFFUSERS.AutoencoderKL(
        block_out_channels=(4, 4, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=16,
        norm_num_groups=4,
    ).save_pretrained(tmp_path / "ae")
    entry = entry_of(tmp_path / "ae", "flux", "base", Kind.VAE)
    with pytest.raises(ModelDamaged, match="axis for frames"):
        family.prepare(_job(vae="ae"), 0, Inputs({entry.ref: entry}))


def test_halves_are_those_with_room_for_large_numbers(family: Family) -> None:
    """On a device of half precision it is held in the other 16 bits, in which it was trained, and draws."""
    halved = load(family.entry, "cpu", torch.float16)
    assert {part.dtype for part in halved.parts.values()} == {torch.bfloat16}
    state = halved.prepare(_job(), 0)
    take_step(halved, [state])
    assert state.preview() is not None
    while state.phase == "denoise":
        take_step(halved, [state])
    (picture,) = halved.finish([state])
    assert picture.array.std() > 1
    halved.close()


def test_older_configurations_of_the_text_encoder_are_read(family: Family, tmp_path: Path) -> None:
    """Those of published folders: the text's settings beside the rest or within and beside, and other names for some."""
    folder = Path(shutil.copytree(family.entry.path, tmp_path / "older"))
    path = folder / "text_encoder/config.json"
    config = json.loads(path.read_text())
    text = config.pop("text_config")
    rope = text.pop("rope_parameters")
    text |= {
        "rope_scaling": {"mrope_section": rope["mrope_section"], "rope_type": "default", "type": "default"},
        "rope_theta": rope["rope_theta"],
        "vision_token_id": 151654,
        "torch_dtype": config.pop("dtype"),
    }
    config["vision_config"] |= {"in_chans": 3, "spatial_patch_size": 14, "model_type": "qwen2_5_vl"}
    right = _draw(family)
    for written in (config | text | {"model_type": "qwen2_5_vl"}, text | config | {"text_config": text}):
        path.write_text(json.dumps(written))
        older = load(detect(folder, Reads()), "cpu")
        assert _draw(older).same(right)
        older.close()


def test_its_text_encoder_places_texts(family: Family) -> None:
    """It has no mark of a beginning and no window to be filled: the mean of what it says of the tokens, of length 1."""
    vectors = [torch.tensor(text_vector(family.pipe, text)) for text in ("a red circle", "a red circle " * 200, "", "")]
    assert all(float(each.norm()) == pytest.approx(1) for each in vectors)
    assert torch.equal(vectors[2], vectors[3])
    assert not torch.allclose(vectors[0], vectors[2])
