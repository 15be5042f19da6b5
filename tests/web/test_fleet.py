"""The fleet as one sees it: workers at work with the picture they draw, what they hold in memory, sent to rest and back."""

from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from tests.fleet_process import FleetProcess, eventually
from tests.web.visitor import Visitor


def _worker(http: httpx.Client, name: str) -> dict[str, Any]:
    found: dict[str, Any] = http.get(f"/v1/workers/{name}").json()
    return found


def test_worker_shows_its_job_with_the_forming_picture(page: Page, http: httpx.Client) -> None:
    """While it draws one sees the step and the picture change; then the job is gone, and what is loaded is still told."""
    job = http.post(
        "/v1/jobs", json={"prompt": "a red circle", "steps": 150, "num_images": 4, "preview_every": 2}
    ).json()
    page.goto("/fleet")
    picture = page.get_by_role("img", name="The forming picture")
    expect(picture).to_be_visible(timeout=60_000)  # the engine may still have to start
    first = picture.get_attribute("src")
    page.wait_for_function(
        "first => { const seen = document.querySelector('article img'); return seen && seen.src !== first }", arg=first
    )
    expect(page.get_by_text("Step").first).to_be_visible()
    card = page.get_by_role("article").filter(has=picture)
    expect(card.get_by_text("busy")).to_be_visible()
    expect(card.get_by_text("UNet")).to_be_visible()
    expect(page.get_by_role("row", name="txt2img.cpu")).to_be_visible()
    assert http.post(f"/v1/jobs/{job['id']}/cancel").status_code in {200, 202}
    expect(picture).to_have_count(0)
    expect(page.get_by_text("Nothing waits and nothing runs.")).to_be_visible()


def test_worker_is_drained_and_resumed_by_a_click(page: Page, http: httpx.Client) -> None:
    """The click is heard by the worker itself, and undone by another."""
    name = http.get("/v1/workers").json()["items"][0]["name"]
    page.goto("/fleet")
    card = page.get_by_role("article", name=f"Worker {name}")
    try:
        card.get_by_role("button", name="Drain").click()
        expect(card.get_by_text("draining")).to_be_visible()
        expect(card.get_by_text("Takes no jobs until it is resumed.")).to_be_visible()
        assert _worker(http, name)["drain_requested_at"] is not None
        card.get_by_role("button", name="Resume").click()
        expect(card.get_by_role("button", name="Drain")).to_be_visible()
        eventually(lambda: _worker(http, name)["state"] == "idle")
    finally:
        http.post(f"/v1/workers/{name}/resume")


def test_lately_tells_what_ended_and_older_things_when_asked(page: Page, http: httpx.Client) -> None:
    """What just ended is first by itself; a click shows what is further back, nothing twice."""
    page.goto("/fleet")
    lately = page.get_by_role("region", name="Lately").get_by_role("listitem")
    for _ in range(13):
        body = {"prompt": "a star", "steps": 1, "deadline_s": 60}
        assert http.post("/v1/jobs", params={"wait": 60}, json=body).json()["state"] == "succeeded"
    expect(lately.first).to_contain_text("txt2img with shapes-sd15 drawn")
    expect(lately).to_have_count(12)
    expect(lately.filter(has_text="signed on")).to_have_count(0)
    page.get_by_role("button", name="Show older").click()
    expect(lately.nth(12)).to_be_visible()
    seen = lately.locator("time").evaluate_all("times => times.map(time => time.dateTime)")
    assert len(seen) > 12
    assert seen == sorted(seen, reverse=True)
    assert len(set(seen)) == len(seen)


@pytest.fixture
def plain_visitor(browser: Browser, fleet: FleetProcess, http: httpx.Client) -> Any:
    """Open a browser that has signed in with a key that is no admin's."""
    key = http.post("/v1/keys", json={"name": "plain", "owner": "eve"}).json()["key"]
    visitor = Visitor.arrive(browser, fleet.url)
    assert visitor.context.request.post("/v1/session", data={"key": key}).ok
    yield visitor
    visitor.leave()


def test_others_see_the_fleet_and_what_is_theirs_alone(plain_visitor: Visitor) -> None:
    """Without the scope there is nothing to drain, no Flower, no keys, and no numbers of others."""
    page = plain_visitor.page
    page.goto("/fleet")
    expect(page.get_by_role("article")).to_have_count(2)
    expect(page.get_by_role("button", name="Drain")).to_have_count(0)
    expect(page.get_by_role("link", name="Flower")).to_have_count(0)
    page.goto("/settings")
    expect(page.get_by_role("heading", name="System")).to_be_visible()
    expect(page.get_by_role("heading", name="API keys")).to_have_count(0)
    page.goto("/analytics")
    expect(page.get_by_text("Nothing in this stretch of time.").first).to_be_visible()
    expect(page.get_by_text("from 0 jobs")).to_be_visible()
