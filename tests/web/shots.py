"""Draw docs/screenshots/: every view, light, dark and on a phone, from a real fleet with real pictures."""

import contextlib
import io
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import httpx
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from tests.fleet_process import FleetProcess
from tests.web.chromium import CHROMIUM, OPTIONS
from tests.web.visitor import Visitor

FOLDER: Final = Path(__file__).parents[2] / "docs" / "screenshots"
DESK: Final = {"width": 1360, "height": 850}
PHONE: Final = {"width": 390, "height": 780}
COLOURS: Final = ("red", "green", "blue", "yellow", "white", "black")
SHAPES: Final = ("circle", "square", "triangle", "star")


def _paint(page: Page) -> None:
    """Open the mask editor over the newest picture and paint a stroke."""
    page.goto("/gallery")
    page.locator(".tile").first.click()
    page.get_by_role("button", name="Paint a mask over it").click()
    page.get_by_role("button", name="Paint the mask").click()
    canvas = page.locator("canvas")
    box = canvas.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] * 0.3, box["y"] + box["height"] * 0.4)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.6, box["y"] + box["height"] * 0.5, steps=10)
    page.mouse.up()


def _draw(page: Page) -> None:
    page.goto("/draw")
    page.get_by_label("Prompt", exact=True).fill("a yellow star on a black background <lora:shapes-frame:0.8>")
    page.get_by_text("LoRAs", exact=True).click()
    page.evaluate("scrollTo(0, 0)")


def _detail(page: Page) -> None:
    page.goto("/gallery")
    page.locator(".tile").nth(1).click()
    page.get_by_role("button", name="A1111 text").wait_for()


def _go(path: str) -> Callable[[Page], None]:
    def go(page: Page) -> None:
        page.goto(path)

    return go


#: Name of the file to how to get there.
SHOTS: Final[Mapping[str, Callable[[Page], None]]] = MappingProxyType(
    {
        "draw": _draw,
        "mask": _paint,
        "gallery": _go("/gallery"),
        "picture": _detail,
        "queue": _go("/queue"),
        "library": _go("/library"),
        "fleet": _go("/fleet"),
        "analytics": _go("/analytics"),
        "settings": _go("/settings"),
    }
)


def _fill(fleet: FleetProcess, http: httpx.Client) -> None:
    """Draw something to look at, and leave something waiting."""
    made = [
        fleet.submit(
            http,
            f"a {COLOURS[place % 6]} {SHAPES[place % 4]} on a {COLOURS[(place + 2) % 6]} background",
            seed=place,
            steps=12,
        )
        for place in range(24)
    ]
    for job in made:
        fleet.wait(http, job)
    _show(fleet, http)


def _show(fleet: FleetProcess, http: httpx.Client) -> None:
    """Give the entries of the library previews, uses and marks."""
    models = http.get("/v1/models").json()["items"]
    # The plain ones first: what is trained on top of a family is shown by its base.
    drawing = sorted(
        (each for each in models if "txt2img" in each["tasks"]), key=lambda each: each["variant"] != "base"
    )
    base_of: dict[str, str] = {}
    for model in drawing:
        base_of.setdefault(model["family"], model["name"])
    loras = http.get("/v1/adapters", params={"kind": "lora"}).json()["items"]
    shown = [
        *(
            ("adapters", each["name"], {"model": base_of[each["family"]], "loras": [{"name": each["name"]}]})
            for each in loras
        ),
        *(("models", each["name"], {"model": each["name"]}) for each in drawing),
    ]
    for place, (door, name, drawn_with) in enumerate(shown):
        prompt = f"a {COLOURS[place % 6]} {SHAPES[place % 4]} on a {COLOURS[(place + 3) % 6]} background"
        job = fleet.submit(http, prompt, seed=place, **drawn_with)
        if fleet.wait(http, job)["state"] == "succeeded":
            http.post(f"/v1/{door}/{name}/previews", json={"image": f"job:{job}/0"}).raise_for_status()
    usual = next(each["family"] for each in models if each["is_default"])
    stack = [each["id"] for each in loras if each["family"] == usual][:2]
    http.post("/v1/adapters/bulk", json={"action": "activate", "ids": stack})
    http.post("/v1/adapters/bulk", json={"action": "tag", "ids": [each["id"] for each in loras], "tags": ["style"]})


def _load(fleet: FleetProcess, http: httpx.Client) -> None:
    for place in range(8):
        fleet.submit(
            http,
            f"a {COLOURS[place % 6]} star on a {COLOURS[(place + 1) % 6]} background",
            steps=150,
            width=256,
            height=256,
        )
    http.post(
        "/v1/batches", json={"request": {"prompt": "a yellow star", "steps": 100}, "matrix": {"seed": list(range(12))}}
    )


@contextlib.contextmanager
def _fleet() -> Iterator[FleetProcess]:
    with tempfile.TemporaryDirectory() as folder:
        fleet = FleetProcess(Path(folder) / "home", workers=2, threads=1)
        fleet.start()
        try:
            yield fleet
        finally:
            fleet.stop()


def _shoot(
    browser: Browser, fleet: FleetProcess, http: httpx.Client, name: str, wanted: set[str], **options: Any
) -> None:
    visitor = Visitor.arrive(browser, fleet.url, **options)
    visitor.page.goto("/")
    visitor.page.get_by_label("API key").wait_for()
    if not wanted or "sign-in" in wanted:
        _save(visitor.page, f"sign-in-{name}")
    visitor.page.get_by_label("API key").fill(fleet.key)
    visitor.page.keyboard.press("Enter")
    visitor.page.get_by_role("button", name="Draw", exact=True).wait_for()
    for shot, go in SHOTS.items():
        if not wanted or shot in wanted:
            if shot == "queue":
                _load(fleet, http)
            go(visitor.page)
            visitor.page.locator("h1").first.wait_for(state="attached")
            visitor.page.wait_for_load_state("networkidle")
            visitor.page.wait_for_timeout(1200)
            _save(visitor.page, f"{shot}-{name}")
    visitor.leave()
    for job in http.get("/v1/jobs", params={"active": True, "limit": 200}).json()["items"]:
        http.post(f"/v1/jobs/{job['id']}/cancel")


def _save(page: Page, name: str) -> None:
    with Image.open(io.BytesIO(page.screenshot())) as picture:
        picture.convert("RGB").save(FOLDER / f"{name}.webp", quality=76, method=6)


def main(wanted: set[str]) -> None:
    """Draw all of them, or those that are named."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    with _fleet() as fleet, sync_playwright() as playwright, fleet.client() as http:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(OPTIONS))
        _fill(fleet, http)
        _shoot(browser, fleet, http, "light", wanted, viewport=DESK, color_scheme="light")
        _shoot(browser, fleet, http, "dark", wanted, viewport=DESK, color_scheme="dark")
        _shoot(
            browser, fleet, http, "phone", wanted, viewport=PHONE, color_scheme="light", has_touch=True, is_mobile=True
        )
        browser.close()


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main(set(sys.argv[1:]))
