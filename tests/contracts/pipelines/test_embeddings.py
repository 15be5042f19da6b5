"""Textual inversions from their files to the picture, in both prompts."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from jobs.contract import Txt2ImgParameters
from jobs.errors import ModelDamaged
from jobs.inputs import Inputs
from models_registry.entries import Kind, Layout, ModelEntry
from pipelines.families.base import Family

Make = Callable[..., Txt2ImgParameters]


def inputs_of(path: Path) -> Inputs:
    """Hand an embedding over under the name of its file."""
    entry = ModelEntry(
        name=path.stem,
        kind=Kind.EMBEDDING,
        layout=Layout.SINGLE_FILE,
        family="sd15",
        path=path,
        fingerprint=hashlib.sha256(path.read_bytes()).hexdigest(),
        components=(),
    )
    return Inputs({entry.ref: entry})


def write(path: Path, name: str = "emb_params", vectors: torch.Tensor | None = None) -> Path:
    """Write an embedding of two random vectors."""
    given = torch.randn(2, 32, generator=torch.Generator().manual_seed(4)) if vectors is None else vectors
    save_file({name: given}, path)
    return path


def draw(family: Family, parameters: Txt2ImgParameters, inputs: Inputs) -> bytes:
    """Draw one picture."""
    state = family.prepare(parameters, 0, inputs)
    while state.phase == "denoise":
        assert not family.step([state]).errors
    (picture,) = family.finish([state])
    state.close()
    return picture.array.tobytes()


def test_both_layouts_are_one_word(family: Family, parameters: Make, tmp_path: Path) -> None:
    """A1111's and diffusers' files of the same vectors draw the same; in diffusers' the word of its own is found too."""
    first, second = write(tmp_path / "dusk.safetensors"), write(tmp_path / "evening.safetensors", "<dusk>")
    named = draw(family, parameters(prompt="a dusk", embeddings=["dusk"]), inputs_of(first))
    assert draw(family, parameters(prompt="a Evening", embeddings=["evening"]), inputs_of(second)) == named
    assert draw(family, parameters(prompt="a <dusk>", embeddings=["evening"]), inputs_of(second)) == named
    assert draw(family, parameters(prompt="a dusk"), Inputs()) != named


def test_registered_name_holds_over_the_word_of_a_file(family: Family, parameters: Make, tmp_path: Path) -> None:
    """Two embeddings, one of which calls itself as the other is registered: each stands for its own vectors."""
    own = write(tmp_path / "dusk.safetensors")
    other = write(tmp_path / "evening.safetensors", "dusk", torch.full((1, 32), 0.3))
    both = Inputs({**inputs_of(own).models, **inputs_of(other).models})
    wanted = draw(family, parameters(prompt="dusk", embeddings=["dusk"]), both)
    for order in (["dusk", "evening"], ["evening", "dusk"]):
        assert draw(family, parameters(prompt="dusk", embeddings=order), both) == wanted


def test_negative_prompt_reads_it_too(family: Family, parameters: Make, tmp_path: Path) -> None:
    """It is there for both, and taking it off brings every bit back."""
    handed = inputs_of(write(tmp_path / "dusk.safetensors"))
    wanted = parameters(negative_prompt="dusk")
    before = draw(family, wanted, handed)
    assert draw(family, parameters(negative_prompt="dusk", embeddings=["dusk"]), handed) != before
    assert draw(family, wanted, handed) == before


def test_word_that_no_prompt_names_changes_nothing(family: Family, parameters: Make, tmp_path: Path) -> None:
    """An embedding is asked for by its word alone."""
    handed = inputs_of(write(tmp_path / "dusk.safetensors"))
    assert draw(family, parameters(embeddings=["dusk"]), handed) == draw(family, parameters(), handed)


def test_one_vector_may_be_written_flat(family: Family, parameters: Make, tmp_path: Path) -> None:
    """A vector by itself is one token."""
    flat = write(tmp_path / "flat.safetensors", vectors=torch.full((32,), 0.5))
    handed = inputs_of(flat)
    assert draw(family, parameters(prompt="flat", embeddings=["flat"]), handed) != draw(
        family, parameters(prompt="flat"), handed
    )


@pytest.mark.parametrize(
    "tensors",
    [
        {"emb_params": torch.ones(2, 48)},
        {"emb_params": torch.ones(2, 2, 32)},
        {"emb_params": torch.ones(2, 32, dtype=torch.int8)},
        {"emb_params": torch.full((2, 32), float("inf"))},
        {"clip_l": torch.ones(1, 32), "clip_g": torch.ones(1, 32)},
        None,
    ],
)
def test_what_is_none_is_named(
    family: Family, parameters: Make, tmp_path: Path, tensors: dict[str, torch.Tensor] | None
) -> None:
    """Another model's, another kind of file, or half of one."""
    path = tmp_path / "dusk.safetensors"
    if tensors is None:
        path.write_bytes(write(path).read_bytes()[:-9])
    else:
        save_file(tensors, path)
    with pytest.raises(ModelDamaged, match=r"dusk\.safetensors"):
        family.prepare(parameters(prompt="a dusk", embeddings=["dusk"]), 0, inputs_of(path))
