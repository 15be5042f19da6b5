"""The form helps to put a request together: models that do what one wants, LoRAs however many, pictures at their own shape."""

import pytest
from playwright.sync_api import FilePayload, Page, Route, expect

from tests.fleet_process import FleetProcess
from tests.picture_files import png


@pytest.fixture
def form(page: Page) -> Page:
    """Return the Draw view once its model is chosen."""
    page.goto("/draw")
    expect(page.get_by_label("Model", exact=True)).to_have_value("shapes-sd15")
    return page


def test_picture_is_drawn_at_its_own_shape(form: Page) -> None:
    """The size follows from the picture that is put in, in the model's steps; of a large one only the shape is kept."""
    source = form.get_by_label("Source picture", exact=True)
    form.get_by_role("button", name="Picture", exact=True).click()
    for given, drawn in (((252, 121), ("256", "120")), ((1200, 300), ("256", "64"))):
        source.set_input_files(FilePayload(name="wide.png", mimeType="image/png", buffer=png(*given)))
        expect(form.get_by_label("Width", exact=True)).to_have_value(drawn[0])
        expect(form.get_by_label("Height", exact=True)).to_have_value(drawn[1])


def test_task_takes_a_model_that_does_it(form: Page) -> None:
    """Of the chosen one's family, and back; a model taken from the library brings its task along."""
    form.get_by_role("button", name="Inpaint").click()
    form.get_by_label("Model", exact=True).select_option("shapes-sd15-inpaint")
    form.get_by_role("button", name="Text", exact=True).click()
    expect(form.get_by_label("Model", exact=True)).to_have_value("shapes-sd15")
    form.get_by_role("link", name="Library").click()
    form.get_by_role("article", name="shapes-sd15-inpaint").get_by_text("Use in Draw").click()
    expect(form.get_by_label("Model", exact=True)).to_have_value("shapes-sd15-inpaint")
    expect(form.get_by_role("button", name="Inpaint")).to_have_attribute("aria-pressed", "true")


def test_loras_are_chosen_by_keyboard_however_many_there_are(page: Page) -> None:
    """Arrows look through all pages of the library and add nothing; Enter adds, and what is taken out leaves the focus in the list."""

    def by_twos(route: Route) -> None:
        route.continue_(url=route.request.url.replace("limit=1000", "limit=2"))

    page.route("**/v1/adapters?*", by_twos)
    page.goto("/draw")
    expect(page.get_by_label("Model", exact=True)).to_have_value("shapes-sd15")
    page.get_by_text("LoRAs", exact=True).click()
    picker = page.get_by_role("combobox", name="Add a LoRA")
    picker.press("ArrowDown")
    expect(page.get_by_role("listbox", name="LoRAs that fit").get_by_role("option")).to_have_text(
        ["shapes-frame", "shapes-frame-2", "shapes-ground"]
    )
    picker.press("ArrowDown")
    picker.press("ArrowDown")
    expect(page.get_by_role("option", name="shapes-ground")).to_have_attribute("aria-selected", "true")
    taken = page.get_by_role("button", name="Take out")
    expect(taken).to_have_count(0)
    picker.press("Enter")
    picker.press_sequentially("E-2")
    picker.press("Enter")
    expect(page.get_by_role("spinbutton", name="shapes-ground")).to_have_value("1")
    expect(page.get_by_role("spinbutton", name="shapes-frame-2")).to_have_value("1")
    taken.first.press("Enter")
    expect(taken).to_have_count(1)
    expect(picker).to_be_focused()


def test_form_says_what_is_not_heard(form: Page) -> None:
    """Without a prompt the field itself is shown; a negative prompt that a distilled model does not read says so."""
    form.get_by_role("button", name="Draw", exact=True).click()
    expect(form.get_by_label("Prompt", exact=True)).to_be_focused()
    form.get_by_label("Negative prompt").fill("blue")
    unheard = form.get_by_text("Says nothing at a guidance of 1 or less.")
    expect(unheard).to_have_count(0)
    form.get_by_label("Model", exact=True).select_option("shapes-turbo")
    expect(unheard).to_be_visible()


def test_picture_closes_to_where_it_was_opened(form: Page, fleet: FleetProcess) -> None:
    """Looked at from beside the form, it gives way to the form again, with the focus where it was."""
    with fleet.client() as http:
        job = fleet.submit(http, steps=1)
        fleet.wait(http, job)
    form.reload()
    tile = form.locator(f"[data-job='{job}'] button.tile")
    tile.press("Enter")
    expect(form.get_by_role("dialog").get_by_text("shapes-sd15")).to_be_visible()
    form.keyboard.press("Escape")
    form.wait_for_url("**/draw")
    expect(tile).to_be_focused()
