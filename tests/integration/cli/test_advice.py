"""`imagefleet adapters` asks for recommendations and shows the reasons."""

import json
from typing import Any

from tests.scripted_server import answer

FRAME: dict[str, object] = {
    "id": "01990000-0000-7000-8000-000000000000",
    "ref": "frame-2",
    "name": "frame-2",
    "version": "",
    "kind": "lora",
    "family": "sd15",
    "trigger_words": [],
    "tags": [],
    "weight": None,
}
FOUND = {
    "items": [
        {
            "adapter": FRAME,
            "score": 0.291,
            "why": "Cosine of the updates 0.29.",
            "sources": {"weights": {"score": 0.29, "why": "Cosine of the updates 0.29.", "exact": True}},
        }
    ],
    "next_cursor": None,
    "sources": {
        "weights": {"state": "used", "share": 0.5, "why": "Compared."},
        "text": {"state": "off", "share": 0, "why": "Switched off."},
        "use": {"state": "unavailable", "share": 0.2, "why": "Nothing in question has been used or rated yet."},
    },
}


def test_similar_shows_names_scores_and_reasons(command: Any, play: Any) -> None:
    """And says on the side which source had nothing to say."""
    script = play([answer(json.dumps(FOUND))])
    done = command("adapters", "similar", "frame", "--sources", "weights,use", "--wait", "0", url=script.url)
    assert done.status == 0
    assert all(text in done.out for text in ("frame-2", "lora", "0.29", "Cosine of the updates 0.29."))
    assert "use: Nothing in question" in done.err
    assert "text" not in done.err
    assert script.asked[-1].path == ("/v1/recommendations/similar?adapter=frame&limit=10&wait=0&sources=weights%2Cuse")


def test_together_and_suggest_ask_their_own_paths(command: Any, play: Any) -> None:
    """What works together, and what a prompt speaks of; as JSON for programs."""
    script = play([answer(json.dumps(FOUND)), answer(json.dumps(FOUND | {"items": []}))])
    done = command("adapters", "similar", "frame", "--together", "--json", url=script.url)
    assert json.loads(done.out)["items"][0]["adapter"]["ref"] == "frame-2"
    done = command("adapters", "suggest", "a frame", "--model", "shapes", "--wait", "1", url=script.url)
    assert "Nothing to recommend." in done.out
    assert [asked.path.partition("?")[0] for asked in script.asked[-2:]] == [
        "/v1/recommendations/together",
        "/v1/recommendations/for-prompt",
    ]
    assert "model=shapes" in script.asked[-1].path
