"""Infotexts of ours and of other programs."""

from hypothesis import given
from hypothesis import strategies as st

from jobs.contract import Txt2ImgParameters
from jobs.prompts.infotext import NEGATIVE, parse_infotext, write_infotext

PARAMETERS = Txt2ImgParameters(
    model="shapes",
    prompt="a red circle\non a blue background",
    negative_prompt="blurry",
    width=64,
    height=32,
    steps=20,
    guidance_scale=7.0,
    scheduler="DPM++ 2M Karras",
    seed=1,
    preview_every=3,
)
#: Lines as people write them; a line that looks like fields or like the negative prompt belongs to those.
LINES = st.text(st.characters(exclude_categories=["C", "Zl", "Zp"]), min_size=1).filter(
    lambda line: line.strip() and not line.startswith(NEGATIVE)
)


def test_write_infotext_speaks_as_a1111_does() -> None:
    """The text is the one that other programs read."""
    assert write_infotext(PARAMETERS, 5, "0a1b2c3d4e") == (
        "a red circle\non a blue background\nNegative prompt: blurry\n"
        "Steps: 20, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 7, Seed: 5, Size: 64x32, "
        "Model hash: 0a1b2c3d4e, Model: shapes"
    )


def test_write_infotext_quotes_what_would_be_read_as_fields() -> None:
    """A name with a comma or a colon comes back whole."""
    named = PARAMETERS.model_copy(update={"model": 'odd, "name": 1', "scheduler": "No Such"})
    fields = parse_infotext(write_infotext(named, 5, "0a")).fields
    assert (fields["Model"], fields["Sampler"]) == ('odd, "name": 1', "No Such")


@given(prompt=st.lists(LINES, min_size=1), negative=st.lists(LINES), seed=st.integers(0, 2**64 - 1))
def test_parse_infotext_reads_what_was_written(prompt: list[str], negative: list[str], seed: int) -> None:
    """Prompt, negative prompt and seed survive, whatever characters they hold."""
    said = PARAMETERS.model_copy(update={"prompt": "\n".join(prompt), "negative_prompt": "\n".join(negative)})
    read = parse_infotext(write_infotext(said, seed, "0a"))
    assert (read.prompt, read.negative_prompt) == (said.prompt, said.negative_prompt)
    assert read.fields["Seed"] == str(seed)


def test_parse_infotext_takes_a_text_without_fields_as_prompt() -> None:
    """Two fields are no field line."""
    read = parse_infotext("a cat\nSteps: 20, Seed: 3")
    assert (read.prompt, read.fields) == ("a cat\nSteps: 20, Seed: 3", {})


def test_parse_infotext_reads_another_programs_text() -> None:
    """Quoted values and unknown fields are kept."""
    text = 'cat\nNegative prompt: dog\nhorse\nSteps: 30, Sampler: Euler a, CFG scale: 4.5, Lora hashes: "x: 1, y: 2", Version: v1.10.1'
    read = parse_infotext(text)
    assert (read.prompt, read.negative_prompt) == ("cat", "dog\nhorse")
    assert read.fields["Lora hashes"] == "x: 1, y: 2"
    assert read.fields["Version"] == "v1.10.1"
