"""What one has made or waited for stays: through a stray click, a reload, a failure nobody saw and a server that was away."""

import httpx
import pytest
from playwright.sync_api import FilePayload, Page, expect

from tests.fleet_process import FleetProcess
from tests.picture_files import png
from tests.web.visitor import Visitor

PICTURE = FilePayload(name="ground.png", mimeType="image/png", buffer=png(64, 64))
#: What Draw, Gallery and Library show.
SHOWN = ("**/v1/models?*", "**/v1/adapters?*", "**/v1/results?*", "**/v1/jobs?*")


@pytest.fixture
def form(page: Page) -> Page:
    """Return the Draw view once its model is chosen."""
    page.goto("/draw")
    expect(page.get_by_label("Model", exact=True)).to_have_value("shapes-sd15")
    return page


def test_painted_mask_is_left_only_when_one_is_sure(form: Page) -> None:
    """A click beside the editor changes nothing, Escape asks first, and a mask of nothing is not taken."""
    form.get_by_role("button", name="Inpaint").click()
    form.get_by_label("Source picture", exact=True).set_input_files(PICTURE)
    form.get_by_role("button", name="Paint the mask").click()
    editor = form.get_by_role("dialog", name="Paint the mask")
    editor.get_by_role("button", name="Use this mask").click()
    expect(editor.get_by_role("alert")).to_contain_text("Nothing is painted yet")
    editor.locator("canvas").press("Space")
    expect(editor.get_by_role("alert")).to_have_count(0)
    form.mouse.click(4, 4)
    form.keyboard.press("Escape")
    asked = form.get_by_role("dialog", name="Leave without this mask?")
    asked.get_by_role("button", name="Cancel").click()
    expect(asked).to_have_count(0)
    expect(editor.get_by_role("button", name="Undo")).to_be_enabled()
    editor.get_by_role("button", name="Close").click()
    asked.get_by_role("button", name="Leave").click()
    expect(editor).to_have_count(0)


def test_form_outlasts_a_reload_and_ends_with_the_session(form: Page) -> None:
    """What was typed and put together is there again; after signing out the tab keeps nothing."""
    form.get_by_label("Prompt", exact=True).fill("a lighthouse at dusk")
    form.get_by_role("button", name="Picture", exact=True).click()
    form.get_by_label("Source picture", exact=True).set_input_files(PICTURE)
    expect(form.get_by_text("Replace")).to_be_visible()
    form.reload()
    expect(form.get_by_label("Prompt", exact=True)).to_have_value("a lighthouse at dusk")
    expect(form.get_by_role("button", name="Picture", exact=True)).to_have_attribute("aria-pressed", "true")
    expect(form.get_by_text("Replace")).to_be_visible()
    form.get_by_role("link", name="Sign out").click()
    expect(form.get_by_label("API key")).to_be_visible()
    assert "lighthouse" not in form.evaluate("JSON.stringify(sessionStorage)")


@pytest.fixture
def failed(fleet: FleetProcess, http: httpx.Client) -> str:
    """Return a job that failed while nobody looked: its time ran out behind others."""
    busy = [fleet.submit(http, steps=200, width=256, height=256) for _ in range(3)]
    job = fleet.submit(http, "a star that comes too late", steps=3, deadline_s=1)
    assert fleet.wait(http, job)["state"] == "failed"
    for each in busy:
        http.post(f"/v1/jobs/{each}/cancel")
        fleet.wait(http, each)
    return job


def test_failure_is_told_to_who_comes_later(page: Page, failed: str) -> None:
    """It stands with its reason among what was drawn, and its parameters go back into the form to be changed."""
    page.goto("/draw")
    card = page.locator(f"[data-job='{failed}']")
    expect(card).to_contain_text("The deadline passed")
    card.get_by_role("button", name="Put its parameters into the form").click()
    expect(page.get_by_label("Prompt", exact=True)).to_have_value("a star that comes too late")
    expect(page.get_by_role("spinbutton", name="Steps")).to_have_value("3")


def test_views_come_back_with_the_server(visitor: Visitor, fleet: FleetProcess, http: httpx.Client) -> None:
    """Opened while the server is away they say so, and fill by themselves when it answers again."""
    fleet.wait(http, fleet.submit(http, steps=1))
    page = visitor.page
    visitor.expected = ("ERR_FAILED",)
    page.goto("/settings")
    for path in SHOWN:
        page.route(path, lambda route: route.abort())
    page.get_by_role("link", name="Draw", exact=True).click()
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text("The server does not answer")
    expect(page.get_by_text("No model is registered yet.")).to_have_count(0)
    page.get_by_role("link", name="Library").click()
    expect(alert).to_contain_text("The server does not answer")
    page.get_by_role("link", name="Gallery").click()
    expect(alert).to_contain_text("The server does not answer")
    for path in SHOWN:
        page.unroute(path)
    expect(page.locator(".tile").first).to_be_visible()
    expect(alert).to_have_count(0)
    page.get_by_role("link", name="Draw", exact=True).click()
    expect(page.get_by_label("Model", exact=True)).to_have_value("shapes-sd15")


def test_message_goes_without_its_dialog(page: Page, fleet: FleetProcess, http: httpx.Client) -> None:
    """Whoever takes a message away, does not mean what lies below it."""
    job = fleet.submit(http, steps=1)
    fleet.wait(http, job)
    page.context.grant_permissions(["clipboard-write"])
    page.goto(f"/gallery/{job}/0")
    page.get_by_role("button", name="curl").click()
    dismiss = page.locator(".toast button")
    box = dismiss.bounding_box()
    assert box is not None
    page.mouse.click(box["x"] + 4, box["y"] + 4)
    expect(dismiss).to_have_count(0)
    expect(page.get_by_role("dialog")).to_be_visible()


def test_page_that_came_by_plain_http_copies_too(page: Page, fleet: FleetProcess, http: httpx.Client) -> None:
    """Browsers give it no clipboard: a selection is copied, and the focus comes back."""
    job = fleet.submit(http, steps=1, seed=4711)
    fleet.wait(http, job)
    page.add_init_script(
        """Object.defineProperty(navigator, 'clipboard', {value: undefined});
        addEventListener('copy', () => { window.copied = document.activeElement.value; }, true);"""
    )
    page.goto(f"/gallery/{job}/0")
    button = page.get_by_role("button", name="A1111 text")
    button.click()
    expect(page.get_by_text("A1111 text copied.")).to_be_visible()
    assert "Seed: 4711" in page.evaluate("window.copied")
    expect(button).to_be_focused()
