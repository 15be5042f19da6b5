"""Draw asks for what the chosen model takes, whatever its family: by what the API says of it, never by its name."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, FilePayload, Locator, Page, expect

from tests.fleet_process import FleetProcess
from tests.picture_files import png
from tests.tiny.transformers import build_flux_canny, build_flux_schnell
from tests.tiny.unets import build_sdxl, build_sdxl_refiner
from tests.web.visitor import Visitor


@pytest.fixture(scope="module")
def families(fleet: FleetProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FleetProcess]:
    """Start a fleet with tiny models of several families."""
    del fleet  # its checks for Chromium and the built application come first
    home = tmp_path_factory.mktemp("families") / "home"
    models = home / "models"
    models.mkdir(parents=True)
    build_flux_schnell(models / "tiny-schnell")
    build_flux_canny(models / "tiny-canny")
    build_sdxl(models / "tiny-sdxl")
    build_sdxl_refiner(models / "tiny-refiner")
    running = FleetProcess(home, workers=1, threads=1)
    running.start()
    try:
        yield running
    finally:
        running.stop()


@pytest.fixture
def http(families: FleetProcess) -> Iterator[httpx.Client]:
    """Return a client of this fleet."""
    with families.client() as client:
        yield client


@pytest.fixture
def form(browser: Browser, families: FleetProcess) -> Iterator[Page]:
    """Return the Draw view of this fleet."""
    context = browser.new_context(base_url=families.url)
    assert context.request.post("/v1/session", data={"key": families.key}).ok
    cookie = next(each["value"] for each in context.cookies() if each["name"] == "imagefleet_session")
    context.close()
    visitor = Visitor.arrive(browser, families.url, cookie=cookie)
    visitor.page.goto("/draw")
    expect(visitor.page.get_by_label("Model", exact=True)).not_to_have_value("")
    yield visitor.page
    visitor.leave()


def _facts(http: httpx.Client, name: str) -> dict[str, Any]:
    found: dict[str, Any] = http.get(f"/v1/models/{name}").json()
    return found


def _choose(page: Page, http: httpx.Client, name: str) -> None:
    """Choose a model, and check that size and steps are its own."""
    page.get_by_label("Model", exact=True).select_option(name)
    facts = _facts(http, name)
    expect(page.get_by_label("Width", exact=True)).to_have_value(str(facts["native_size"]))
    expect(page.get_by_role("spinbutton", name="Steps")).to_have_value(str(facts["default_steps"]))
    expect(page.get_by_label("Size", exact=True).locator("option")).to_have_count(len(facts["aspects"]) + 1)
    offered = page.get_by_label("Scheduler", exact=True).locator("option").all_inner_texts()
    assert set(offered) <= {*facts["schedulers"], facts["default_scheduler"]}


def _draw(page: Page, families: FleetProcess, http: httpx.Client) -> dict[str, Any]:
    """Make it small, draw, and return the job when it has ended."""
    for side in ("Width", "Height"):
        page.get_by_label(side, exact=True).fill("64")
        page.get_by_label(side, exact=True).press("Tab")
    page.get_by_role("spinbutton", name="Steps").fill("2")
    page.get_by_role("spinbutton", name="Steps").press("Tab")
    page.get_by_label("Prompt", exact=True).fill("a red circle")
    with page.expect_response(
        lambda answer: answer.url.endswith("/v1/jobs") and answer.request.method == "POST"
    ) as sent:
        page.get_by_role("button", name="Draw", exact=True).click()
    assert sent.value.status == 202, sent.value.text()
    view = families.wait(http, sent.value.json()["id"])
    assert view["state"] == "succeeded", view
    return view


def _guidance(page: Page) -> Locator:
    return page.get_by_role("spinbutton", name="Guidance")


def test_model_without_guidance_is_not_asked_for_any(form: Page, families: FleetProcess, http: httpx.Client) -> None:
    """No negative prompt, no guidance, no ControlNet it could not take; what was typed for another model is not sent."""
    _choose(form, http, "tiny-sdxl")
    form.get_by_label("Negative prompt").fill("blue")
    expect(_guidance(form)).to_be_visible()
    _choose(form, http, "tiny-schnell")
    expect(form.get_by_label("Negative prompt")).to_have_count(0)
    expect(_guidance(form)).to_have_count(0)
    view = _draw(form, families, http)
    assert (view["model"], view["request"]["negative_prompt"]) == ("tiny-schnell", "")
    _choose(form, http, "tiny-sdxl")
    expect(form.get_by_label("Negative prompt")).to_have_value("blue")


def test_model_that_reads_a_control_picture_asks_for_it(form: Page, families: FleetProcess, http: httpx.Client) -> None:
    """The picture belongs to the model itself: no ControlNet is named, and without the picture one is told what lacks."""
    _choose(form, http, "tiny-canny")
    expect(form.get_by_text("ControlNet", exact=True)).to_have_count(0)
    form.get_by_label("Prompt", exact=True).fill("a red circle")
    expect(form.get_by_text("Choose the control picture that this model draws after.")).to_be_visible()
    picture = FilePayload(name="edges.png", mimeType="image/png", buffer=png(64, 64))
    form.get_by_label("Control picture", exact=True).set_input_files(picture)
    form.get_by_label("Preprocessor", exact=True).select_option("canny")
    view = _draw(form, families, http)
    (control,) = view["request"]["controls"]
    assert (control["model"], control["preprocessor"]) == (None, "canny")


def test_refiner_is_offered_where_it_can_take_over(form: Page, families: FleetProcess, http: httpx.Client) -> None:
    """By the models that take one alone, and the job names it."""
    _choose(form, http, "tiny-schnell")
    expect(form.get_by_text("Refiner", exact=True)).to_have_count(0)
    _choose(form, http, "tiny-sdxl")
    form.get_by_text("Refiner", exact=True).click()
    form.get_by_role("switch", name="Let another model draw the last of the noise away").click()
    expect(form.get_by_label("Refiner", exact=True)).to_have_value("tiny-refiner")
    view = _draw(form, families, http)
    assert view["request"]["refiner"] == {"model": "tiny-refiner", "switch_at": 0.8}
