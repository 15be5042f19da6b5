"""The queue: what waits and why, batches as one line, and cancelling."""

from collections.abc import Iterator

import httpx
import pytest
from playwright.sync_api import Page, expect

from tests.fleet_process import FleetProcess, eventually


@pytest.fixture(autouse=True)
def _nothing_left(http: httpx.Client) -> Iterator[None]:
    """Leave no job running for the next test."""
    yield
    for job in http.get("/v1/jobs", params={"active": True, "limit": 200}).json()["items"]:
        http.post(f"/v1/jobs/{job['id']}/cancel")


def _keep_busy(fleet: FleetProcess, http: httpx.Client) -> None:
    """Give both workers more to draw than a test takes, and wait until they do."""
    for seed in range(2):
        fleet.submit(http, steps=200, num_images=16, seed=seed)
    eventually(lambda: len(http.get("/v1/jobs", params={"state": "running"}).json()["items"]) == 2)


def test_queue_says_why_each_waits(page: Page, fleet: FleetProcess, http: httpx.Client) -> None:
    """Running jobs show their step, waiting ones their reason; a batch is one line; what is cancelled leaves."""
    body = {"request": {"prompt": "a red star", "steps": 200}, "matrix": {"seed": [1, 2, 3, 4, 5]}}
    _keep_busy(fleet, http)
    fleet.submit(http, steps=200)
    batch = http.post("/v1/batches", json=body).json()["id"]
    last = fleet.submit(http, "a green square", steps=200)
    page.goto("/queue")
    lines = page.locator("[data-job]")
    expect(lines).to_have_count(4)
    expect(page.locator(f"[data-batch='{batch}']")).to_contain_text("Batch of 5")
    expect(lines.filter(has_text="Runs").first).to_contain_text("Step")
    expect(page.locator(f"[data-job='{last}']")).to_contain_text("Waits for")
    page.locator(f"[data-job='{last}']").get_by_role("button", name="Cancel").click()
    expect(page.locator(f"[data-job='{last}']")).to_have_count(0)
    assert fleet.wait(http, last)["state"] == "cancelled"
    page.get_by_role("button", name="Cancel the batch").click()
    expect(page.locator(f"[data-batch='{batch}']")).to_have_count(0, timeout=30_000)
    assert http.get(f"/v1/batches/{batch}", params={"limit": 0}).json()["counts"]["cancelled"] == 5


def test_waiting_jobs_change_places(page: Page, fleet: FleetProcess, http: httpx.Client) -> None:
    """Buttons and keys move a waiting job, the lines follow its place, the focus stays with it; what runs has no such buttons."""
    _keep_busy(fleet, http)
    first, second = (fleet.submit(http, prompt, steps=200) for prompt in ("a green square", "a blue star"))
    page.goto("/queue")
    waiting = page.locator("[data-job]").filter(has_text="Waits")
    expect(waiting).to_have_count(2)
    expect(waiting.nth(0)).to_have_attribute("data-job", first)
    expect(page.locator("[data-job]").filter(has_text="Runs").get_by_role("button", name="Sooner")).to_have_count(0)

    page.locator(f"[data-job='{second}']").get_by_role("button", name="Sooner").click()
    expect(waiting.nth(0)).to_have_attribute("data-job", second)
    assert http.get(f"/v1/jobs/{second}").json()["request"]["priority"] == 4

    later = page.locator(f"[data-job='{second}']").get_by_role("button", name="Later")
    later.focus()
    for _ in range(2):
        before = http.get(f"/v1/jobs/{second}").json()["request"]["priority"]
        page.keyboard.press("Alt+ArrowDown")
        expect(page.locator(f"[data-job='{second}']").get_by_role("group")).to_contain_text(str(before + 1))
    expect(waiting.nth(1)).to_have_attribute("data-job", second)
    expect(later).to_be_focused()
    assert http.get(f"/v1/jobs/{second}").json()["request"]["priority"] == 6


def test_admin_sees_whose_each_job_is(page: Page, fleet: FleetProcess, http: httpx.Client) -> None:
    """Among everyone's jobs each says who sent it, and an admin may move it; among one's own nobody is named."""
    key = http.post("/v1/keys", json={"name": "guest", "owner": "ada"}).json()["key"]
    _keep_busy(fleet, http)
    with httpx.Client(base_url=fleet.url, headers={"authorization": f"Bearer {key}"}, trust_env=False) as ada:
        job = fleet.submit(ada, "a yellow star", steps=200)
        page.goto("/queue")
        expect(page.locator("[data-job]")).to_have_count(2)
        expect(page.get_by_text("by ")).to_have_count(0)
        page.get_by_role("switch", name="Everyone's").click()
        line = page.locator(f"[data-job='{job}']")
        expect(line).to_contain_text("by ada")
        line.get_by_role("button", name="Sooner").click()
        expect(line.get_by_role("group")).to_contain_text("4")
        assert ada.get(f"/v1/jobs/{job}").json()["request"]["priority"] == 4
