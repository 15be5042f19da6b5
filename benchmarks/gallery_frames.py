"""How evenly the gallery scrolls in a real Chromium with 10 000 pictures, against the same scroll through 100 of them."""

from typing import Any, Final

import psycopg
from playwright.sync_api import Browser, Page, sync_playwright

from benchmarks.figures import percentile
from broker_api.web_app import FOLDER, INDEX
from tests.fleet_process import FleetProcess
from tests.web.chromium import CHROMIUM, OPTIONS

FEW: Final = 100
MANY: Final = 10_000
FRAMES: Final = 400
ROUNDS: Final = 3
#: Pixels per frame: at 60 frames a second about four screens.
SPEED: Final = 60
#: All rows share one file and one thumbnail: making thousands of them would measure something else.
_COPIES: Final = """
with pictures as (
    insert into images (job, index, epoch, seed, width, height, mime, bytes, sha256, key)
    select job, n, epoch, seed, width, height, mime, bytes, sha256, key || '#' || n from images, generate_series(1, %(count)s - 1) n
    where job = %(job)s and index = 0 returning job, index
)
insert into thumbnails (job, index, size, bytes, sha256, key)
select pictures.job, pictures.index, made.size, made.bytes, made.sha256, made.key from pictures
join thumbnails made on made.job = pictures.job and made.index = 0
"""
#: Scrolls by a step in each frame, back at either end, and returns the milliseconds between frames and the most nodes the page had.
_SCROLL: Final = """async ([frames, speed]) => {
  const next = () => new Promise(requestAnimationFrame);
  const deltas = [];
  let nodes = 0, step = speed, last = await next();
  for (let frame = 0; frame < frames; frame += 1) {
    const before = scrollY;
    scrollBy(0, step);
    if (scrollY === before) step = -step;
    const now = await next();
    deltas.push(now - last);
    last = now;
    if (frame % 20 === 0) nodes = Math.max(nodes, document.querySelectorAll('*').length);
  }
  return {deltas, nodes};
}"""


def _open(browser: Browser, fleet: FleetProcess) -> Page:
    context = browser.new_context(base_url=fleet.url, viewport={"width": 1360, "height": 860})
    signed_in = context.request.post("/v1/session", data={"key": fleet.key})
    if not signed_in.ok:
        raise RuntimeError(signed_in.text())
    page = context.new_page()
    page.goto("/gallery")
    page.locator(".tile").first.wait_for()
    return page


def _scroll(browser: Browser, fleet: FleetProcess) -> dict[str, Any]:
    page = _open(browser, fleet)
    found: dict[str, Any] = page.evaluate(_SCROLL, [FRAMES, SPEED])
    page.context.close()
    return found


def _figures(runs: list[dict[str, Any]]) -> dict[str, float]:
    deltas = [delta for run in runs for delta in run["deltas"]]
    return {
        "frame_ms_p50": round(percentile(deltas, 0.5), 2),
        "frame_ms_p95": round(percentile(deltas, 0.95), 2),
        "frame_ms_max": round(max(deltas), 2),
        "most_nodes": max(run["nodes"] for run in runs),
    }


def measure(fleet: FleetProcess) -> dict[str, Any]:
    """Measure the gallery of a running fleet with one worker."""
    if CHROMIUM is None or not (FOLDER / INDEX).is_file():
        return {"not_taken": "It needs Chromium (`apt-get install chromium`) and the built application (`make web`)."}
    with fleet.client() as http:
        job = fleet.submit(http, steps=1)
        fleet.wait(http, job)
        http.get(f"/v1/jobs/{job}/images/0", params={"thumbnail": 256}).raise_for_status()
    runs: dict[int, list[dict[str, Any]]] = {FEW: [], MANY: []}
    with (
        psycopg.connect(fleet.services()["database_url"], autocommit=True) as connection,
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(OPTIONS))
        for _ in range(ROUNDS):
            for count, found in runs.items():
                connection.execute("delete from images where job = %(job)s and index > 0", {"job": job})
                connection.execute(_COPIES, {"job": job, "count": count})
                found.append(_scroll(browser, fleet))
        browser.close()
    few, many = _figures(runs[FEW]), _figures(runs[MANY])
    return {
        f"pictures_{FEW}": few,
        f"pictures_{MANY}": many,
        "p95_over_few": round(many["frame_ms_p95"] / few["frame_ms_p95"], 2),
    }
