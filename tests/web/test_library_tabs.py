"""The library behind its first tab: what is fetched, kept as recipes, exported, backed up and looked after."""

import io
import re
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, Locator, Page, expect
from safetensors.numpy import load_file, save

from tests.fleet_process import FleetProcess, eventually
from tests.model_sources import Sources
from tests.web.visitor import Visitor

FRAME = Path(__file__).parents[2] / "reference_models" / "loras" / "shapes-frame.safetensors"
#: One pull looks at a source, waits in the queue and stores; the machine may be busy.
PATIENCE = 60_000


def _lora(factor: float) -> bytes:
    """Return a LoRA like `shapes-frame`, of other content for each factor."""
    return bytes(save({name: tensor * factor for name, tensor in load_file(FRAME).items()}))


def _delete(http: httpx.Client, *names: str) -> None:
    for name in names:
        assert http.delete(f"/v1/adapters/{name}").status_code in {204, 404}


@pytest.fixture
def downloads(page: Page, http: httpx.Client, sources: Sources) -> Iterator[Page]:
    """Return the downloads, of which there is none yet that is still open."""
    sources.go_on.clear()
    page.goto("/library?tab=downloads")
    yield page
    sources.go_on.set()
    sources.stalls.clear()
    for each in http.get("/v1/downloads").json()["items"]:
        if each["state"] in {"queued", "running", "paused"}:
            http.post(f"/v1/downloads/{each['id']}/cancel")
    _delete(http, "hats", "caps")


def _fetch(page: Page, source: str, name: str = "") -> Locator:
    """Order a download and return its line."""
    page.get_by_role("button", name="Fetch…", exact=True).click()
    dialog = page.get_by_role("dialog", name="Fetch a model")
    dialog.get_by_label("Source").fill(source)
    dialog.get_by_label("Name", exact=True).fill(name)
    dialog.get_by_role("button", name="Fetch", exact=True).click()
    expect(dialog).to_have_count(0)
    return page.get_by_role("tabpanel").get_by_role("listitem").filter(has_text=source).first


def test_model_is_fetched_with_a_pause(visitor: Visitor, downloads: Page, http: httpx.Client, sources: Sources) -> None:
    """What is ordered shows how far it is, pauses, goes on where it was, and then stands among the models."""
    sources.repos["ada/hats"] = {"hats.safetensors": _lora(0.7)}
    sources.stalls.append(4096)
    line = _fetch(downloads, "ada/hats")
    expect(line).to_contain_text("running", timeout=PATIENCE)
    expect(line.get_by_role("progressbar")).to_be_visible()
    assert visitor.faults() == []
    line.get_by_role("button", name="Pause hats").click()
    expect(line).to_contain_text("paused", timeout=PATIENCE)
    sources.go_on.set()
    line.get_by_role("button", name="Go on with hats").click()
    expect(line).to_contain_text("succeeded", timeout=PATIENCE)
    assert [headers["range"] for headers in sources.of("/cdn/") if headers.get("range", "bytes=0-0") != "bytes=0-0"]
    downloads.get_by_role("tab", name="Models").click()
    expect(downloads.get_by_role("article", name="hats", exact=True)).to_be_visible()
    assert http.get("/v1/adapters/hats").json()["kind"] == "lora"


def test_download_is_cancelled(downloads: Page, http: httpx.Client, sources: Sources) -> None:
    """What is given up is over, and joins nothing."""
    sources.repos["ada/caps"] = {"caps.safetensors": _lora(0.8)}
    sources.stalls.append(4096)
    line = _fetch(downloads, "ada/caps", "caps")
    expect(line).to_contain_text("running", timeout=PATIENCE)
    line.get_by_role("button", name="Cancel caps").click()
    expect(line).to_contain_text("cancelled", timeout=PATIENCE)
    expect(line.get_by_role("button")).to_have_count(0)
    assert http.get("/v1/adapters/caps").status_code == 404


def test_source_that_is_none_is_said_by_its_field(visitor: Visitor, downloads: Page) -> None:
    """Refused at once, at the field; the dialog keeps what was typed."""
    visitor.expected = ("422",)
    downloads.get_by_role("button", name="Fetch…", exact=True).click()
    dialog = downloads.get_by_role("dialog", name="Fetch a model")
    order = dialog.get_by_role("button", name="Fetch", exact=True)
    expect(order).to_be_disabled()
    source = dialog.get_by_label("Source")
    source.fill("nonsense")
    order.click()
    expect(source).to_have_attribute("aria-invalid", "true")
    expect(source).to_have_value("nonsense")


@pytest.fixture
def _no_recipes(http: httpx.Client) -> Iterator[None]:
    yield
    for each in http.get("/v1/recipes", params={"own": True}).json()["items"]:
        http.delete(f"/v1/recipes/{each['id']}")
    ids = [each["id"] for each in http.get("/v1/adapters", params={"active": True}).json()["items"]]
    if ids:
        http.post("/v1/adapters/bulk", json={"action": "deactivate", "ids": ids})


@pytest.mark.usefixtures("_no_recipes")
def test_stack_becomes_a_recipe_that_draws(
    visitor: Visitor, page: Page, fleet: FleetProcess, http: httpx.Client
) -> None:
    """A stack is kept under a name, found, drawn at once, taken into Draw, read back from its picture, and deleted when one is sure."""
    frame = http.get("/v1/adapters/shapes-frame").json()["id"]
    http.post("/v1/adapters/bulk", json={"action": "activate", "ids": [frame]})
    page.goto("/library")
    page.get_by_role("complementary", name="Stack").get_by_role("button", name="Keep").click()
    dialog = page.get_by_role("dialog", name="Keep as recipe")
    dialog.get_by_label("Name").fill("framed circles")
    dialog.get_by_label("Prompt").fill("a red circle in a black frame")
    assert visitor.faults() == []
    dialog.get_by_role("button", name="Keep", exact=True).click()
    expect(dialog).to_have_count(0)

    page.get_by_role("tab", name="Recipes").click()
    page.get_by_label("Search recipes").fill("framed")
    card = page.get_by_role("tabpanel").get_by_role("listitem").filter(has_text="framed circles")
    expect(card).to_contain_text("shapes-frame")
    with page.expect_response("**/v1/recipes/*/generate") as answered:
        card.get_by_role("button", name="Draw framed circles now").click()
    job = answered.value.json()["id"]
    assert fleet.wait(http, job)["request"]["loras"][0]["name"] == "shapes-frame"

    file = {"name": "made.png", "mimeType": "image/png", "buffer": http.get(f"/v1/jobs/{job}/images/0").content}
    page.get_by_label("Search recipes").fill("")
    page.get_by_label("Picture to read a recipe from").set_input_files(file)  # type: ignore[arg-type]  # a FilePayload
    expect(page.get_by_text("was read from the picture")).to_be_visible()
    cards = page.get_by_role("tabpanel").get_by_role("listitem").filter(has_text="a red circle in a black frame")
    expect(cards).to_have_count(2)
    assert visitor.faults() == []

    page.get_by_role("button", name="Delete framed circles").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete", exact=True).click()
    expect(cards).to_have_count(1)
    cards.get_by_role("button", name="Use in Draw").click()
    page.wait_for_url("**/draw")
    expect(page.get_by_label("Prompt", exact=True)).to_have_value(
        re.compile("a red circle in a black frame <lora:shapes-frame:")
    )


@pytest.fixture
def archives(page: Page, http: httpx.Client) -> Iterator[Page]:
    """Return the archives; at the end there is no backup and nothing is scheduled."""
    page.goto("/library?tab=archives")
    expect(page.get_by_role("heading", name="Backups")).to_be_visible()
    yield page
    for each in http.get("/v1/archives/backups").json()["items"]:
        http.delete(f"/v1/archives/backups/{each['id']}")
    http.put("/v1/archives/schedule", json={"every_hours": None, "keep": 7, "files": "reference"})


def test_library_is_exported_and_its_import_foreseen(
    visitor: Visitor, archives: Page, http: httpx.Client, tmp_path: Path
) -> None:
    """What is chosen is weighed and saved; sent back, it is told what would happen before anything does, and then done."""
    export = archives.get_by_role("region", name="Export")
    export.get_by_label("Kind").select_option("embedding")
    expect(export.get_by_role("status")).to_contain_text("1 entries")
    export.get_by_role("switch", name="With the models' files").click()
    expect(export.get_by_role("status")).to_contain_text("1 files")
    with archives.expect_download() as saving:
        export.get_by_role("button", name="Export as ZIP").click()
    saving.value.save_as(tmp_path / "own.zip")
    with zipfile.ZipFile(tmp_path / "own.zip") as archive:
        assert archive.testzip() is None
        assert (
            max(each.file_size for each in archive.infolist()) >= http.get("/v1/adapters/shapes-dusk").json()["bytes"]
        )

    section = archives.get_by_role("region", name="Import")
    foresee = section.get_by_role("button", name="See what would happen")
    expect(foresee).to_be_disabled()
    section.get_by_label("Archive", exact=True).set_input_files(tmp_path / "own.zip")
    foresee.click()
    expect(section.get_by_role("status")).to_contain_text("Nothing was stored yet")
    expect(section.get_by_role("listitem")).to_contain_text(["skipped"])
    section.get_by_label("Where another entry has the name").select_option("rename")
    expect(section.get_by_role("listitem")).to_have_count(0)
    foresee.click()
    expect(section.get_by_role("listitem").first).to_be_visible()
    assert visitor.faults() == []
    section.get_by_role("button", name="Import", exact=True).click()
    expect(section.get_by_role("status")).to_contain_text("This was done")
    made = [each["name"] for each in http.get("/v1/adapters", params={"kind": "embedding"}).json()["items"]]
    for name in made:
        if name != "shapes-dusk":
            _delete(http, name)


def test_archive_that_is_none_is_refused(visitor: Visitor, archives: Page) -> None:
    """A file that is no archive is named, and nothing of it is stored."""
    visitor.expected = ("422",)
    section = archives.get_by_role("region", name="Import")
    junk = {"name": "junk.zip", "mimeType": "application/zip", "buffer": b"no archive at all"}
    section.get_by_label("Archive", exact=True).set_input_files(junk)  # type: ignore[arg-type]  # a FilePayload
    section.get_by_role("button", name="See what would happen").click()
    expect(section.get_by_role("alert")).not_to_be_empty()
    expect(section.get_by_role("button", name="Import", exact=True)).to_have_count(0)


def test_backup_brings_back_what_was_deleted(visitor: Visitor, archives: Page, http: httpx.Client) -> None:
    """Made, found sound, downloaded, restored when one is sure, deleted; and made by itself when that is asked for."""
    sent = http.post("/v1/adapters/upload", data={"name": "doomed"}, files={"file": _lora(0.6)})
    assert sent.status_code == 201, sent.text
    section = archives.get_by_role("region", name="Backups")
    section.get_by_role("switch", name="With the models' files").click()
    section.get_by_role("button", name="Back up now").click()
    backup = section.get_by_role("listitem")
    expect(backup).to_contain_text("not verified", timeout=PATIENCE)
    backup.get_by_role("button", name="Verify the backup").click()
    expect(backup).to_contain_text("sound", timeout=PATIENCE)
    assert visitor.faults() == []
    with archives.expect_download() as saving:
        backup.get_by_role("link", name="Download the backup").click()
    assert zipfile.is_zipfile(io.BytesIO(Path(saving.value.path()).read_bytes()))

    _delete(http, "doomed")
    backup.get_by_role("button", name="Restore the backup").click()
    archives.get_by_role("dialog").get_by_role("button", name="Restore", exact=True).click()
    expect(archives.get_by_text("The library is what it was")).to_be_visible(timeout=PATIENCE)
    assert http.get("/v1/adapters/doomed").status_code == 200

    section.get_by_role("switch", name="By themselves").click()
    section.get_by_role("spinbutton").first.fill("12")
    section.get_by_role("button", name="Set").click()
    expect(archives.get_by_text("A backup is made every 12 hours")).to_be_visible()
    assert http.get("/v1/archives/schedule").json()["every_hours"] == 12

    backup.get_by_role("button", name="Delete the backup").click()
    archives.get_by_role("dialog").get_by_role("button", name="Delete", exact=True).click()
    expect(section.get_by_text("No backup was made yet")).to_be_visible()
    _delete(http, "doomed")


@pytest.fixture
def folder(fleet: FleetProcess, http: httpx.Client) -> Iterator[Path]:
    """Return a folder in which the fleet looks for models; what a test leaves in it is forgotten."""
    found = fleet.home / "models" / "lora"
    found.mkdir(parents=True, exist_ok=True)
    yield found
    shutil.rmtree(found)
    http.post("/v1/library/scans", json={})
    _delete(http, "stray", "twin", "other")


def _look(page: Page) -> None:
    with page.expect_response(lambda answer: "/v1/library/scans" in answer.url and answer.request.method == "POST"):
        page.get_by_role("button", name="Look for new files").click()
    expect(page.get_by_role("region", name="Model folders").get_by_role("status")).to_contain_text(
        "done:", timeout=PATIENCE
    )
    # The lists are read again before the button can be pressed again.
    expect(page.get_by_role("button", name="Look for new files")).to_be_enabled()


def test_upkeep_finds_forgets_and_settles(visitor: Visitor, page: Page, http: httpx.Client, folder: Path) -> None:
    """New files are found; one that goes is listed and forgotten; of two with one content one is kept."""
    page.goto("/library?tab=upkeep")
    expect(page.get_by_text("Every entry has its files")).to_be_visible()
    (folder / "stray.safetensors").write_bytes(_lora(0.5))
    for name in ("twin", "other"):
        (folder / f"{name}.safetensors").write_bytes(_lora(0.4))
    _look(page)
    assert http.get("/v1/adapters/stray").status_code == 200

    doubles = page.get_by_role("region", name="Duplicates")
    # Contents are compared once they have been hashed.
    eventually(lambda: http.get("/v1/library/duplicates").json()["items"])
    (folder / "stray.safetensors").unlink()
    _look(page)
    away = page.get_by_role("region", name="Files away or damaged")
    expect(away.get_by_role("listitem")).to_contain_text(["stray"])
    expect(doubles).to_contain_text("twin")
    expect(doubles).to_contain_text("other")
    assert visitor.faults() == []

    away.get_by_role("button", name="Forget these…").click()
    page.get_by_role("dialog").get_by_role("button", name="Forget", exact=True).click()
    expect(away.get_by_text("Every entry has its files")).to_be_visible()
    assert http.get("/v1/adapters/stray").status_code == 404

    doubles.locator("p").filter(has_text="twin").get_by_role("button", name="Keep this one…").click()
    page.get_by_role("dialog", name="Keep twin alone?").get_by_role("button", name="Keep this one", exact=True).click()
    expect(doubles.get_by_text("No content is there twice")).to_be_visible()
    # The other's name is another name of it now.
    assert http.get("/v1/adapters/other").json()["name"] == "twin"


@pytest.fixture
def phone(browser: Browser, fleet: FleetProcess, signed_in: str) -> Iterator[Visitor]:
    """Open the library on a phone."""
    found = Visitor.arrive(
        browser, fleet.url, cookie=signed_in, viewport={"width": 390, "height": 780}, has_touch=True, is_mobile=True
    )
    yield found
    found.leave()


def _fits(visitor: Visitor) -> None:
    """Fail when anything is wider than the screen, or a dialog's end cannot be reached."""
    page = visitor.page
    assert page.evaluate("document.scrollingElement.scrollWidth") <= 390
    assert visitor.faults() == []


def test_library_fits_a_phone(phone: Visitor, http: httpx.Client) -> None:
    """Each tab and each dialog stays inside the screen, and the last button of each can be touched."""
    page = phone.page
    frame = http.get("/v1/adapters/shapes-frame").json()["id"]
    http.post("/v1/adapters/bulk", json={"action": "activate", "ids": [frame]})
    page.goto("/library")
    expect(page.get_by_role("article").first).to_be_visible()
    for tab in ("Recipes", "Downloads", "Archives", "Upkeep", "Models"):
        page.get_by_role("tab", name=tab).tap()
        expect(page.get_by_role("tab", name=tab)).to_have_attribute("data-state", "active")
        _fits(phone)

    for opener, title in (("Upload…", "Upload a model"), ("Fetch…", "Fetch a model"), ("Keep", "Keep as recipe")):
        page.get_by_role("button", name=opener).first.tap()
        dialog = page.get_by_role("dialog", name=title)
        expect(dialog).to_be_visible()
        box = dialog.bounding_box()
        assert box is not None
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 390
        _fits(phone)
        dialog.get_by_role("button", name="Cancel").tap()
        expect(dialog).to_have_count(0)

    page.get_by_label("Search the library").fill("shapes-frame")
    card = page.get_by_role("article", name="shapes-frame", exact=True)
    card.get_by_role("button", name="Details").tap()
    details = page.get_by_role("dialog", name="shapes-frame")
    expect(details.get_by_role("heading", name="Works together with")).to_be_attached()
    _fits(phone)
    details.get_by_role("button", name="Edit").tap()
    _fits(phone)
    details.get_by_role("button", name="Cancel").tap()
    details.get_by_role("button", name="Close").tap()
    http.post("/v1/adapters/bulk", json={"action": "deactivate", "ids": [frame]})


def test_library_sorts_by_use_and_says_what_works_together(
    visitor: Visitor, page: Page, fleet: FleetProcess, http: httpx.Client
) -> None:
    """What jobs used most stands first with its uses; details name what was used beside it."""
    loras = [{"name": "shapes-frame"}, {"name": "shapes-ground"}]
    for seed in range(2):
        fleet.wait(http, fleet.submit(http, steps=4, seed=seed, loras=loras))
    page.goto("/library")
    # The keeper counts.
    eventually(lambda: http.get("/v1/adapters/shapes-ground").json()["usage"]["uses"] >= 2)
    page.get_by_label("Kind").select_option("lora")
    page.get_by_label("Sort by").select_option("uses")
    first = page.get_by_role("article").first
    expect(first).to_contain_text("uses")
    names = [each["name"] for each in http.get("/v1/adapters", params={"kind": "lora", "sort": "uses"}).json()["items"]]
    expect(first).to_have_attribute("aria-label", names[0])
    page.get_by_role("article", name="shapes-ground", exact=True).get_by_role("button", name="Details").click()
    details = page.get_by_role("dialog", name="shapes-ground")
    together = details.get_by_role("region", name="Works together with")
    expect(together.get_by_role("button", name="shapes-frame", exact=True)).to_be_visible()
    together.get_by_role("button", name="shapes-frame helps").click()
    expect(together).to_contain_text("Thank you")
    together.get_by_role("button", name="shapes-frame", exact=True).click()
    expect(page.get_by_role("dialog", name="shapes-frame")).to_be_visible()
    assert visitor.faults() == []
