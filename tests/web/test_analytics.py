"""Analytics as one sees them: drawn from what really ended, over the range one chooses, and taken away as table or picture."""

import csv
import io
import re
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from tests.web.visitor import Visitor

#: Lines that stand by themselves however many there are.
_TOLD_APART = 5
#: Pixels of a canvas that are not empty.
_INK = "canvas => canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data.filter((_, n) => n % 4 === 3).some(Boolean)"


@pytest.fixture(scope="module")
def drawn(fleet: Any) -> None:
    """Have something ended that there is to tell of."""
    with fleet.client() as client:
        body = {"prompt": "a red circle", "steps": 2, "num_images": 2}
        assert client.post("/v1/jobs", params={"wait": 60}, json=body).json()["state"] == "succeeded"


def _chart(page: Page, title: str) -> Any:
    return page.get_by_role("region", name=title, exact=True)


@pytest.mark.usefixtures("drawn")
def test_charts_show_what_ended(visitor: Visitor, http: httpx.Client) -> None:
    """Tiles, charts and tables tell the same as the API; each chart says itself in words for those who do not see it."""
    page = visitor.page
    page.goto("/analytics")
    summary = http.get("/v1/analytics/summary").json()
    done = summary["jobs"]["succeeded"]
    expect(page.get_by_text(f"from {done} {'job' if done == 1 else 'jobs'}", exact=True)).to_be_visible()
    chart = _chart(page, "Throughput")
    canvas = chart.locator("canvas")
    expect(canvas).to_have_attribute("aria-label", re.compile(re.escape(_in_words(http))))
    assert canvas.evaluate(_INK)
    chart.get_by_text("As a table").click()
    expect(chart.get_by_role("columnheader", name="shapes-sd15")).to_be_visible()
    expect(
        page.get_by_role("region", name="Busiest models", exact=True).get_by_role("row", name="shapes-sd15")
    ).to_be_visible()
    # Other tests may have let jobs fail before.
    none_failed = summary["jobs"]["failed"] == 0
    expect(_chart(page, "Errors").get_by_text("Nothing in this stretch of time.")).to_have_count(int(none_failed))
    expect(_chart(page, "Errors").get_by_text("As a table")).to_have_count(int(not none_failed))


def _series(http: httpx.Client) -> dict[str, Any]:
    found: dict[str, Any] = http.get("/v1/analytics/series", params={"metric": "pictures", "by": "model"}).json()
    return found


def _in_words(http: httpx.Client) -> str:
    """Return how the chart of pictures by model begins to say itself: its busiest lines, which it never adds up."""
    found = _series(http)
    lines = [f"{line['name']} at most {max(line['values']):g}" for line in found["items"][:_TOLD_APART]]
    assert any(line.startswith("shapes-sd15 at most ") for line in lines)
    return f"Throughput, {len(found['times'])} steps: {'; '.join(lines)}"


@pytest.mark.usefixtures("drawn")
def test_range_and_split_are_chosen_and_asked_for(page: Page) -> None:
    """A click asks for another range, by keyboard too; so does a range of one's own; what ended later is not in it."""
    page.goto("/analytics")
    expect(page.get_by_role("button", name="Day", exact=True)).to_have_attribute("aria-pressed", "true")
    page.get_by_role("button", name="Hour").focus()
    with page.expect_request(lambda request: "metric=pictures" in request.url and "by=model" in request.url):
        page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Hour")).to_have_attribute("aria-pressed", "true")
    with page.expect_request(lambda request: "metric=pictures" in request.url and "by=worker" in request.url):
        page.get_by_label("Split by").select_option("worker")
    expect(_chart(page, "Throughput").locator("canvas")).to_have_attribute("aria-label", _has_worker())
    page.get_by_role("button", name="Own").click()
    page.get_by_label("From").fill("2024-01-01T00:00")
    page.get_by_label("To").fill("2024-02-01T00:00")
    page.get_by_label("To").press("Enter")
    expect(page.get_by_text("from 0 jobs")).to_be_visible()
    page.get_by_label("To").fill("2023-02-01T00:00")
    page.get_by_label("To").press("Enter")
    expect(page.get_by_text("Choose a beginning and a later end.")).to_be_visible()


def _has_worker() -> Any:
    return re.compile(r"cpu\d@")


@pytest.mark.usefixtures("drawn")
def test_chart_is_taken_away_as_table_and_as_picture(page: Page, http: httpx.Client, tmp_path: Path) -> None:
    """The table is the one that is drawn, the picture has the page's ground."""
    page.goto("/analytics")
    chart = _chart(page, "Throughput")
    expect(chart.get_by_text("As a table")).to_be_visible()
    with page.expect_download() as table:
        chart.get_by_role("link", name="Throughput: CSV as CSV").click()
    rows = list(csv.reader(io.StringIO(Path(table.value.path()).read_text(encoding="utf-8"))))
    assert rows[0] == ["time", *(line["name"] for line in _series(http)["items"])]
    place = rows[0].index("shapes-sd15")
    assert sum(float(row[place]) for row in rows[1:]) >= 2
    with page.expect_download() as picture:
        chart.get_by_role("button", name="Throughput as PNG").click()
    assert picture.value.suggested_filename == "throughput.png"
    kept = tmp_path / "chart.png"
    picture.value.save_as(kept)
    with Image.open(kept) as image:
        assert image.convert("RGBA").getpixel((1, 1)) == (255, 255, 255, 255)


@pytest.mark.usefixtures("drawn")
def test_chart_library_comes_only_where_charts_are(visitor: Visitor) -> None:
    """No other view pays for it."""
    for path, heading in (("/draw", "Draw"), ("/fleet", "Fleet")):
        visitor.page.goto(path)
        expect(visitor.page.get_by_role("heading", name=heading, exact=True, level=1)).to_be_attached()
    visitor.page.wait_for_load_state("networkidle")
    assert not [url for url in visitor.scripts if "/chart-" in url]
    visitor.page.goto("/analytics")
    expect(_chart(visitor.page, "Throughput").get_by_text("As a table")).to_be_visible()
    assert [url for url in visitor.scripts if "/chart-" in url]
