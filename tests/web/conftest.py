"""One fleet with the reference models and one Chromium for all browser tests; each test has a browser context of its own."""

import os
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, Page, Playwright, sync_playwright

from broker_api.web_app import FOLDER, INDEX
from tests.fleet_process import FleetProcess
from tests.model_sources import Sources, serve_sources
from tests.web.chromium import CHROMIUM, OPTIONS
from tests.web.visitor import Visitor


def _lacks(what: str, cure: str) -> None:
    message = f"{what}: {cure}"
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)


@pytest.fixture(scope="session")
def sources() -> Iterator[Sources]:
    """Serve what the fleet fetches, as the hub and CivitAI do."""
    with serve_sources() as running:
        yield running


@pytest.fixture(scope="session")
def fleet(tmp_path_factory: pytest.TempPathFactory, sources: Sources) -> Iterator[FleetProcess]:
    """Start a fleet of two CPU workers for the whole session."""
    if CHROMIUM is None:
        _lacks("There is no Chromium", "on Debian `apt-get install chromium`")
    if not (FOLDER / INDEX).is_file():
        _lacks("The web application is not built", "run `make web`")
    home: Path = tmp_path_factory.mktemp("web") / "home"
    running = FleetProcess(
        home,
        workers=2,
        threads=1,
        hub_endpoint=sources.url,
        civitai_endpoint=sources.url,
        fetch_allow="127.0.0.1, localhost",
    )
    running.start()
    try:
        yield running
    finally:
        running.stop()


# A module's and no longer: while Playwright is open its event loop counts as running, and other tests could not run theirs.
@pytest.fixture(scope="module")
def playwright() -> Iterator[Playwright]:
    """Run Playwright's driver."""
    with sync_playwright() as running:
        yield running


@pytest.fixture(scope="module")
def browser(playwright: Playwright, fleet: FleetProcess) -> Iterator[Browser]:
    """Run the system's Chromium."""
    del fleet
    running = playwright.chromium.launch(executable_path=CHROMIUM, args=list(OPTIONS))
    try:
        yield running
    finally:
        running.close()


@pytest.fixture(scope="module")
def signed_in(browser: Browser, fleet: FleetProcess) -> str:
    """Sign in once and return the cookie's value."""
    context = browser.new_context(base_url=fleet.url)
    answer = context.request.post("/v1/session", data={"key": fleet.key})
    assert answer.ok, answer.text()
    found = next(cookie["value"] for cookie in context.cookies() if cookie["name"] == "imagefleet_session")
    context.close()
    return found


@pytest.fixture
def http(fleet: FleetProcess) -> Iterator[httpx.Client]:
    """Return a client with the fleet's first key."""
    with fleet.client() as client:
        yield client


@pytest.fixture
def stranger(browser: Browser, fleet: FleetProcess) -> Iterator[Visitor]:
    """Open a browser that has not signed in; at its end nothing may have gone wrong in it."""
    visitor = Visitor.arrive(browser, fleet.url)
    yield visitor
    visitor.leave()


@pytest.fixture
def visitor(browser: Browser, fleet: FleetProcess, signed_in: str) -> Iterator[Visitor]:
    """Open a browser that has signed in; at its end nothing may have gone wrong in it."""
    found = Visitor.arrive(browser, fleet.url, cookie=signed_in)
    yield found
    found.leave()


@pytest.fixture
def page(visitor: Visitor) -> Page:
    """Return the page of a browser that has signed in."""
    return visitor.page
