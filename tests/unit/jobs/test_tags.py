"""LoRA tags and embeddings in prompts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.parts import Lora
from jobs.prompts.tags import named_embeddings, take_tags, write_tag


@pytest.mark.parametrize(
    ("tag", "lora"),
    [
        ("<lora:frame>", Lora(name="frame")),
        ("<lora:frame:0.5>", Lora(name="frame", weight=0.5)),
        ("<lora:frame:-1>", Lora(name="frame", weight=-1.0)),
        ("<lora:frame:0.5:1>", Lora(name="frame", weight=1.0, text_encoder_weight=0.5)),
        ("<lora:frame:te=0.5:unet=1>", Lora(name="frame", weight=1.0, text_encoder_weight=0.5)),
        ("<lora:frame:unet=0.25>", Lora(name="frame", weight=0.25, text_encoder_weight=1.0)),
        ("<lora:frame:te=0.25>", Lora(name="frame", weight=0.25)),
        ("<lora:frame:0.5:unet=2>", Lora(name="frame", weight=2.0, text_encoder_weight=0.5)),
        ("<lyco:frame:0.8>", Lora(name="frame", weight=0.8)),
        ("<LoRA: a name with spaces : 0.8 >", Lora(name="a name with spaces", weight=0.8)),
    ],
)
def test_take_tags_reads_every_form(tag: str, lora: Lora) -> None:
    """A1111's forms mean what they mean there, and leave the prompt."""
    assert take_tags(f"a red circle {tag}, bold") == ("a red circle, bold", (lora,))


@pytest.mark.parametrize(
    "tag",
    [
        "<lora:>", "<lora:frame:much>", "<lora:frame:nan>", "<lora:frame:1e9>", "<lora:frame:1:1:1>", "<lora:frame:dyn=3>",
        "<lora:frame", "<hypernet:frame:1>", "<lora:fr\name>", "<lora:frame:te=1:te=1>",
    ],
)  # fmt: skip
def test_take_tags_leaves_what_is_no_tag(tag: str) -> None:
    """What cannot be read stays text, every space included."""
    prompt = f" a red circle  {tag} "
    assert take_tags(prompt) == (prompt, ())


def test_take_tags_takes_several_in_their_order() -> None:
    """Tags may stand anywhere and side by side."""
    text, loras = take_tags("<lora:b> a circle <lora:a:0.5><lora:b:2>\non blue")
    assert text == "a circle\non blue"
    assert [(lora.name, lora.weight) for lora in loras] == [("b", 1.0), ("a", 0.5), ("b", 2.0)]


WEIGHTS = st.floats(-10, 10).map(lambda value: round(value, 3))


@given(
    name=st.text(st.characters(exclude_categories=["C", "Z"], exclude_characters=":<>="), min_size=1, max_size=50),
    weight=WEIGHTS,
    text_encoder=st.none() | WEIGHTS,
)
def test_write_tag_is_read_back(name: str, weight: float, text_encoder: float | None) -> None:
    """A tag that was written names the same LoRA with the same weights."""
    lora = Lora(name=name, weight=weight, text_encoder_weight=text_encoder)
    text, (read,) = take_tags(f"a circle {write_tag(lora)}")
    assert text == "a circle"
    assert (read.name, read.weight) == (lora.name, lora.weight)
    effective = [each.weight if each.text_encoder_weight is None else each.text_encoder_weight for each in (lora, read)]
    assert effective[0] == effective[1]


@pytest.mark.parametrize(
    ("prompt", "found"),
    [
        ("a circle at shapes-dusk", ["shapes-dusk"]),
        ("(Shapes-DUSK:1.2), bold", ["shapes-dusk"]),
        ("shapes-dusk-2", ["shapes-dusk-2"]),
        ("shapes-dusks at myshapes-dusk", []),
        ("bad hand and badhand", ["bad hand"]),
        ("", []),
    ],
)
def test_named_embeddings_finds_whole_words(prompt: str, found: list[str]) -> None:
    """Only whole words count, in any case, in any of the prompts."""
    names = ["shapes-dusk", "shapes-dusk-2", "bad hand"]
    assert named_embeddings(["a", prompt], names) == found
    assert named_embeddings([prompt], []) == []
