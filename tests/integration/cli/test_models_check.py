"""`imagefleet models check` against a fleet that has something of everything."""

import json
from typing import Any

from tests.scripted_server import answer

ENTRY = "01990000-0000-7000-8000-000000000001"
EQUAL = {"id": ENTRY, "kind": "lora", "ref": "twin", "path": "/models/twin.safetensors"}
MISSING = {**EQUAL, "ref": "away", "missing_since": "2026-01-01T00:00:00Z", "damage": None}
PAGES = (
    [MISSING],
    [{"sha256": "a" * 64, "bytes": 2048, "entries": [EQUAL, {**EQUAL, "ref": "other"}]}],
    [{"sha256": "b" * 64, "bytes": 1024}],
)


def pages() -> list[bytes]:
    """Answer what is missing, doubled and orphaned."""
    return [answer(json.dumps({"items": items, "next_cursor": None})) for items in PAGES]


def test_models_check_tells_what_does_not_agree(command: Any, play: Any) -> None:
    """Three tables, or one JSON object."""
    done = command("models", "check", url=play(pages()).url, api_key="k")
    assert done.status == 0
    for word in ("away", "twin", "other", "2.0 KiB", "b" * 64):
        assert word in done.out
    told = json.loads(command("models", "check", "--json", url=play(pages()).url, api_key="k").out)
    assert [len(told[name]) for name in ("settled", "missing", "duplicates", "orphans")] == [0, 1, 1, 1]


def test_models_check_settles_what_it_is_asked_to(command: Any, play: Any) -> None:
    """Missing entries are forgotten by id, and it says how many were."""
    first = pages()[0]
    script = play([first, answer(json.dumps({"deleted": [ENTRY]})), *pages()])
    done = command("models", "check", "--forget", url=script.url, api_key="k")
    assert (done.status, "Forgotten: 1." in done.out) == (0, True)
