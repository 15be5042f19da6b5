"""What holds for every view: no serious accessibility fault, light, dark and on a phone; no sideways scrolling; reachable by keyboard."""

import pytest
from playwright.sync_api import Browser, expect

from tests.fleet_process import FleetProcess
from tests.web.visitor import Visitor

#: Path to the heading that says that the view is there.
VIEWS = {
    "/draw": "Draw", "/gallery": "Gallery", "/queue": "Queue", "/library": "Library", "/fleet": "Fleet", "/analytics": "Analytics",
    "/settings": "Settings",
}  # fmt: skip
PHONE = {"width": 375, "height": 740}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_view_has_no_serious_fault(browser: Browser, fleet: FleetProcess, signed_in: str, scheme: str) -> None:
    """Axe finds nothing serious on any view, on a desk or a phone, in light and dark."""
    for size in ({"width": 1360, "height": 860}, PHONE):
        visitor = Visitor.arrive(browser, fleet.url, cookie=signed_in, viewport=size, color_scheme=scheme)
        for path, title in VIEWS.items():
            visitor.page.goto(path)
            expect(visitor.page.get_by_role("heading", name=title, exact=True, level=1)).to_be_attached()
            assert visitor.page.evaluate("document.documentElement.dataset.theme") == scheme
            assert visitor.faults() == [], path
            assert visitor.page.evaluate("document.documentElement.scrollWidth <= innerWidth"), path
        visitor.leave()


def test_sign_in_has_no_serious_fault(stranger: Visitor) -> None:
    """Axe finds nothing serious before one is let in."""
    stranger.page.goto("/")
    expect(stranger.page.get_by_label("API key")).to_be_visible()
    assert stranger.faults() == []


def test_navigation_works_by_keyboard(visitor: Visitor) -> None:
    """The first stop leads past the navigation; each view follows by Tab and opens by Enter, with focus to be seen."""
    page = visitor.page
    page.goto("/draw")
    expect(page.get_by_role("heading", name="Draw", exact=True, level=1)).to_be_attached()
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to content")).to_be_focused()
    page.keyboard.press("Tab")
    for path in VIEWS:
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.getAttribute('href')") == path
        assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    page.wait_for_url(f"**{list(VIEWS)[-1]}")


def test_dark_is_remembered(visitor: Visitor) -> None:
    """The switch changes the page at once and for the next visit."""
    page = visitor.page
    page.goto("/draw")
    light = page.evaluate("getComputedStyle(document.body).color")
    page.get_by_role("button", name="Dark").click()
    assert page.evaluate("getComputedStyle(document.body).color") != light
    page.reload()
    expect(page.get_by_role("button", name="Dark")).to_have_attribute("aria-pressed", "true")
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
