"""Emphasis is read as A1111 reads it."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.prompts.attention import parse_attention


@pytest.mark.parametrize(
    ("prompt", "segments"),
    [
        ("", [("", 1.0)]),
        ("a red circle", [("a red circle", 1.0)]),
        ("a (red) circle", [("a ", 1.0), ("red", 1.1), (" circle", 1.0)]),
        ("((red))", [("red", 1.21)]),
        ("[red]", [("red", 1 / 1.1)]),
        ("([red])", [("red", 1.0)]),
        ("(red:1.3) circle", [("red", 1.3), (" circle", 1.0)]),
        ("(red: 1.3 )", [("red", 1.3)]),
        ("(red:-1)", [("red", -1.0)]),
        ("(a (red:2) b)", [("a ", 1.1), ("red", 2.2), (" b", 1.1)]),
        (r"\(red\) \[a\] \\", [(r"(red) [a] " + "\\", 1.0)]),
        ("(red", [("red", 1.1)]),
        ("[red", [("red", 1 / 1.1)]),
        ("red) and ]", [("red) and ]", 1.0)]),
        ("red:1.2) circle", [("red:1.2) circle", 1.0)]),
        ("a: b", [("a: b", 1.0)]),
        ("(a:b)", [("a:b", 1.1)]),
        ("(a:1.2.3)", [("a:1.2.3", 1.1)]),
        ("a ( b", [("a ", 1.0), (" b", 1.1)]),
    ],
)
def test_emphasis_is_read(prompt: str, segments: list[tuple[str, float]]) -> None:
    """Brackets nest and multiply; what is none is text."""
    found = [(segment.text, round(segment.weight, 6)) for segment in parse_attention(prompt)]
    assert found == [(text, round(weight, 6)) for text, weight in segments]


def test_break_parts_segments() -> None:
    """The word alone, in capitals, keeps the weight it stands in."""
    found = parse_attention("a BREAK (b BREAK c) BREAKER break")
    assert [(each.text, round(each.weight, 2), each.breaks) for each in found] == [
        ("a", 1.0, False),
        ("", 1.0, True),
        ("b", 1.1, False),
        ("c", 1.1, True),
        (" BREAKER break", 1.0, False),
    ]


@given(st.text(alphabet="ab ()[]:\\.1-B", max_size=60))
def test_no_prompt_is_refused(prompt: str) -> None:
    """Whatever is written can be read, and no word is lost."""
    segments = parse_attention(prompt)
    assert all(math.isfinite(segment.weight) for segment in segments)
    assert sum(segment.text.count("a") for segment in segments) == prompt.count("a")
