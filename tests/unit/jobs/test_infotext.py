"""Infotexts of ours and of other programs."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from jobs.contract import (
    InpaintParameters,
    PreprocessParameters,
    RefineParameters,
    Txt2ImgParameters,
    UpscaleParameters,
)
from jobs.parts import Control, Hires, Lora
from jobs.pictures import upload_ref
from jobs.prompts.infotext import NEGATIVE, parse_fields, parse_infotext, write_infotext
from jobs.prompts.tags import take_tags

REF = upload_ref("0" * 64)

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


def test_write_infotext_of_a_second_pass_and_a_stack() -> None:
    """LoRAs stand in the prompt as tags, the rest under A1111's names."""
    said = PARAMETERS.model_copy(
        update={
            "loras": [Lora(name="frame", weight=0.8), Lora(name="ground", weight=1.0, text_encoder_weight=0.5)],
            "hires": Hires(scale=2.0, steps=7, strength=0.4, upscaler="shapes-x2"),
            "clip_skip": 2,
            "vae": "shapes-grey",
        }
    )
    read = parse_infotext(write_infotext(said, 5, "0a1b2c3d4e"))
    assert take_tags(read.prompt) == (said.prompt, tuple(said.loras))
    wanted = {
        "VAE": "shapes-grey", "Clip skip": "2", "Denoising strength": "0.4", "Hires upscale": "2", "Hires steps": "7",
        "Hires upscaler": "shapes-x2",
    }  # fmt: skip
    assert wanted.items() <= read.fields.items()


def test_write_infotext_of_inpainting_with_controls() -> None:
    """Each control is a field whose value holds fields again, whatever its names hold."""
    controls = [
        Control(model='odd, "name": 1', image=REF, scale=0.5, end=0.75),
        Control(model="b", image=REF, preprocessor="canny", preprocessor_options={"low_threshold": 50, "x": 0.5}),
    ]
    said = InpaintParameters(
        **PARAMETERS.model_dump(exclude={"task", "hires", "refiner"}),
        image=REF,
        mask=REF,
        mask_blur=8,
        inpaint_area="masked",
    ).model_copy(update={"controls": controls})
    fields = parse_infotext(write_infotext(said, 5, "0a")).fields
    assert (fields["Denoising strength"], fields["Mask blur"], fields["Inpaint area"]) == ("1", "8", "Only masked")
    assert parse_fields(fields["ControlNet 0"]) == {
        "Module": "none", "Model": 'odd, "name": 1', "Weight": "0.5", "Guidance Start": "0", "Guidance End": "0.75",
    }  # fmt: skip
    second = parse_fields(fields["ControlNet 1"])
    assert (second["Module"], second["Threshold A"]) == ("canny", "50")


def test_write_infotext_of_enlargements_and_control_pictures() -> None:
    """What no prompt drew has fields alone, in A1111's names; a refined picture has its prompt."""
    own: dict[str, Any] = {"seed": 3, "preview_every": 0, "image": REF}
    plain = UpscaleParameters(
        **own, model="shapes-x4", width=512, height=256, source_width=128, source_height=64, upscaler="shapes-x4",
        upscaler_scale=4, scale=4.0,
    )  # fmt: skip
    assert write_infotext(plain, 3, "0a") == (
        "Size: 512x256, Model hash: 0a, Model: shapes-x4, Postprocess upscale by: 4, Postprocess upscaler: shapes-x4"
    )
    refine = RefineParameters(prompt="grass", steps=8, guidance_scale=5.0, scheduler="Euler", tile=128, strength=0.3)
    read = parse_infotext(write_infotext(plain.model_copy(update={"refine": refine}), 3, "0a"))
    assert (read.prompt, read.fields["Steps"], read.fields["Denoising strength"]) == ("grass", "8", "0.3")
    edges = PreprocessParameters(**own, model="canny", width=8, height=8, preprocessor="canny")
    assert parse_infotext(write_infotext(edges, 3, "")).fields["Preprocessor"] == "canny"
