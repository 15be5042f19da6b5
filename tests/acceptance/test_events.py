"""Watching a job be drawn, over plain HTTP."""

import base64
import io
import itertools
from typing import Any

import httpx
import numpy as np
from PIL import Image

from tests.fleet_process import FleetProcess

PROMPT = "a yellow star on a black background"


def _types(frames: list[dict[str, Any]]) -> list[str]:
    return [frame["event"] for frame in frames]


def test_events_tell_the_whole_story(fleet: FleetProcess, http: httpx.Client) -> None:
    """Queued, started, every step, forming previews of which the last resembles the result, the image, the end."""
    job = fleet.submit(http, PROMPT, seed=5, steps=20, preview_every=4)
    frames = list(fleet.events(http, job))
    types = _types(frames)
    assert [kind for kind, _ in itertools.groupby(types) if kind not in {"progress", "preview"}] == [
        "queued",
        "started",
        "image",
        "succeeded",
    ]
    steps = [frame["data"]["data"]["step"] for frame in frames if frame["event"] == "progress"]
    assert steps == list(range(1, 21))
    previews = [frame["data"]["data"] for frame in frames if frame["event"] == "preview"]
    assert len(previews) >= 3
    assert len({preview["base64"] for preview in previews}) == len(previews)
    assert [preview["step"] for preview in previews] == sorted(preview["step"] for preview in previews)
    orders = [tuple(map(int, frame["id"].split("-"))) for frame in frames]
    assert orders == sorted(set(orders))
    _assert_alike(previews[-1]["base64"], http.get(f"/v1/jobs/{job}/images/0").content)


def _assert_alike(preview: str, result: bytes) -> None:
    with Image.open(io.BytesIO(base64.b64decode(preview))) as small, Image.open(io.BytesIO(result)) as large:
        seen = np.asarray(small.convert("RGB").resize((32, 32)), dtype=float)
        drawn = np.asarray(large.convert("RGB").resize((32, 32)), dtype=float)
    assert np.corrcoef(seen.ravel(), drawn.ravel())[0, 1] > 0.8


def test_events_resume_without_gap_or_repeat(fleet: FleetProcess, http: httpx.Client) -> None:
    """A reader cut at any event and resumed by its id sees what an uninterrupted reader sees."""
    job = fleet.submit(http, PROMPT, seed=6, steps=20, preview_every=0)
    first = list(itertools.islice(fleet.events(http, job), 6))
    rest = list(fleet.events(http, job, first[-1]["id"]))
    whole = list(fleet.events(http, job, "0-0"))
    assert [frame["id"] for frame in first + rest] == [frame["id"] for frame in whole]
    assert _types(whole).count("progress") == 20
    assert whole[-1]["event"] == "succeeded"


def test_events_opened_late_begin_with_the_present_state(fleet: FleetProcess, http: httpx.Client) -> None:
    """Who comes after the end is told the end, at once, and the stream closes."""
    job = fleet.submit(http, PROMPT, steps=4)
    fleet.wait(http, job)
    frames = list(fleet.events(http, job))
    assert _types(frames)[0] == "succeeded"
    assert len(frames) == 1
