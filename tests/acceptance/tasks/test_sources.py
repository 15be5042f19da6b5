"""Checkpoints as other programs store them, and files that are damaged, over HTTP."""

from pathlib import Path

from tests.acceptance.tasks.conftest import Studio

PROMPT = "a red circle on a blue background"


def test_single_file_draws_what_the_folder_draws(studio: Studio) -> None:
    """The original layout in one file gives the folder's picture bit for bit."""
    # Recommendations lie beside folders alone.
    asked = {"prompt": PROMPT, "seed": 7, "steps": 20, "guidance_scale": 5.0, "scheduler": "Euler"}
    folder = studio.draw(**asked, model="shapes-sd15")
    single = studio.draw(**asked, model="shapes-single")
    assert single.tobytes() == folder.tobytes()


def test_file_damaged_after_the_scan_is_named(studio: Studio, models: Path) -> None:
    """A checkpoint that was cut short since then fails its job as `model_damaged`, with the file's name; the next job is drawn."""
    victim = models / "shapes-victim.safetensors"
    whole = victim.read_bytes()
    victim.write_bytes(whole[: len(whole) // 2])
    try:
        answer = studio.submit(prompt=PROMPT, model="shapes-victim")
        view = studio.fleet.wait(studio.http, answer.json()["id"])
    finally:
        victim.write_bytes(whole)
    assert view["state"] == "failed"
    assert view["error"]["code"] == "model_damaged"
    assert victim.name in view["error"]["message"]
    studio.view(prompt=PROMPT, seed=1)


def test_adapters_are_listed_with_their_family(studio: Studio) -> None:
    """`GET /v1/adapters` names everything that is registered beside checkpoints."""
    items = {(item["kind"], item["name"]): item for item in studio.http.get("/v1/adapters").json()["items"]}
    for kind, name in (
        ("lora", "shapes-frame"), ("lora", "frame-kohya"), ("controlnet", "shapes-canny"), ("embedding", "shapes-dusk"),
        ("vae", "shapes-grey"),
    ):  # fmt: skip
        assert items[kind, name]["family"] == "sd15"
    assert items["upscaler", "shapes-x4"]["scale"] == 4
    names = {item["name"] for item in studio.http.get("/v1/models").json()["items"]}
    assert {"shapes-sd15", "shapes-sd15-inpaint", "shapes-single"} <= names
    assert "shapes-frame" not in names
