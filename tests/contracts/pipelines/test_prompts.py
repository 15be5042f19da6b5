"""Prompts beyond the text encoder's window are read to their end."""

from collections.abc import Callable

import pytest
import torch

from jobs.contract import Txt2ImgParameters
from pipelines.families.base import Family
from pipelines.prompts import long_embeddings

Make = Callable[..., Txt2ImgParameters]

#: The tiny tokenizer takes one token per letter, and 75 fit.
FULL = "a " * 75


def draw(family: Family, parameters: Txt2ImgParameters) -> bytes:
    """Draw one picture."""
    state = family.prepare(parameters, 0)
    while state.phase == "denoise":
        assert not family.step([state]).errors
    (picture,) = family.finish([state])
    state.close()
    return picture.array.tobytes()


@pytest.mark.parametrize("field", ["prompt", "negative_prompt"])
def test_words_behind_the_window_matter(family: Family, parameters: Make, field: str) -> None:
    """Nothing is cut silently, in neither prompt, with guidance and without."""
    one = draw(family, parameters(steps=2, **{field: f"{FULL}b c d"}))
    other = draw(family, parameters(steps=2, **{field: f"{FULL}b c e"}))
    assert one != other
    assert draw(family, parameters(steps=2, guidance_scale=1.0, prompt=f"{FULL}b")) != b""


def test_prompts_that_fit_take_the_pipelines_own_way(family: Family) -> None:
    """Up to the last token of the window nothing changes."""
    assert long_embeddings(family.pipe, FULL, "b") == {"prompt": FULL, "negative_prompt": "b"}
    assert long_embeddings(family.pipe, "", "") == {"prompt": "", "negative_prompt": ""}
    assert "prompt_embeds" in long_embeddings(family.pipe, FULL + "b", "")


def test_each_window_is_encoded_as_a_prompt_of_its_own(family: Family) -> None:
    """A long prompt is its windows side by side, and the other prompt is padded to as many."""
    with torch.no_grad():
        found = long_embeddings(family.pipe, f"{FULL}b c", "d")
        parts = [family.pipe.encode_prompt(text, "cpu", 1, False)[0] for text in (FULL, "b c")]
        against = [family.pipe.encode_prompt(text, "cpu", 1, False)[0] for text in ("d", "")]
    assert torch.allclose(found["prompt_embeds"], torch.cat(parts, dim=1), atol=1e-5)
    assert torch.allclose(found["negative_prompt_embeds"], torch.cat(against, dim=1), atol=1e-5)


def test_the_longest_prompt_is_drawn(family: Family, parameters: Make) -> None:
    """32 000 characters are many windows and one picture."""
    assert draw(family, parameters(steps=1, prompt="red circle, " * 2666)) != draw(family, parameters(steps=1))
