"""The library as one uses it: found, composed into a prompt, described, added to and cleared."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Page, expect
from safetensors.numpy import load_file, save_file

from tests.fleet_process import eventually
from tests.web.visitor import Visitor

FRAME = Path(__file__).parents[2] / "reference_models" / "loras" / "shapes-frame.safetensors"


@pytest.fixture
def library(page: Page, http: httpx.Client) -> Iterator[Page]:
    """Return the Library view with nothing active."""
    _deactivate_all(http)
    page.goto("/library")
    expect(page.get_by_role("article", name="shapes-sd15", exact=True)).to_be_visible()
    yield page
    _deactivate_all(http)


def _deactivate_all(http: httpx.Client) -> None:
    ids = [each["id"] for each in http.get("/v1/adapters", params={"active": True}).json()["items"]]
    if ids:
        assert http.post("/v1/adapters/bulk", json={"action": "deactivate", "ids": ids}).status_code == 200


def _stack(http: httpx.Client) -> list[str]:
    items = http.get("/v1/adapters", params={"active": True}).json()["items"]
    return [each["name"] for each in sorted(items, key=lambda each: int(each["marks"]["position"]))]


def test_two_are_found_activated_ordered_and_composed_into_draw(library: Page, http: httpx.Client) -> None:
    """What search finds is activated by a click; the stack's order, changed by keys, is the order of the prompt on Draw."""
    library.get_by_label("Search the library").fill("shapes-fr")
    frame = library.get_by_role("article", name="shapes-frame", exact=True)
    expect(library.get_by_role("article", name="shapes-sd15", exact=True)).to_have_count(0)
    frame.get_by_role("button", name="Activate").click()
    library.get_by_label("Search the library").fill("shapes-ground")
    library.get_by_role("article", name="shapes-ground", exact=True).get_by_role("button", name="Activate").click()
    stack = library.get_by_role("complementary", name="Stack").get_by_role("listitem")
    expect(stack).to_contain_text(["shapes-frame", "shapes-ground"])
    library.get_by_role("button", name="Move shapes-ground: arrow keys, or drag").press("ArrowUp")
    expect(stack).to_contain_text(["shapes-ground", "shapes-frame"])
    eventually(lambda: _stack(http) == ["shapes-ground", "shapes-frame"])
    library.reload()
    expect(stack).to_contain_text(["shapes-ground", "shapes-frame"])
    library.get_by_role("button", name="Use in Draw", exact=True).click()
    library.wait_for_url("**/draw")
    prompt = library.get_by_label("Prompt", exact=True).input_value()
    assert 0 <= prompt.find("<lora:shapes-ground:") < prompt.find("<lora:shapes-frame:"), prompt


def test_file_is_uploaded_described_and_deleted_in_bulk(
    visitor: Visitor, library: Page, http: httpx.Client, tmp_path: Path
) -> None:
    """A LoRA arrives in the list; a refused name is said by its field; its tags are edited; many are deleted at once when one is sure."""
    file = tmp_path / "soft-frame.safetensors"
    save_file({name: tensor * 0.5 for name, tensor in load_file(FRAME).items()}, file)
    library.get_by_role("button", name="Upload…").click()
    dialog = library.get_by_role("dialog", name="Upload a model")
    dialog.get_by_label("File of the model").set_input_files(file)
    name = dialog.get_by_label("Name", exact=True)
    expect(name).to_have_value("soft-frame")
    visitor.expected = ("422",)
    name.fill("soft<frame")
    dialog.get_by_role("button", name="Upload", exact=True).click()
    expect(name).to_have_attribute("aria-invalid", "true")
    name.fill("soft-frame")
    dialog.get_by_role("button", name="Go on").click()
    expect(dialog).to_have_count(0)
    library.get_by_label("Search the library").fill("soft")
    card = library.get_by_role("article", name="soft-frame", exact=True)
    card.get_by_role("button", name="Details").click()
    details = library.get_by_role("dialog", name="soft-frame")
    details.get_by_role("button", name="Edit").click()
    details.get_by_label("Tags").fill("soft, frames")
    assert visitor.faults() == []
    details.get_by_role("button", name="Save").click()
    expect(details.get_by_role("list", name="Tags").get_by_role("listitem")).to_have_text(["soft", "frames"])
    assert visitor.faults() == []
    library.keyboard.press("Escape")
    library.get_by_label("Search the library").fill("")
    library.get_by_role("list", name="Narrow down").get_by_role("button", name="frames").click()
    expect(library.get_by_role("article")).to_have_count(1)
    library.get_by_role("checkbox", name="Select soft-frame").check()
    library.get_by_role("region", name="Selected entries").get_by_role("button", name="Delete…").click()
    library.get_by_role("dialog").get_by_role("button", name="Delete", exact=True).click()
    expect(library.get_by_text("Nothing fits")).to_be_visible()
    assert http.get("/v1/adapters/soft-frame").status_code == 404
