"""The queue: what waits and why, batches as one line, and cancelling."""

from collections.abc import Iterator

import httpx
import pytest
from playwright.sync_api import Page, expect

from tests.fleet_process import FleetProcess


@pytest.fixture(autouse=True)
def _nothing_left(http: httpx.Client) -> Iterator[None]:
    """Leave no job running for the next test."""
    yield
    for job in http.get("/v1/jobs", params={"active": True, "limit": 200}).json()["items"]:
        http.post(f"/v1/jobs/{job['id']}/cancel")


def test_queue_says_why_each_waits(page: Page, fleet: FleetProcess, http: httpx.Client) -> None:
    """Running jobs show their step, waiting ones their reason; a batch is one line; what is cancelled leaves."""
    body = {"request": {"prompt": "a red star", "steps": 200}, "matrix": {"seed": [1, 2, 3, 4, 5]}}
    for seed in range(3):
        fleet.submit(http, steps=200, seed=seed)
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
