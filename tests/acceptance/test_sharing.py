"""Two checkpoints with components in common, asked for in turn over HTTP: loaded once each, and what they share is there once."""

from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest

from tests.acceptance.tasks.conftest import encoded
from tests.fleet_process import FleetProcess, eventually

PROMPT = "a red circle on a blue background"


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FleetProcess]:
    """Start a fleet with one worker, which has to draw everything."""
    running = FleetProcess(tmp_path_factory.mktemp("fleet") / "home", workers=1, threads=1)
    running.start()
    try:
        yield running
    finally:
        running.stop()


def drawn(fleet: FleetProcess, http: httpx.Client, **fields: Any) -> bytes:
    """Have a picture drawn."""
    request = {"seed": 7, "steps": 4, "prompt": PROMPT, **fields}
    view = fleet.wait(http, http.post("/v1/jobs", json=request).raise_for_status().json()["id"])
    assert view["state"] == "succeeded", view
    return http.get(view["images"][0]["url"]).content


def worker(http: httpx.Client, loads: int) -> dict[str, Any]:
    """Return the only worker once it has told of so many loads."""

    def told() -> dict[str, Any] | None:
        [found] = http.get("/v1/workers").json()["items"]
        return found if found["loads"] >= loads else None

    found: dict[str, Any] = eventually(told)
    return found


def test_models_asked_for_in_turn_stay_and_share(fleet: FleetProcess, http: httpx.Client) -> None:
    """A, B, A, B: two loads in all; text encoder and VAE are counted once, and the last two jobs read and copied nothing."""
    grey, mask = np.full((128, 128, 3), 128, np.uint8), np.zeros((128, 128, 3), np.uint8)
    mask[32:96, 32:96] = 255
    source = {"task": "inpaint", "model": "shapes-sd15-inpaint", "image": encoded(grey), "mask": encoded(mask)}
    first = drawn(fleet, http, model="shapes-sd15")
    alone = worker(http, 1)["ledger"]
    drawn(fleet, http, **source)
    both = worker(http, 2)["ledger"]
    assert drawn(fleet, http, model="shapes-sd15") == first
    drawn(fleet, http, **source)

    # The worker tells how it does every second; a third load would be told by the next job's end.
    now = worker(http, 2)
    assert now["loads"] == 2
    assert now["ledger"] == both
    parts = {(part["name"], part["component"]): part for part in both["components"]}
    assert {key: part["shared_with"] for key, part in parts.items()} == {
        ("shapes-sd15", "unet"): [],
        ("shapes-sd15", "vae"): ["shapes-sd15-inpaint"],
        ("shapes-sd15", "text_encoder"): ["shapes-sd15-inpaint"],
        ("shapes-sd15-inpaint", "unet"): [],
    }
    own = parts["shapes-sd15-inpaint", "unet"]["bytes"]
    assert _held(both) == _held(alone) + own
    assert (both["components_read"], both["components_shared"], both["bytes_read"]) == (4, 2, _held(both))
    models = {each["name"]: each for each in http.get("/v1/models").json()["items"]}
    digests = [
        {each["name"]: each["digest"] for each in models[name]["components"]}
        for name in ("shapes-sd15", "shapes-sd15-inpaint")
    ]
    assert {name for name in digests[0] if digests[0][name] == digests[1][name]} == {"vae", "text_encoder"}


def test_every_checkpoint_at_hand_stays_beside_the_others(fleet: FleetProcess, http: httpx.Client) -> None:
    """All of them in turn, and again: what several have in common is there once, and the second round reads nothing."""
    models = {each["name"]: each for each in http.get("/v1/models").json()["items"] if each["kind"] == "checkpoint"}
    requests = [_request(model) for model in models.values()]
    for request in requests:
        drawn(fleet, http, **request)
    first = worker(http, len(models))
    for request in requests:
        drawn(fleet, http, **request)
    again = worker(http, len(models))
    assert (again["loads"], again["ledger"]) == (len(models), first["ledger"])
    ledger = again["ledger"]
    assert {name for part in ledger["components"] for name in (part["name"], *part["shared_with"])} == set(models)
    # On a CPU four bytes a number, however they are stored, and the few that are computed.
    once = {part["digest"]: part["parameters"] * 4 for model in models.values() for part in model["components"]}
    assert _held(ledger) == pytest.approx(sum(once.values()), rel=0.002)
    every = sum(part["parameters"] * 4 for model in models.values() for part in model["components"])
    assert _held(ledger) < 0.8 * every


def _request(model: dict[str, Any]) -> dict[str, Any]:
    if "txt2img" in model["tasks"]:
        return {"model": model["name"], "steps": 2}
    grey, mask = np.full((128, 128, 3), 128, np.uint8), np.full((128, 128, 3), 255, np.uint8)
    return {"model": model["name"], "steps": 2, "task": "inpaint", "image": encoded(grey), "mask": encoded(mask)}


def _held(ledger: dict[str, Any]) -> int:
    return sum(part["bytes"] for part in ledger["components"])
