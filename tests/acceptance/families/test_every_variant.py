"""Every variant of every family over HTTP, in the real architecture with random weights: recognised, drawn with, cancelled, refused."""

from typing import Any, Final

import numpy as np
import pytest

from models_registry.families import FAMILIES
from tests.acceptance.families.conftest import VARIANTS, facts_of
from tests.acceptance.tasks.conftest import Studio
from tests.fleet_process import eventually

SIDE: Final = 64
every_variant = pytest.mark.parametrize("name", VARIANTS)


def _request(name: str, task: str, **changes: Any) -> dict[str, Any]:
    grey, mask = np.full((SIDE, SIDE, 3), 128, np.uint8), np.zeros((SIDE, SIDE), np.uint8)
    mask[16:48, 16:48] = 255
    own: dict[str, Any] = {} if task == "txt2img" else {"image": grey}
    if task == "inpaint":
        own["mask"] = mask
    if facts_of(name).reads_control:
        own["controls"] = [{"image": grey, "preprocessor": "canny"}]
    common = {
        "model": name,
        "task": task,
        "prompt": "a red circle",
        "width": SIDE,
        "height": SIDE,
        "seed": 5,
        "steps": 3,
    }
    return {**common, **own, **changes}


def test_every_folder_is_recognised(studio: Studio) -> None:
    """Family and variant of each are those it was built as."""
    listed = studio.http.get("/v1/models", params={"limit": 200}).raise_for_status().json()["items"]
    found = {each["name"]: (each["family"], each["variant"]) for each in listed if each["name"].startswith("tiny-")}
    assert {name: found.get(name) for name in VARIANTS} == VARIANTS


@every_variant
def test_variant_draws_its_tasks(studio: Studio, name: str) -> None:
    """By the variant's own defaults of scheduler and guidance, each task gives a picture that is not flat."""
    for task in sorted(facts_of(name).tasks):
        picture = studio.draw(**_request(name, task))
        assert picture.shape == (SIDE, SIDE, 3)
        assert picture.astype(float).std() > 1


@every_variant
def test_variant_is_cancelled_in_the_middle(studio: Studio, name: str) -> None:
    """A running job stops, and the next one draws."""
    task = min(facts_of(name).tasks)
    answer = studio.submit(**_request(name, task, steps=150, num_images=16))
    assert answer.status_code == 202, answer.text
    job = answer.json()["id"]
    eventually(lambda: studio.http.get(f"/v1/jobs/{job}").json()["progress"]["step"] > 0)
    studio.http.post(f"/v1/jobs/{job}/cancel").raise_for_status()
    assert studio.fleet.wait(studio.http, job)["state"] == "cancelled"


@pytest.mark.parametrize("name", [name for name, (family, _) in VARIANTS.items() if family in {"sd15", "sd2", "sdxl"}])
def test_variant_refuses_the_tasks_that_it_does_not_do(studio: Studio, name: str) -> None:
    """Whatever another variant of the family does, this one says at submit that it does not."""
    family, _ = VARIANTS[name]
    for task in sorted(FAMILIES[family].tasks - facts_of(name).tasks):
        code, field, sentence = studio.refused(422, **_request(name, task))
        assert (code, field) == ("task_unsupported", "task"), sentence
