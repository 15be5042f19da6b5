"""Drawing as a person does it: what is typed is drawn, forms before one's eyes, can be stopped, changed and gone on from."""

import io
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import FilePayload, Locator, Page, expect

from reference_models.judge import border_colour, centre_colour, nearest_colour
from tests.fleet_process import FleetProcess
from tests.web.visitor import Visitor

PROMPT = "a red circle on a blue background"


def _pixels(data: bytes) -> Any:
    with Image.open(io.BytesIO(data)) as picture:
        return np.asarray(picture.convert("RGB"))


@pytest.fixture
def form(page: Page) -> Page:
    """Return the Draw view once its model is chosen."""
    page.goto("/draw")
    expect(page.get_by_label("Model", exact=True)).to_have_value("shapes-sd15")
    return page


def _draw(page: Page, prompt: str = PROMPT, steps: int = 8) -> Locator:
    """Fill in, press Draw and return the job's card."""
    before = page.locator("[data-job]").count()
    page.get_by_label("Prompt", exact=True).fill(prompt)
    page.get_by_role("spinbutton", name="Steps").fill(str(steps))
    page.get_by_role("spinbutton", name="Steps").press("Tab")
    page.get_by_role("button", name="Draw", exact=True).click()
    expect(page.locator("[data-job]")).to_have_count(before + 1)
    return page.locator("[data-job]").first


def _done(card: Locator) -> Locator:
    expect(card).to_have_attribute("data-state", "succeeded", timeout=60_000)
    return card.locator("button.tile img").first


def test_picture_forms_before_ones_eyes(visitor: Visitor, form: Page, http: httpx.Client) -> None:
    """Previews come over one WebSocket and change; the end is the picture that was asked for, and nothing on the page has moved."""
    sockets: list[str] = []
    form.on("websocket", lambda socket: sockets.append(socket.url))
    form.evaluate(
        """() => {
            window.seen = new Set();
            new MutationObserver(() => {
                for (const image of document.querySelectorAll('img.forming')) window.seen.add(image.src);
            }).observe(document.body, {subtree: true, childList: true, attributes: true, attributeFilter: ['src']});
        }"""
    )
    form.get_by_role("spinbutton", name="Seed").fill("7")
    card = _draw(form, steps=60)
    image = _done(card)
    assert form.evaluate("window.seen.size") >= 2
    assert form.evaluate("[...window.seen].every((url) => url.startsWith('data:image/'))")
    found = _pixels(http.get(str(image.get_attribute("src"))).content)
    assert nearest_colour(centre_colour(found)) == "red"
    assert nearest_colour(border_colour(found)) == "blue"
    second = _draw(form, "a green star on a white background")
    _done(second)
    assert len(sockets) == 1
    assert visitor.shifts < 0.02


def test_estimate_is_told_before_one_sends(form: Page, http: httpx.Client) -> None:
    """What lacks is said at once; then the server says how long it would take, and nothing is stored by asking."""
    expect(form.get_by_text("Say what to draw.")).to_be_visible()
    before = len(http.get("/v1/jobs", params={"limit": 200}).json()["items"])
    form.get_by_label("Prompt", exact=True).fill(PROMPT)
    expect(form.get_by_text("how long it takes").or_(form.get_by_text("About"))).to_be_visible()
    assert len(http.get("/v1/jobs", params={"limit": 200}).json()["items"]) == before


def test_running_job_can_be_cancelled(form: Page, fleet: FleetProcess, http: httpx.Client) -> None:
    """Several run at once; the one whose button is pressed stops, the other one goes on."""
    other = _draw(form, "a green square on a white background", steps=30)
    other_id = str(other.get_attribute("data-job"))
    card = _draw(form, steps=200)
    job = str(card.get_attribute("data-job"))
    card.get_by_role("button", name="Cancel").click()
    expect(form.locator(f"[data-job='{job}']")).to_have_attribute("data-state", "cancelled", timeout=60_000)
    assert fleet.wait(http, job)["state"] == "cancelled"
    assert fleet.wait(http, other_id)["state"] == "succeeded"


def test_only_the_mask_changes(form: Page, fleet: FleetProcess, http: httpx.Client) -> None:
    """A picture becomes the ground, its middle is painted over and drawn anew: outside the mask every pixel stays."""
    form.get_by_role("spinbutton", name="Seed").fill("11")
    source = http.get(str(_done(_draw(form)).get_attribute("src"))).content
    form.get_by_role("button", name="Paint a mask over it").first.click()
    expect(form.get_by_role("button", name="Inpaint")).to_have_attribute("aria-pressed", "true")
    form.get_by_role("button", name="Paint the mask").click()
    form.get_by_role("spinbutton", name="Brush size").fill("44")
    form.get_by_role("spinbutton", name="Brush size").press("Tab")
    canvas = form.locator("canvas")
    box = canvas.bounding_box()
    assert box is not None
    across, down = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    form.mouse.move(across - box["width"] * 0.1, down)
    form.mouse.down()
    form.mouse.move(across + box["width"] * 0.1, down, steps=8)
    form.mouse.up()
    form.get_by_role("button", name="Undo").click()
    form.get_by_role("button", name="Redo").click()
    form.get_by_role("button", name="Use this mask").click()
    expect(form.get_by_role("button", name="Change the mask")).to_be_visible()
    view = fleet.wait(http, str(_draw(form, "a green square on a blue background").get_attribute("data-job")))
    assert view["state"] == "succeeded", view
    request = view["request"]
    assert request["task"] == "inpaint"
    mask = _pixels(http.get(f"/v1/uploads/{request['mask'].removeprefix('upload:')}").content)[..., 0] > 127
    assert 0.1 < mask.mean() < 0.5
    before, after = _pixels(source), _pixels(http.get(view["images"][0]["url"]).content)
    np.testing.assert_array_equal(after[~mask], before[~mask])
    assert not np.array_equal(after[mask], before[mask])


def test_mask_follows_every_tool(form: Page) -> None:
    """Invert, erase and clear say what they do, and the keyboard paints as the mouse does."""
    form.get_by_role("button", name="Picture", exact=True).click()
    with form.expect_file_chooser() as chooser:
        form.get_by_text("Choose a picture").click()
    file = io.BytesIO()
    Image.new("RGB", (128, 128), "white").save(file, "PNG")
    chooser.value.set_files(FilePayload(name="white.png", mimeType="image/png", buffer=file.getvalue()))
    form.get_by_role("button", name="Inpaint").click()
    form.get_by_role("button", name="Paint the mask").click()
    share = "(canvas) => { const d = canvas.getContext('2d').getImageData(0, 0, 128, 128).data; let n = 0;"
    share += " for (let i = 3; i < d.length; i += 4) n += d[i] > 127; return n / (d.length / 4); }"
    canvas = form.locator("canvas")
    for key in ("Space", "ArrowLeft", "Space"):
        canvas.press(key)
    painted = canvas.evaluate(share)
    assert 0 < painted < 0.2
    form.get_by_role("button", name="Invert").click()
    assert abs(canvas.evaluate(share) - (1 - painted)) < 0.02
    form.get_by_role("button", name="Eraser").click()
    for key in ("ArrowDown", "ArrowDown", "Space"):
        canvas.press(key)
    assert canvas.evaluate(share) < 1 - painted
    form.get_by_role("button", name="Clear").click()
    assert canvas.evaluate(share) == 0
    form.get_by_role("button", name="Undo").click()
    assert canvas.evaluate(share) > 0
    form.get_by_role("button", name="Zoom in").click()
    form.get_by_role("button", name="Use this mask").click()
    expect(form.get_by_role("button", name="Change the mask")).to_be_visible()


def test_lora_is_completed_and_stacked(form: Page, fleet: FleetProcess, http: httpx.Client) -> None:
    """`<lora:` offers what fits the model; the stack adds with a weight, and both are in the job."""
    form.get_by_label("Prompt", exact=True).click()
    form.keyboard.type(f"{PROMPT} <lora:fra")
    expect(form.get_by_role("listbox").get_by_role("option", name="shapes-frame", exact=True)).to_be_visible()
    form.keyboard.press("Enter")
    expect(form.get_by_label("Prompt", exact=True)).to_have_value(f"{PROMPT} <lora:shapes-frame:1>")
    form.get_by_text("LoRAs", exact=True).click()
    form.get_by_label("Add a LoRA").fill("ground")
    form.get_by_label("Add a LoRA").press("Enter")
    form.get_by_role("spinbutton", name="shapes-ground").fill("0.5")
    form.get_by_role("spinbutton", name="shapes-ground").press("Tab")
    before = form.locator("[data-job]").count()
    form.keyboard.press("Control+Enter")
    expect(form.locator("[data-job]")).to_have_count(before + 1)
    view = fleet.wait(http, str(form.locator("[data-job]").first.get_attribute("data-job")))
    weights = {lora["name"]: lora["weight"] for lora in view["request"]["loras"]}
    assert weights == {"shapes-frame": 1.0, "shapes-ground": 0.5}


def test_recipe_goes_back_into_the_form(form: Page, http: httpx.Client) -> None:
    """A picture's parameters fill the form again, its seed included; sent as they are, they draw the same bits."""
    form.get_by_role("spinbutton", name="Seed").fill("-1")
    card = _draw(form, "a yellow star on a black background", steps=6)
    first = _pixels(http.get(str(_done(card).get_attribute("src"))).content)
    form.get_by_label("Prompt", exact=True).fill("something else")
    form.get_by_role("spinbutton", name="Steps").fill("3")
    card.get_by_role("button", name="Put its parameters into the form").click()
    expect(form.get_by_label("Prompt", exact=True)).to_have_value("a yellow star on a black background")
    expect(form.get_by_role("spinbutton", name="Steps")).to_have_value("6")
    assert int(form.get_by_role("spinbutton", name="Seed").input_value()) >= 0
    before = form.locator("[data-job]").count()
    form.get_by_role("button", name="Draw", exact=True).click()
    expect(form.locator("[data-job]")).to_have_count(before + 1)
    again = _done(form.locator("[data-job]").first)
    np.testing.assert_array_equal(_pixels(http.get(str(again.get_attribute("src"))).content), first)


def test_keyboard_alone_draws(page: Page) -> None:
    """From the address to the picture without a mouse."""
    page.goto("/draw")
    expect(page.get_by_label("Model", exact=True)).to_have_value("shapes-sd15")
    before = page.locator("[data-job]").count()
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.tagName") == "TEXTAREA":
            break
    page.keyboard.type(PROMPT)
    page.keyboard.press("Control+Enter")
    expect(page.locator("[data-job]")).to_have_count(before + 1)
    _done(page.locator("[data-job]").first)


@pytest.fixture(autouse=True)
def _nothing_left(http: httpx.Client) -> Iterator[None]:
    """Leave no job running for the next test."""
    yield
    for job in http.get("/v1/jobs", params={"active": True, "limit": 200}).json()["items"]:
        http.post(f"/v1/jobs/{job['id']}/cancel")


def test_prompts_show_their_tokens(form: Page) -> None:
    """The count follows what is typed, without tags and emphasis, and says when a second window begins; it shifts nothing."""
    prompt, negative = form.get_by_label("Prompt", exact=True), form.get_by_label("Negative prompt")
    expect(form.get_by_text("0 / 75")).to_have_count(2)
    top = prompt.bounding_box()
    prompt.fill("a (red:1.2) circle <lora:shapes-frame:0.8>")
    expect(form.get_by_text("3 / 75")).to_be_visible()
    negative.fill("blue")
    expect(form.get_by_text("1 / 75")).to_be_visible()
    prompt.fill("circle " * 76)
    expect(form.get_by_text("76 / 150")).to_be_visible()
    assert prompt.bounding_box() == top


def test_typing_asks_for_one_count(form: Page) -> None:
    """Only what has settled is counted: not every key."""
    expect(form.get_by_text("0 / 75")).to_have_count(2)
    asked: list[str] = []
    form.on(
        "request", lambda request: asked.append(request.url) if request.url.endswith("/v1/prompts/tokens") else None
    )
    form.get_by_label("Prompt", exact=True).press_sequentially("a red circle", delay=20)
    expect(form.get_by_text("3 / 75")).to_be_visible()
    assert len(asked) <= 3
