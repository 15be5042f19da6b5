"""The gallery: found, looked at, compared, deleted; and fast however many pictures there are."""

import io
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import psycopg
import pytest
from PIL import Image
from playwright.sync_api import FilePayload, Page, expect

from tests.fleet_process import FleetProcess
from tests.web.visitor import Visitor

MANY = 10_000
#: Nodes that the page may have with 10 000 pictures, the navigation and the dialogs' homes included.
MOST_NODES = 900
#: Pixels.
FAR = 100_000
#: The next pictures have come, or are not needed yet.
_MORE_BELOW = "() => scrollY + 2 * innerHeight < document.documentElement.scrollHeight"


@pytest.fixture(scope="module")
def drawn(fleet: FleetProcess) -> list[str]:
    """Draw two pictures to look at, the newest last."""
    with fleet.client() as http:
        jobs = [
            fleet.submit(http, f"a {colour} square on a white background", steps=4, seed=seed, labels={"set": colour})
            for seed, colour in ((1, "green"), (2, "yellow"))
        ]
        for job in jobs:
            assert fleet.wait(http, job)["state"] == "succeeded"
    return jobs


@pytest.fixture
def gallery(page: Page, drawn: list[str]) -> Page:
    """Return the gallery with its pictures in it."""
    page.goto("/gallery")
    expect(page.get_by_role("button", name="a yellow square on a white background").first).to_be_visible()
    del drawn
    return page


def test_pictures_are_found(gallery: Page) -> None:
    """Words, labels and dates choose among them; a search without result says so."""
    green = gallery.get_by_role("button", name="a green square on a white background")
    yellow = gallery.get_by_role("button", name="a yellow square on a white background")
    gallery.get_by_label("Search prompts").fill("green square")
    expect(yellow).to_have_count(0)
    expect(green.first).to_be_visible()
    gallery.get_by_label("Search prompts").fill("purple dragon")
    expect(gallery.get_by_text("No picture is like that")).to_be_visible()
    gallery.get_by_label("Search prompts").fill("")
    gallery.get_by_role("button", name="Filters").click()
    gallery.get_by_label("Label").fill("set:yellow")
    gallery.get_by_label("Label").press("Tab")
    expect(green).to_have_count(0)
    expect(yellow.first).to_be_visible()
    gallery.get_by_label("To", exact=True).fill("2020-01-01")
    expect(gallery.get_by_text("No picture is like that")).to_be_visible()


def test_picture_tells_everything(
    gallery: Page, fleet: FleetProcess, http: httpx.Client, drawn: list[str], tmp_path: Path
) -> None:
    """The detail has an address, shows the parameters, and copies them as A1111's text, curl and Python that draw the same."""
    gallery.context.grant_permissions(["clipboard-read", "clipboard-write"])
    gallery.goto(f"/gallery/{drawn[1]}/0")
    dialog = gallery.get_by_role("dialog")
    expect(dialog.get_by_text("a yellow square on a white background").first).to_be_visible()
    expect(dialog.get_by_text("shapes-sd15")).to_be_visible()
    copied = "navigator.clipboard.readText()"
    for name, told, part in (
        ("A1111 text", "A1111 text copied.", "Seed: 2"), ("curl", "curl command copied.", "/v1/jobs -d"),
        ("Python", "Python copied.", "fleet.submit({"),
    ):  # fmt: skip
        dialog.get_by_role("button", name=name).click()
        expect(gallery.get_by_text(told)).to_be_visible()
        assert part in gallery.evaluate(copied)
    source: str = gallery.evaluate(copied)
    compile(source, "copied", "exec")
    request = eval(source[source.index("submit(") + len("submit(") : source.index(")\n    for")])  # noqa: S307 - a literal of ours
    answer = http.post("/v1/jobs", params={"dry_run": True}, json=request)
    assert answer.status_code == 200, answer.text
    assert answer.json()["request"]["seed"] == 2
    environment = {**os.environ, "IMAGEFLEET_API_KEY": fleet.key, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    subprocess.run([sys.executable, "-c", source], cwd=tmp_path, env=environment, check=True, timeout=60)
    (written,) = tmp_path.iterdir()
    with (
        Image.open(written) as again,
        Image.open(io.BytesIO(http.get(f"/v1/jobs/{drawn[1]}/images/0").content)) as first,
    ):
        assert again.tobytes() == first.tobytes()
    gallery.keyboard.press("ArrowRight")
    expect(dialog.get_by_text("a green square on a white background").first).to_be_visible()
    gallery.keyboard.press("Escape")
    expect(dialog).to_be_hidden()


def test_two_are_compared_with_a_slider(gallery: Page) -> None:
    """The slider, moved by keyboard, moves the edge between the two."""
    gallery.get_by_role("button", name="Choose").click()
    gallery.locator(".tile").nth(0).click()
    gallery.locator(".tile").nth(1).click()
    gallery.get_by_role("button", name="Compare two").click()
    slider = gallery.get_by_label("Where the pictures meet")
    upper = gallery.get_by_role("dialog").locator("img").nth(1)
    before = upper.evaluate("(image) => getComputedStyle(image).clipPath")
    for _ in range(5):
        slider.press("ArrowLeft")
    assert upper.evaluate("(image) => getComputedStyle(image).clipPath") != before


def test_deleted_pictures_are_gone(page: Page, fleet: FleetProcess, http: httpx.Client) -> None:
    """One asks first; then the picture is gone from the page and from the server."""
    job = fleet.submit(http, "a black triangle on a white background", steps=2)
    fleet.wait(http, job)
    page.goto("/gallery")
    page.get_by_role("button", name="Choose").click()
    tile = page.get_by_role("button", name="a black triangle on a white background")
    tile.click()
    page.get_by_role("button", name="Delete").click()
    page.get_by_role("dialog").get_by_role("button", name="Cancel").click()
    assert http.get(f"/v1/jobs/{job}/images/0").status_code == 200
    page.get_by_role("button", name="Delete").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(page.get_by_text("One picture deleted.")).to_be_visible()
    expect(tile).to_have_count(0)
    assert http.get(f"/v1/jobs/{job}/images/0").status_code == 404


def test_dropped_picture_says_how_it_was_made(gallery: Page, http: httpx.Client, drawn: list[str]) -> None:
    """A file put in shows its parameters, and they fill the form."""
    file = http.get(f"/v1/jobs/{drawn[0]}/images/0").content
    gallery.locator("input[type=file]").set_input_files(
        FilePayload(name="found.png", mimeType="image/png", buffer=file)
    )
    dialog = gallery.get_by_role("dialog")
    expect(dialog.get_by_text("a green square on a white background")).to_be_visible()
    dialog.get_by_role("button", name="Put into the form").click()
    expect(gallery.get_by_label("Prompt", exact=True)).to_have_value("a green square on a white background")
    expect(gallery.get_by_role("spinbutton", name="Seed")).to_have_value("1")


@pytest.fixture
def many(fleet: FleetProcess, drawn: list[str]) -> Iterator[None]:
    """Put ten thousand pictures of one job's picture into the database."""
    with psycopg.connect(fleet.services()["database_url"], autocommit=True) as connection:
        connection.execute(
            """insert into images (job, index, epoch, seed, width, height, mime, bytes, sha256, key)
            select job, n, epoch, seed, width, height, mime, bytes, sha256, key || '#' || n from images, generate_series(1, %s) n
            where job = %s and index = 0""",
            (MANY, drawn[0]),
        )
        yield
        connection.execute("delete from images where job = %s and index > 0", (drawn[0],))


def _draw_no_thumbnails(page: Page) -> None:
    """Spare the server: the many pictures share one file, and thousands of its thumbnails would test something else."""
    page.route(
        "**/images/*?thumbnail=256",
        lambda route: route.fulfill(
            status=200,
            content_type="image/svg+xml",
            body="<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>",
        ),
    )


def test_what_to_do_with_the_chosen_is_at_hand(gallery: Page, many: None) -> None:
    """However far down one chooses, nobody has to scroll back to compare or delete."""
    del many
    _draw_no_thumbnails(gallery)
    gallery.reload()
    gallery.get_by_role("button", name="Choose").click()
    gallery.locator(".tile").first.click()
    gallery.mouse.move(600, 400)
    gallery.mouse.wheel(0, 3000)
    gallery.wait_for_function("() => scrollY > 2000")
    expect(gallery.get_by_role("button", name="Delete")).to_be_in_viewport(ratio=1)


def test_ten_thousand_pictures_cost_a_bounded_page(visitor: Visitor, many: None) -> None:
    """However far one scrolls, only what is in sight is in the page; nothing moves by itself while pictures load."""
    del many
    page = visitor.page
    _draw_no_thumbnails(page)
    page.goto("/gallery")
    expect(page.locator(".tile").first).to_be_visible()
    most = reached = 0
    # So many rows are gone through: far more than fit into a bounded page.
    while reached < FAR:
        page.mouse.wheel(0, 4000)
        page.wait_for_function(_MORE_BELOW)
        most = max(most, page.evaluate("document.querySelectorAll('*').length"))
        reached = page.evaluate("scrollY")
    assert most <= MOST_NODES
    assert visitor.shifts < 0.02
