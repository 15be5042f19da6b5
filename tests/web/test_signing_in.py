"""A key opens the application; what it needs at first is small, and nothing of it comes from elsewhere."""

from playwright.sync_api import Route, expect

from tests.fleet_process import FleetProcess
from tests.web.visitor import Visitor

#: Of the first view, compressed.
MOST_SCRIPT_BYTES = 200_000


def test_key_and_enter_open_draw(stranger: Visitor, fleet: FleetProcess) -> None:
    """One password field, Enter, Draw; the key is nowhere in the address nor within reach of scripts."""
    page = stranger.page
    page.goto("/")
    expect(page.get_by_label("API key")).to_be_focused()
    assert page.locator("input[type=password]").count() == 1
    page.keyboard.type(fleet.key)
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Draw", exact=True)).to_be_visible()
    assert page.url == f"{fleet.url}/draw"
    expect(page.locator("textarea").first).to_have_accessible_name("Prompt")
    assert page.evaluate("document.cookie") == ""
    cookie = next(each for each in stranger.context.cookies() if each["name"] == "imagefleet_session")
    assert cookie["httpOnly"]
    assert cookie["sameSite"] == "Strict"
    assert fleet.key not in cookie["value"]


def test_wrong_key_says_so(stranger: Visitor) -> None:
    """The server's own sentence stands at the field; nothing is lost and nothing opens."""
    stranger.expected = ("401",)
    page = stranger.page
    page.goto("/gallery")
    page.get_by_label("API key").fill("if_wrong")
    page.keyboard.press("Enter")
    expect(page.get_by_text("unknown or revoked")).to_be_visible()
    expect(page.get_by_label("API key")).to_have_attribute("aria-invalid", "true")
    assert "/sign-in" in page.url


def test_signing_out_closes_everything(visitor: Visitor) -> None:
    """Afterwards the cookie is gone and every view leads to the sign-in."""
    page = visitor.page
    page.goto("/draw")
    page.get_by_role("link", name="Sign out").click()
    expect(page.get_by_label("API key")).to_be_visible()
    assert visitor.context.cookies() == []
    page.goto("/queue")
    expect(page.get_by_label("API key")).to_be_visible()


def test_signing_out_waits_for_nothing(visitor: Visitor) -> None:
    """What a view had asked for is given up before the session ends, so that nothing is refused afterwards."""
    page = visitor.page
    held: list[Route] = []
    given_up: list[str] = []

    def hold(route: Route) -> None:
        held.append(route)

    page.route("**/v1/prompts/tokens", hold)
    page.on("requestfailed", lambda request: given_up.append(request.url))
    page.goto("/draw")
    with page.expect_request("**/v1/prompts/tokens"):
        page.locator("textarea").first.fill("a red circle")
    page.get_by_role("link", name="Sign out").click()
    expect(page.get_by_label("API key")).to_be_visible()
    assert held
    assert [url for url in given_up if url.endswith("/v1/prompts/tokens")]


def test_link_from_elsewhere_signs_nobody_out(visitor: Visitor) -> None:
    """Who did not come from the application itself is asked, and may stay."""
    page = visitor.page
    page.goto("/sign-out")
    expect(page.get_by_role("button", name="Sign out")).to_be_visible()
    assert visitor.context.cookies() != []
    page.route(
        "**/v1/session",
        lambda route: (
            route.fulfill(status=503, json={"detail": "The database is away."})
            if route.request.method == "DELETE"
            else route.continue_()
        ),
    )
    visitor.expected = ("503",)
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("alert")).to_contain_text("You are still signed in.")
    page.unroute("**/v1/session")
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_label("API key")).to_be_visible()
    assert visitor.context.cookies() == []


def test_who_signs_in_next_finds_nothing(visitor: Visitor, fleet: FleetProcess) -> None:
    """Whether one has signed out or the key was revoked meanwhile, the next person sees none of the last one's words and presets."""
    with fleet.client() as admin:
        keys = {owner: admin.post("/v1/keys", json={"name": owner, "owner": owner}).json() for owner in ("ida", "udo")}
    page = visitor.page
    prompt = page.locator("textarea").first

    def enter(owner: str) -> None:
        page.get_by_label("API key").fill(keys[owner]["key"])
        page.keyboard.press("Enter")
        page.get_by_role("link", name="Draw").click()
        expect(page.get_by_role("button", name="Draw", exact=True)).to_be_visible()
        expect(prompt).to_have_value("")
        page.get_by_role("button", name="Presets").click()

    page.goto("/sign-out")
    page.get_by_role("button", name="Sign out").click()
    enter("ida")
    page.keyboard.press("Escape")
    prompt.fill("what Ida dreams of")
    page.get_by_role("button", name="Presets").click()
    page.get_by_label("Keep what the form holds as").fill("dream")
    page.keyboard.press("Enter")
    page.keyboard.press("Escape")
    page.get_by_role("link", name="Sign out").click()

    enter("udo")
    expect(page.get_by_text("None yet.")).to_be_visible()
    page.keyboard.press("Escape")
    prompt.fill("what Udo dreams of")
    visitor.expected = ("401",)
    with fleet.client() as admin:
        admin.delete(f"/v1/keys/{keys['udo']['id']}").raise_for_status()
    page.get_by_role("link", name="Queue").click()

    enter("ida")
    page.get_by_role("button", name="dream", exact=True).click()
    expect(prompt).to_have_value("what Ida dreams of")


def test_first_view_is_small(visitor: Visitor) -> None:
    """All script of the first view is at most 200 KB as it is sent."""
    visitor.page.goto("/draw")
    expect(visitor.page.get_by_role("button", name="Draw", exact=True)).to_be_visible()
    visitor.page.wait_for_load_state("networkidle")
    assert visitor.scripts
    assert all(visitor.scripts.values())
    assert sum(visitor.scripts.values()) <= MOST_SCRIPT_BYTES


def test_offline_page_says_so(visitor: Visitor) -> None:
    """Once the service worker is there, a device without network is told the truth instead of an error of the browser."""
    page = visitor.page
    page.goto("/draw")
    page.evaluate("navigator.serviceWorker.ready.then(() => true)")
    page.wait_for_function(
        "async () => (await caches.keys()).length > 0 && (await caches.match('/offline.html', {ignoreSearch: true})) !== undefined"
    )
    visitor.expected = ("ERR_INTERNET_DISCONNECTED",)
    visitor.context.set_offline(True)
    page.goto("/gallery")
    expect(page.get_by_role("heading", name="Imagefleet is out of reach")).to_be_visible()
