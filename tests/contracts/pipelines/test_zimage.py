"""What is Z-Image's own: every scheduler for flows, how prompts are read, FLUX.1's VAE, and the kind of half precision."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
import torch

from jobs.contract import DiffusionJob
from jobs.errors import DrawingFailed
from jobs.inputs import Inputs
from models_registry.entries import Kind
from models_registry.families import Prediction
from models_registry.schedulers import SCHEDULERS
from pipelines.families.base import Family
from pipelines.families.zimage import prompt_embeddings
from pipelines.loading import load
from tests.contracts.pipelines.flow_calls import HOLE, PICTURES, SOURCE, entry_of, job_of, png
from tests.contracts.pipelines.running import Result, end
from tests.contracts.pipelines.zimage_calls import PlainZImage
from tests.tiny.zimage import build_base

_IMG2IMG: Final = {"task": "img2img", "image": SOURCE, "strength": 0.6}
_INPAINT: Final = {"task": "inpaint", "image": SOURCE, "mask": HOLE, "mask_blur": 0, "strength": 0.6}
_INPUTS: Final = Inputs({}, {ref: png(picture) for ref, picture in PICTURES.items()})


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Family]:
    """Return the tiny model, loaded once."""
    loaded = load(entry_of(build_base(tmp_path_factory.mktemp("zimage") / "tiny"), "zimage", "base"), "cpu")
    yield loaded
    assert not loaded.open_states
    loaded.close()


def _job(**changes: Any) -> DiffusionJob:
    return job_of({"guidance_scale": 4.0, "negative_prompt": "blue", "steps": 5, "seed": 11}, changes)


def _draw(family: Family, **changes: Any) -> Result:
    return end(family, family.prepare(_job(**changes), 0, _INPUTS))


@pytest.mark.parametrize(
    "scheduler", [name for name, each in SCHEDULERS.items() if Prediction.FLOW in each.predictions]
)
def test_every_scheduler_for_flows_draws(family: Family, scheduler: str) -> None:
    """By its own noise levels, or by those that the pipeline brings; over a picture as many steps as were asked."""
    for task in ({}, _IMG2IMG):
        drawn = _draw(family, **task, scheduler=scheduler)
        assert np.isfinite(drawn.latents).all()
        if scheduler != "Euler":
            assert not drawn.same(_draw(family, **task))


def test_prompts_are_read_as_diffusers_reads_them(family: Family) -> None:
    """In the model's own chat, whatever marks of that chat the prompt holds; marks of emphasis are left out."""
    path = family.entry.path
    pipe = PlainZImage(path.parent).pipe(path.name, "txt2img", "Euler")
    with torch.no_grad():
        for prompt in ("a red circle", "", "\n two\n\nlines ", "<|im_end|>\n漢字", "a red user " * 40):
            (right,), (other,) = pipe.encode_prompt(prompt, negative_prompt="blue")
            found = prompt_embeddings(family.pipe, prompt, "blue")
            assert torch.equal(found["prompt_embeds"][0], right)
            assert torch.equal(found["negative_prompt_embeds"][0], other)
        marked = prompt_embeddings(family.pipe, "a (red:1.5) [circle]", None)
        assert torch.equal(marked["prompt_embeds"][0], pipe.encode_prompt("a red circle")[0][0])
        assert "negative_prompt_embeds" not in marked


def test_more_tokens_than_are_read_are_refused(family: Family) -> None:
    """What the model could not see is never dropped in silence: the most that fits is drawn, one more is not."""
    around = len(family.pipe.tokenizer("<|im_start|>user\n<|im_end|>\n<|im_start|>assistant\n").input_ids)
    family.prepare(_job(prompt="x" * (512 - around)), 0, _INPUTS).close()
    with pytest.raises(DrawingFailed, match=f"has {513 - around} tokens, of which this model reads at most"):
        family.prepare(_job(prompt="x" * (513 - around)), 0, _INPUTS)


def test_flux_vae_takes_the_place_of_its_own(family: Family, tmp_path: Path) -> None:
    """Their latents are the same; it decodes, and encodes where there is a picture."""
    own = family.pipe.vae
    with torch.random.fork_rng():
        torch.manual_seed(5)
        other = type(own).from_config(own.config)
    other.save_pretrained(tmp_path / "other")
    entry = entry_of(tmp_path / "other", "flux", "base", Kind.VAE, "a")
    found = end(family, family.prepare(_job(**_INPAINT, vae="other"), 0, Inputs({entry.ref: entry}, _INPUTS.pictures)))
    assert not np.array_equal(found.picture, _draw(family, **_INPAINT).picture)


def test_halves_are_those_with_room_for_large_numbers(family: Family) -> None:
    """On a device of half precision the model is held in the other 16 bits, and draws."""
    half = load(family.entry, "cpu", torch.float16)
    assert {each.dtype for each in half.parts.values()} == {torch.bfloat16}
    for task in ({}, _INPAINT):
        assert _draw(half, **task).picture.std() > 1
    half.close()
