"""Why admission refuses, beyond what `jobs.errors` has, and how it helps people on."""

import difflib
from collections.abc import Sequence
from typing import Final

from jobs.errors import RequestRefused

#: So many names are listed to someone who asked for one that does not exist.
LISTED_NAMES: Final = 10


class ScheduleTypeUnknown(RequestRefused):
    """No schedule type has this name, or the scheduler cannot follow it."""

    code = "schedule_type_unknown"


class NoModels(RequestRefused):
    """No model is registered, so nothing can be drawn."""

    code = "no_models"


def sentence(text: str) -> str:
    """Return a text with a capital letter and a full stop."""
    return f"{text[:1].upper()}{text[1:].rstrip('.')}."


def suggest(name: str, known: Sequence[str]) -> str:
    """Return the names that are near one that does not exist, else what there is."""
    folded = {each.casefold(): each for each in known}
    near = [folded[found] for found in difflib.get_close_matches(name[:200].casefold(), folded, n=3, cutoff=0.5)]
    if near:
        return f"Near it: {', '.join(near)}."
    listed = ", ".join(known[:LISTED_NAMES])
    more = f" and {len(known) - LISTED_NAMES} more" if len(known) > LISTED_NAMES else ""
    return f"There is: {listed}{more}." if known else "None is registered yet."
