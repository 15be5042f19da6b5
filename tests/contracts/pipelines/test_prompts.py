"""From prompts to embeddings: windows, emphasis, textual inversions, skipped layers, and diffusers' own bits without any of them."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from jobs.contract import Txt2ImgParameters
from jobs.errors import DrawingFailed, ModelDamaged
from pipelines.adapters.embedding import Embedding
from pipelines.families.base import Family
from pipelines.prompts import Words, prompt_embeddings

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


def embed(family: Family, prompt: str, **settings: Any) -> torch.Tensor:
    """Return the embeddings of a prompt alone."""
    with torch.no_grad():
        return prompt_embeddings(family.pipe, prompt, None, **settings)["prompt_embeds"]


def plain(family: Family, prompt: str) -> torch.Tensor:
    """Return what diffusers makes of a prompt."""
    with torch.no_grad():
        embeddings: torch.Tensor = family.pipe.encode_prompt(prompt, "cpu", 1, False)[0]
    return embeddings


def word(count: int = 1, width: int = 32, seed: int = 0) -> Embedding:
    """Make a textual inversion of random vectors."""
    return Embedding(
        Path("dusk.safetensors"),
        None,
        {"text_encoder": torch.randn(count, width, generator=torch.Generator().manual_seed(seed))},
    )


@pytest.mark.parametrize("field", ["prompt", "negative_prompt"])
def test_words_behind_the_window_matter(family: Family, parameters: Make, field: str) -> None:
    """Nothing is cut silently, in neither prompt, with guidance and without."""
    one = draw(family, parameters(steps=2, **{field: f"{FULL}b c d"}))
    other = draw(family, parameters(steps=2, **{field: f"{FULL}b c e"}))
    assert one != other
    assert draw(family, parameters(steps=2, guidance_scale=1.0, prompt=f"{FULL}b")) != b""


@pytest.mark.parametrize("prompt", ["", "a red circle", FULL])
def test_prompts_that_fit_have_the_bits_of_diffusers(family: Family, prompt: str) -> None:
    """Up to the last token of the window nothing is different."""
    assert torch.equal(embed(family, prompt), plain(family, prompt))


def test_each_window_is_encoded_as_a_prompt_of_its_own(family: Family) -> None:
    """A long prompt is its windows side by side, and the other prompt is padded to as many."""
    with torch.no_grad():
        found = prompt_embeddings(family.pipe, f"{FULL}b c", "d")
    parts = [plain(family, text) for text in (FULL, "b c")]
    against = [plain(family, text) for text in ("d", "")]
    assert torch.allclose(found["prompt_embeds"], torch.cat(parts, dim=1), atol=1e-5)
    assert torch.allclose(found["negative_prompt_embeds"], torch.cat(against, dim=1), atol=1e-5)


def test_without_guidance_the_negative_prompt_is_not_read(family: Family, parameters: Make) -> None:
    """A negative prompt of many windows changes nothing where nothing is guided by it."""
    short = draw(family, parameters(steps=2, guidance_scale=1.0))
    assert draw(family, parameters(steps=2, guidance_scale=1.0, negative_prompt=FULL * 2)) == short


def test_the_longest_prompt_is_drawn(family: Family, parameters: Make) -> None:
    """32 000 characters are many windows and one picture."""
    assert draw(family, parameters(steps=1, prompt="red circle, " * 2666)) != draw(family, parameters(steps=1))


def test_break_begins_a_window(family: Family) -> None:
    """What stands behind the word is read as a prompt of its own."""
    parts = torch.cat([plain(family, "a"), plain(family, "b")], dim=1)
    assert torch.allclose(embed(family, "a BREAK b"), parts, atol=1e-5)


def test_clip_skip_counts_as_a1111_does(family: Family) -> None:
    """1 is the last layer, 2 the one before it, each behind the final norm; more than there are is refused."""
    encoder = family.pipe.text_encoder
    ids = family.pipe.tokenizer("a b", padding="max_length", return_tensors="pt").input_ids
    with torch.no_grad():
        hidden = encoder(ids, output_hidden_states=True).hidden_states
        wanted = encoder.final_layer_norm(hidden[1])
    assert len(hidden) == 3
    assert torch.equal(embed(family, "a b", clip_skip=2), wanted)
    assert torch.equal(embed(family, "a b", clip_skip=1), plain(family, "a b"))
    assert not torch.equal(wanted, plain(family, "a b"))
    with pytest.raises(DrawingFailed, match="at most 2"):
        embed(family, "a b", clip_skip=3)


def test_clip_skip_reaches_the_picture(family: Family, parameters: Make) -> None:
    """The parameter is not dropped on the way, and is told when it goes too deep."""
    assert draw(family, parameters(steps=2, clip_skip=2)) != draw(family, parameters(steps=2))
    with pytest.raises(DrawingFailed, match="clip_skip"):
        family.prepare(parameters(clip_skip=12), 0)


def test_embedding_stands_for_its_vectors(family: Family) -> None:
    """The word's places hold the vectors, as if the vocabulary had known them."""
    own = word(2)
    taught = copy.deepcopy(family.pipe.text_encoder)
    tokenizer = family.pipe.tokenizer
    spare = tokenizer.convert_tokens_to_ids(["0", "1"])
    with torch.no_grad():
        taught.get_input_embeddings().weight[spare] = own.vectors["text_encoder"]
        ids = tokenizer("a", add_special_tokens=False).input_ids + spare
        ids += tokenizer("b", add_special_tokens=False).input_ids
        ids = [tokenizer.bos_token_id, *ids, tokenizer.eos_token_id]
        ids += [tokenizer.pad_token_id] * (77 - len(ids))
        wanted = taught(torch.tensor([ids]))[0]
    assert torch.equal(embed(family, "a dusk b", words={"dusk": own}), wanted)


@pytest.mark.parametrize(
    ("prompt", "found"),
    [
        ("a dusk", True),
        ("a DUSK, b", True),
        ("(dusk:1.0)", True),
        ("duskx", False),
        ("a dusk-2", False),
        ("xdusk", False),
    ],
)
def test_embedding_is_found_as_a_whole_word(family: Family, prompt: str, *, found: bool) -> None:
    """In any case, beside punctuation, and never inside another word."""
    words: Words = {"dusk": word()}
    assert torch.equal(embed(family, prompt, words=words), embed(family, prompt)) is not found


def test_longer_word_wins(family: Family) -> None:
    """A word that begins with another one is itself."""
    words: Words = {"dusk": word(seed=1), "dusk red": word(seed=2)}
    alone: Words = {"dusk red": word(seed=2)}
    assert torch.equal(embed(family, "dusk red", words=words), embed(family, "dusk red", words=alone))


def test_embedding_leaves_the_text_encoder_as_it_was(family: Family) -> None:
    """Neither the weights nor the vocabulary change, and without the word every bit is the same again."""
    before, size = embed(family, "a dusk"), len(family.pipe.tokenizer)
    assert not torch.equal(embed(family, "a dusk", words={"dusk": word()}), before)
    assert torch.equal(embed(family, "a dusk"), before)
    assert len(family.pipe.tokenizer) == size
    assert not family.pipe.text_encoder.get_input_embeddings()._forward_hooks  # noqa: SLF001 - it is they that must go


def test_embedding_is_not_parted_by_a_window(family: Family) -> None:
    """Where its vectors do not fit the rest of the window, the whole word goes to the next."""
    words: Words = {"dusk": word(4)}
    found = embed(family, "a " * 73 + "dusk b", words=words)
    wanted = [embed(family, "a " * 73), embed(family, "dusk b", words=words)]
    assert torch.allclose(found, torch.cat(wanted, dim=1), atol=1e-5)


def test_embedding_of_another_model_is_refused(family: Family) -> None:
    """Vectors of another width, or more than a window holds, are named with their file."""
    with pytest.raises(ModelDamaged, match=r"dusk\.safetensors.*48 wide"):
        embed(family, "a dusk", words={"dusk": word(width=48)})
    with pytest.raises(ModelDamaged, match=r"dusk\.safetensors.*76 vectors"):
        embed(family, "a dusk", words={"dusk": word(76)})


def test_emphasis_weighs_places_and_keeps_the_mean(family: Family) -> None:
    """The arithmetic is A1111's: scale each place, then bring the window's mean back."""
    hidden = plain(family, "a b")
    weights = torch.ones(77)
    weights[2] = 1.5
    weighed = hidden * weights[None, :, None]
    wanted = weighed * (hidden.mean() / weighed.mean())
    assert torch.allclose(embed(family, "a (b:1.5)"), wanted, atol=1e-5)
    assert torch.equal(embed(family, "a (b:1.0)"), hidden)
    assert torch.equal(embed(family, r"a \(b\)"), plain(family, "a (b)"))


def test_emphasis_leaves_other_windows_alone(family: Family) -> None:
    """A window without emphasis has the bits it has without the other."""
    found = embed(family, f"{FULL}(b:1.5)")
    assert torch.equal(found[:, :77], embed(family, f"{FULL}b")[:, :77])
    assert not torch.equal(found[:, 77:], embed(family, f"{FULL}b")[:, 77:])
