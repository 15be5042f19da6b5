"""Every screen has room for the work: side by side where it fits, nothing cut off on a small phone, what one needs at hand."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, expect

from tests.fleet_process import FleetProcess
from tests.web.visitor import Visitor

SMALL_PHONE = {"width": 360, "height": 640}


@pytest.fixture
def phone(browser: Browser, fleet: FleetProcess, signed_in: str) -> Iterator[Visitor]:
    """Open a browser of the smallest phone that is common."""
    visitor = Visitor.arrive(browser, fleet.url, cookie=signed_in, viewport=SMALL_PHONE, has_touch=True, is_mobile=True)
    yield visitor
    visitor.leave()


def test_picture_forms_beside_the_form_on_a_small_desk(browser: Browser, fleet: FleetProcess, signed_in: str) -> None:
    """A tablet that lies is wide enough for both."""
    visitor = Visitor.arrive(browser, fleet.url, cookie=signed_in, viewport={"width": 1024, "height": 768})
    visitor.page.goto("/draw")
    stage = visitor.page.get_by_role("region", name="Jobs of this page")
    expect(stage).to_be_in_viewport()
    box, form = stage.bounding_box(), visitor.page.locator("form").bounding_box()
    assert box is not None
    assert form is not None
    assert box["x"] >= form["x"] + form["width"]
    assert box["width"] > 300
    visitor.leave()


def test_small_phone_shows_everything(phone: Visitor) -> None:
    """The form is as wide as the screen, each view is one touch away, and fields are large enough that nothing zooms by itself."""
    page = phone.page
    page.goto("/draw")
    expect(page.get_by_label("Model", exact=True)).to_have_value("shapes-sd15")
    assert page.locator(".fields").evaluate("(fields) => fields.scrollWidth <= fields.clientWidth")
    for view in ("Draw", "Settings"):
        expect(page.get_by_role("link", name=view, exact=True)).to_be_in_viewport(ratio=1)
    assert (
        page.get_by_label("Prompt", exact=True).evaluate("(field) => parseFloat(getComputedStyle(field).fontSize)")
        >= 16
    )
    page.get_by_role("link", name="Settings").tap()
    expect(page.get_by_role("main").get_by_role("link", name="Sign out")).to_be_in_viewport()


def test_key_with_a_long_name_can_be_revoked_on_a_phone(phone: Visitor, fleet: FleetProcess) -> None:
    """Its button stays in sight beside whatever else is told of it."""
    name = "the drawing tablet in the studio on the second floor"
    with fleet.client() as http:
        made = http.post("/v1/keys", json={"name": name, "owner": "ida"}).json()
        try:
            phone.page.goto("/settings")
            button = phone.page.get_by_role("button", name=f"Revoke {name}")
            button.scroll_into_view_if_needed()
            box = button.bounding_box()
            assert box is not None
            assert box["x"] + box["width"] <= SMALL_PHONE["width"]
            assert phone.page.locator(".scroll").first.evaluate("(table) => table.scrollLeft") == 0
        finally:
            http.delete(f"/v1/keys/{made['id']}")


def test_actions_of_many_pictures_stand_in_one_line(phone: Visitor, fleet: FleetProcess) -> None:
    """Four pictures of one job: below each its actions, none of them in a line of its own or too small to touch."""
    with fleet.client() as http:
        job = fleet.submit(http, steps=1, num_images=4)
        fleet.wait(http, job)
    for width in (360, 1360):
        phone.page.set_viewport_size({"width": width, "height": 800})
        phone.page.goto("/draw")
        actions = phone.page.locator(f"[data-job='{job}']").get_by_role("group", name="With this picture").first
        expect(actions).to_be_visible()
        boxes = actions.evaluate("(group) => [...group.children].map((each) => each.getBoundingClientRect().toJSON())")
        assert len({box["top"] for box in boxes}) == 1
        assert min(box["width"] for box in boxes) >= 24
