"""OpenAI's requests become ours, field by field; whatever is sent is a request of ours or a refusal."""

import contextlib
import io
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError

from broker_api.doors.openai.drawing import is_again
from broker_api.doors.openai.forms import nested
from broker_api.doors.openai.masks import mask_of, own_mask
from broker_api.doors.openai.payloads import Drawing, Edit, Generation, Variation
from broker_api.doors.openai.presets import size_problem
from broker_api.doors.openai.refusals import FieldRefused
from broker_api.doors.openai.streaming import Choice, preview_every
from broker_api.doors.openai.translation import Sources, model_of, request_of, their_name, their_names
from jobs.contract import Img2ImgRequest, InpaintRequest, Txt2ImgParameters, Txt2ImgRequest
from jobs.errors import PictureRefused, RequestRefused
from jobs.parts import Lora, Output
from models_registry.entries import Component, Kind, Layout, ModelEntry
from models_registry.offers import Catalogue

ENTRY = ModelEntry(
    name="m", kind=Kind.CHECKPOINT, layout=Layout.DIFFUSERS, family="sd15", path=Path("m"), fingerprint="0" * 64,
    components=(Component(name="unet", bytes=1, parameters=1, dtype="F16"),), native_size=128, latent_factor=8, latent_channels=4,
    default_steps=20,
)  # fmt: skip
CATALOGUE = Catalogue({ENTRY.ref: ENTRY}, frozenset())
SOURCES = Sources("upload:" + "0" * 64)
BOTH = Sources("upload:" + "0" * 64, "upload:" + "1" * 64)


def _asked(**fields: Any) -> Any:
    return request_of(Generation.model_validate({"prompt": "a cat"} | fields), ENTRY)


def _png(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def test_what_a_model_has_no_use_for_is_left_out() -> None:
    """A negative prompt and a scale of either kind are dropped where they say nothing."""
    fields: dict[str, Any] = {"prompt": "a", "negative_prompt": "blur", "clip_skip": 2, "true_cfg_scale": 4}

    def asked(family: str, variant: str, **more: Any) -> tuple[str, float | None, int]:
        entry = ENTRY.model_copy(update={"family": family, "variant": variant})
        found = request_of(Generation.model_validate(fields | more), entry)
        assert isinstance(found, Txt2ImgRequest)
        return found.negative_prompt, found.guidance_scale, found.clip_skip

    assert asked("sd15", "base") == ("blur", 4, 2)
    assert asked("sd3", "medium") == ("blur", 4, 1)
    assert asked("flux", "dev") == ("", None, 1)
    assert asked("flux", "dev", guidance_scale=2.5) == ("", 2.5, 1)
    assert asked("flux", "schnell", guidance_scale=2.5) == ("", None, 1)


def test_generation_says_the_same_in_our_words() -> None:
    """Every field arrives under its own name here."""
    asked = _asked(
        model="m", n=3, size="192x128", output_format="webp", output_compression=80, negative_prompt="blur", steps=12,
        true_cfg_scale=5, seed=7, loras=[{"name": "a", "weight": 0.5}, "b"], lora={"path": "c", "scale": 2}, clip_skip=2,
        scheduler="DPM++ 2M Karras", user="u", style="vivid", moderation="low", generator_device="cuda", unknown=[1],
    )  # fmt: skip
    assert asked == Txt2ImgRequest(
        prompt="a cat", model="m", num_images=3, width=192, height=128, output=Output(format="webp", quality=80),
        negative_prompt="blur", steps=12, guidance_scale=5, seed=7, clip_skip=2, scheduler="DPM++ 2M Karras",
        loras=[Lora(name="a", weight=0.5), Lora(name="b"), Lora(name="c", weight=2)],
    )  # fmt: skip


def test_what_is_left_out_is_the_models() -> None:
    """Neither size nor steps are OpenAI's."""
    assert _asked(size="auto", quality="auto", model="") == Txt2ImgRequest(prompt="a cat", model="m")


@pytest.mark.parametrize(
    ("quality", "steps"),
    [("low", 10), ("medium", None), ("standard", None), ("high", 30), ("hd", 30), ("xhigh", 40), ("max", 60)],
)
def test_quality_is_steps(quality: str, steps: int | None) -> None:
    """Times the model's own, unless the request names steps."""
    assert _asked(quality=quality).steps == steps
    assert _asked(quality=quality, num_inference_steps=5).steps == 5


def test_size_that_is_none_is_refused_with_the_nearest() -> None:
    """In both directions, inside the model's limits; sides of their own count before `size`."""
    assert size_problem(512, 1024, ENTRY) is None
    with pytest.raises(FieldRefused, match="Nearest: 512x512, 520x512") as refused:
        _asked(size="513x512")
    assert refused.value.field == "size"
    with pytest.raises(FieldRefused, match="Nearest: 4096x64") as refused:
        _asked(size="9000x10")
    assert _asked(size="513x512", width=256, height=128).width == 256
    with pytest.raises(FieldRefused) as refused:
        _asked(width=257)
    assert refused.value.field == "width"


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"size": "large"}, "size"), ({"n": 11}, "n"), ({"n": 0}, "n"), ({"quality": "best"}, "quality"),
        ({"background": "transparent"}, "background"), ({"output_format": "gif"}, "output_format"),
        ({"output_compression": 101}, "output_compression"), ({"response_format": "file"}, "response_format"),
        ({"partial_images": 4}, "partial_images"), ({"prompt": ""}, "prompt"), ({"prompt": "a\0"}, "prompt"),
        ({"steps": 0}, "steps"), ({"seed": -2}, "seed"), ({"seed": 2**64}, "seed"), ({"loras": [{"weight": 99}]}, "loras.0.weight"),
        ({"loras": "[{"}, "loras"), ({"clip_skip": 0}, "clip_skip"), ({"strength": 2}, "strength"),
    ],
)  # fmt: skip
def test_bad_value_is_refused_by_its_name(fields: dict[str, Any], field: str) -> None:
    """Before anything is stored."""
    with pytest.raises(ValidationError) as refused:
        Generation.model_validate({"prompt": "a cat"} | fields)
    assert ".".join(map(str, refused.value.errors()[0]["loc"])) == field


def test_lora_without_a_name_is_refused_by_their_name() -> None:
    """As far as the list it was sent in."""
    with pytest.raises(FieldRefused) as refused:
        _asked(lora=[{"weight": 1}])
    assert refused.value.field == "lora.0.name"


def test_our_names_become_theirs() -> None:
    """A refusal of admission speaks of the field that was sent."""
    names = their_names(Generation.model_validate({"prompt": "x", "size": "64x64", "num_inference_steps": 5}))
    ours = ("width", "num_images", "steps", "output.quality", "task", "loras.1.name", "prompt", None)
    assert [their_name(name, names) for name in ours] == [
        "size", "n", "num_inference_steps", "output_compression", "model", "loras.1.name", "prompt", None,
    ]  # fmt: skip


def test_openai_models_mean_the_default() -> None:
    """Clients have their names built in; any other name is one of ours, or refused."""
    names = (None, "gpt-image-1", "dall-e-3", "m", "other")
    assert [model_of(Drawing(model=name), CATALOGUE) for name in names] == [None, None, None, "m", "other"]
    own = ENTRY.model_copy(update={"name": "dall-e-3"})
    assert model_of(Drawing(model="dall-e-3"), Catalogue({own.ref: own}, frozenset())) == "dall-e-3"


def test_pictures_make_the_task() -> None:
    """One alone is redrawn, with a mask the masked part; a variation stays nearer."""
    edit = Edit.model_validate({"prompt": "a cat", "n": "2", "stream": "false"})
    assert request_of(edit, ENTRY, SOURCES) == Img2ImgRequest(
        task="img2img", prompt="a cat", model="m", num_images=2, image=SOURCES.image
    )
    assert request_of(edit, ENTRY, BOTH) == InpaintRequest(
        task="inpaint", prompt="a cat", model="m", num_images=2, image=BOTH.image, mask=BOTH.mask
    )
    variation = request_of(Variation(), ENTRY, SOURCES)
    assert isinstance(variation, Img2ImgRequest)
    assert (variation.prompt, variation.strength) == ("", 0.6)


def test_brackets_of_a_form_are_understood() -> None:
    """Equal names are paired by position; an empty text is no value."""
    items = [
        ("prompt", "a"), ("seed", ""), ("loras[][name]", "x"), ("loras[][name]", "y"), ("loras[][weight]", "0.5"),
        ("loras[][weight]", "2"), ("lora[name]", "z"), ("lora[weight]", "1"), ("tags[]", "p"), ("tags[]", "q"),
        ("rows[1][name]", "b"), ("rows[0][name]", "a"), ("bad[", "x"), ("deep[a][b][c]", "x"),
    ]  # fmt: skip
    assert nested(items) == {
        "prompt": "a",
        "loras": [{"name": "x", "weight": "0.5"}, {"name": "y", "weight": "2"}],
        "lora": {"name": "z", "weight": "1"},
        "tags": ["p", "q"],
        "rows": [{"name": "a"}, {"name": "b"}],
    }


def test_transparent_part_of_a_mask_becomes_white() -> None:
    """A mask without any, or of another size, is refused; a picture's own transparency is a mask too."""
    clear = Image.new("RGBA", (2, 1), (9, 9, 9, 255))
    clear.putpixel((0, 0), (9, 9, 9, 0))
    for found in (mask_of(_png(clear), (2, 1)), own_mask(_png(clear))):
        assert found is not None
        with Image.open(io.BytesIO(found)) as mask:
            assert (mask.mode, [mask.getpixel((x, 0)) for x in (0, 1)]) == ("L", [255, 0])
    with pytest.raises(PictureRefused, match="must be equal"):
        mask_of(_png(clear), (1, 2))
    for opaque in (Image.new("L", (2, 1), 255), Image.new("RGBA", (2, 1), (0, 0, 0, 255))):
        with pytest.raises(PictureRefused, match="no transparency"):
            mask_of(_png(opaque), (2, 1))
        assert own_mask(_png(opaque)) is None


def _parameters(steps: int, pictures: int = 1) -> Txt2ImgParameters:
    return Txt2ImgParameters(
        prompt="x", model="m", width=64, height=64, steps=steps, guidance_scale=7, scheduler="Euler", seed=1, preview_every=1,
        num_images=pictures,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("steps", "pictures", "partials", "sent"),
    [(25, 1, 3, [6, 12, 18]), (20, 1, 1, [10]), (20, 1, 0, []), (3, 1, 3, [1, 2, 3]), (10, 2, 3, [5, 10, 15])],
)
def test_partial_pictures_are_spread_over_the_steps(steps: int, pictures: int, partials: int, sent: list[int]) -> None:
    """Whatever the number of pictures, each preview that is sent is at or behind an equal part of all steps."""
    parameters = _parameters(steps, pictures)
    every = preview_every(parameters, partials)
    choice = Choice(parameters, partials)
    previews = [(image, step) for image in range(pictures) for step in range(every, steps + 1, every)]
    taken = [image * steps + step for image, step in previews if choice.takes({"image": image, "step": step})]
    assert taken == sent


def test_client_says_that_it_tries_again() -> None:
    """By a count above nothing."""
    counts = ("0", "1", "2", "00", "", "x", "-1")
    assert [is_again({"x-stainless-retry-count": count}) for count in counts] == [False, True, True, *[False] * 4]
    assert not is_again({})


_SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-(10**20), 10**20), st.integers(-2, 70), st.floats(allow_nan=False),
    st.text(max_size=20), st.sampled_from(["", "auto", "64x64", "99999x1", "hd", "m", "gpt-image-1", "[1]", "[[", "\0", "\ud800"]),
)  # fmt: skip
_VALUES = st.recursive(
    _SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["name", "weight", "x"]), inner),
    max_leaves=5,
)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(body=st.dictionaries(st.sampled_from([*Edit.model_fields, "x"]), _VALUES, max_size=6), masked=st.booleans())
def test_nothing_sent_makes_it_fail(body: dict[str, Any], masked: bool) -> None:  # noqa: FBT001 - a parameter of the test
    """Any value in any field."""
    for kind, sources in ((Generation, None), (Edit, BOTH if masked else SOURCES), (Variation, SOURCES)):
        with contextlib.suppress(ValidationError, RequestRefused):
            request_of(kind.model_validate({"prompt": "a"} | body), ENTRY, sources)


@settings(max_examples=300, deadline=None)
@given(items=st.lists(st.tuples(st.text(alphabet="ab[]01x", max_size=12), st.text(max_size=3)), max_size=12))
def test_no_field_name_makes_it_fail(items: list[tuple[str, str]]) -> None:
    """Whatever its brackets."""
    assert isinstance(nested(items), dict)
