"""Why admission refuses, beyond what `jobs.errors` has, and how it helps people on."""

import difflib
from collections.abc import Sequence
from typing import Final

from jobs.errors import RequestRefused

#: So many names are listed to someone who asked for one that does not exist.
LISTED_NAMES: Final = 10
#: Comparing two names takes some 50 µs: of more than so many only those that begin alike are compared.
COMPARED_NAMES: Final = 1000
_BEGINNING: Final = 3


class ScheduleTypeUnknown(RequestRefused):
    """No schedule type has this name, or the scheduler cannot follow it."""

    code = "schedule_type_unknown"


class PromptTooLong(RequestRefused):
    """The prompt has more tokens than the model's text encoder reads."""

    code = "prompt_too_long"


class NoModels(RequestRefused):
    """No model is registered, so nothing can be drawn."""

    code = "no_models"


def sentence(text: str) -> str:
    """Return a text with a capital letter and a full stop."""
    return f"{text[:1].upper()}{text[1:].rstrip('.')}."


def suggest(name: str, known: Sequence[str]) -> str:
    """Return the names that are near one that does not exist, else what there is."""
    folded = {each.casefold(): each for each in _comparable(name, known)}
    near = [folded[found] for found in difflib.get_close_matches(name[:200].casefold(), folded, n=3, cutoff=0.5)]
    if near:
        return f"Near it: {', '.join(near)}."
    listed = ", ".join(known[:LISTED_NAMES])
    more = f" and {len(known) - LISTED_NAMES} more" if len(known) > LISTED_NAMES else ""
    return f"There is: {listed}{more}." if known else "None is registered yet."


def _comparable(name: str, known: Sequence[str]) -> Sequence[str]:
    if len(known) <= COMPARED_NAMES:
        return known
    start = name[:_BEGINNING].casefold()
    return [each for each in known if each[:_BEGINNING].casefold() == start][:COMPARED_NAMES]
