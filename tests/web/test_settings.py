"""Settings as one sees them: keys made, shown once and revoked; colours; how the fleet does."""

from typing import Any

import httpx
from playwright.sync_api import expect

from tests.fleet_process import eventually
from tests.web.visitor import Visitor


def test_key_is_made_shown_once_and_revoked(visitor: Visitor, fleet: Any, http: httpx.Client) -> None:
    """It works until it is revoked, belongs to who was named, and is nowhere on the page once the dialog is closed."""
    page = visitor.page
    page.goto("/settings")
    page.get_by_role("button", name="New key").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Name").fill("browser test")
    dialog.get_by_label("Owner").fill("ada")
    page.keyboard.press("Enter")
    expect(dialog.get_by_role("heading", name="The key, shown this once")).to_be_visible()
    key = dialog.locator("code").inner_text()
    with httpx.Client(base_url=fleet.url, headers={"authorization": f"Bearer {key}"}, trust_env=False) as ada:
        assert ada.get("/v1/jobs").status_code == 200
        assert ada.get("/v1/keys").status_code == 403
        # It is shown this once: a stray click does not take it away.
        page.mouse.click(4, 4)
        expect(dialog.locator("code")).to_be_visible()
        dialog.get_by_role("button", name="Done").click()
        assert key not in page.content()
        row = page.get_by_role("row", name="browser test")
        expect(row).to_contain_text("ada")
        row.get_by_label("Days that jobs of browser test are kept").fill("7")
        page.keyboard.press("Tab")
        eventually(lambda: _key(http)["retention_days"] == 7, 5)
        row.get_by_role("button", name="Revoke").click()
        page.get_by_role("dialog").get_by_role("button", name="Revoke").click()
        expect(row).to_have_count(0)
        page.get_by_label("Show revoked ones").check()
        expect(row.get_by_text("revoked")).to_be_visible()
        eventually(lambda: ada.get("/v1/jobs").status_code == 401, 5)
    assert (_key(http)["owner"], _key(http)["scopes"]) == ("ada", ["user"])


def _key(http: httpx.Client) -> dict[str, Any]:
    found: dict[str, Any] = next(
        each for each in http.get("/v1/keys").json()["items"] if each["name"] == "browser test"
    )
    return found


def test_key_that_is_refused_says_why_and_keeps_what_was_typed(visitor: Visitor) -> None:
    """The server's sentence stands in the dialog."""
    visitor.expected = ("422",)
    page = visitor.page
    page.goto("/settings")
    page.get_by_role("button", name="New key").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_label("Name")).to_be_focused()
    dialog.get_by_label("Name").evaluate("field => field.removeAttribute('required')")
    page.keyboard.press("Enter")
    expect(dialog.get_by_label("Name")).to_have_attribute("aria-invalid", "true")
    assert visitor.faults() == []
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)


def test_own_key_cannot_be_revoked_by_accident(visitor: Visitor) -> None:
    """The key one is signed in with has no button."""
    page = visitor.page
    page.goto("/settings")
    row = page.get_by_role("row", name="first key")
    expect(row.get_by_text("yours now")).to_be_visible()
    expect(row.get_by_role("button")).to_have_count(0)


def test_status_and_colours(visitor: Visitor) -> None:
    """Every part answers; the chosen colours hold at once and on the next visit."""
    page = visitor.page
    page.goto("/settings")
    system = page.get_by_role("region", name="System")
    for part in ("Database", "Redis", "Storage", "Keeper"):
        expect(system.get_by_role("listitem").filter(has_text=part)).to_contain_text("ok")
    expect(system.get_by_text("30 days")).to_be_visible()
    page.get_by_label("Dark", exact=True).and_(page.get_by_role("radio")).check()
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    page.reload()
    expect(page.get_by_role("radio", name="Dark")).to_be_checked()
