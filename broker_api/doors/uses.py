"""Leave out of other programs' requests what a model has no use for, as those programs do themselves; pure.

Our own door refuses it, so that nobody wonders; these clients send a negative prompt and a guidance with whatever they draw.
"""

from collections.abc import Mapping
from typing import Any

from models_registry.entries import ModelEntry
from models_registry.families import FAMILIES, Guidance, facts_of


def without_meaningless(fields: Mapping[str, Any], entry: ModelEntry | None) -> dict[str, Any]:
    """Return a request's fields without those that say nothing to the model; None is one that is not known here."""
    unused: set[str] = set()
    if entry is not None and entry.family in FAMILIES:
        guidance = facts_of(entry).guidance
        if guidance is not Guidance.CLASSIFIER_FREE:
            unused.add("negative_prompt")
        if guidance is Guidance.NONE:
            unused.add("guidance_scale")
        if not FAMILIES[entry.family].takes_clip_skip:
            unused.add("clip_skip")
    return {name: value for name, value in fields.items() if name not in unused}
