"""Check where requests name pictures, and how."""

from typing import Any
from uuid import UUID

import pytest

from jobs.contract import parse_request
from jobs.pictures import job_picture_of, pictures_of, upload_of, upload_ref, with_pictures

DIGEST = "0123456789abcdef" * 4
JOB = UUID("0190a0b0-0000-7000-8000-000000000001")


def test_pictures_are_found_by_the_path_of_their_field() -> None:
    """Source, mask and every control picture; a request without pictures has none."""
    request = parse_request(
        {
            "task": "inpaint", "prompt": "p", "image": "a", "mask": "b",
            "controls": [{"model": "m", "image": "c"}, {"model": "n", "image": "d"}],
        }
    )  # fmt: skip
    assert pictures_of(request) == {"image": "a", "mask": "b", "controls.0.image": "c", "controls.1.image": "d"}
    assert pictures_of(parse_request({"prompt": "p"})) == {}


def test_pictures_are_replaced_where_they_stand() -> None:
    """Everything else of the request stays, and the one that was given is not changed."""
    request = parse_request(
        {"task": "img2img", "prompt": "p", "image": "a", "controls": [{"model": "m", "image": "c"}]}
    )
    changed = with_pictures(request, lambda field, text: f"{field}={text}")
    assert pictures_of(changed) == {"image": "image=a", "controls.0.image": "controls.0.image=c"}
    assert pictures_of(request) == {"image": "a", "controls.0.image": "c"}
    assert changed.model_dump(exclude={"image", "controls"}) == request.model_dump(exclude={"image", "controls"})


def test_references_are_told_from_inline_pictures() -> None:
    """An upload is named by 64 hexadecimal digits, a job's picture by its id and index; anything else is no reference."""
    assert upload_of(upload_ref(DIGEST)) == DIGEST
    assert job_picture_of(f"job:{JOB}/3") == (JOB, 3)
    for text in (
        "",
        DIGEST,
        "upload:",
        f"upload:{DIGEST[1:]}",
        f"upload:{DIGEST.upper()}",
        f"job:{JOB}",
        f"job:{JOB}/x",
    ):
        assert upload_of(text) is None
        assert job_picture_of(text) is None
    assert job_picture_of("job:--------------------------------/0") is None


@pytest.mark.parametrize(
    ("fields", "where", "kind"),
    [
        ({"task": "inpaint", "image": "a"}, (), "mask_missing"),
        ({"task": "inpaint", "image": "a", "outpaint": {}}, ("outpaint",), "outpaint_empty"),
        ({"task": "inpaint", "image": "a", "outpaint": {"left": 8}, "inpaint_area": "masked"}, (), "outpaint_whole"),
        ({"controls": [{"model": "m", "image": "a", "start": 0.5, "end": 0.5}]}, ("controls", 0), "control_span"),
        ({"task": "img2img", "image": "a", "strength": 1.5}, ("strength",), "less_than_equal"),
        ({"task": "upscale", "image": "a", "prompt": "p"}, ("prompt",), "extra_forbidden"),
    ],
)
def test_requests_that_contradict_themselves_are_refused(
    fields: dict[str, Any], where: tuple[Any, ...], kind: str
) -> None:
    """The reason names the field, or the whole request where two fields disagree."""
    with pytest.raises(Exception) as caught:  # noqa: PT011 - pydantic's own, whose parts are looked at
        parse_request({"prompt": "p", **fields} if fields.get("task") != "upscale" else fields)
    [error] = caught.value.errors()  # type: ignore[attr-defined]
    assert (error["loc"], error["type"]) == (where, kind)
