"""What an entry says of itself, as one text: what is embedded, and what words are looked for in; pure."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, Final

#: Of the tags it was trained on the most frequent ones say what it is about.
MOST_TRAINING_TAGS: Final = 40
LONGEST_TEXT: Final = 4000
#: Where trainers write them: tag -> count, by folder.
_TRAINING_TAGS: Final = "ss_tag_frequency"


def text_of(entry: Mapping[str, Any]) -> str:
    """Return an entry's text, what says most of it first: name, trigger words, tags, description, training tags.

    `entry` has the columns `model_name`, `trigger_words`, `tags`, `description` and `metadata` of `models`.
    """
    name = entry["model_name"].replace("-", " ").replace("_", " ")
    parts = [name, *entry["trigger_words"], *entry["tags"], entry["description"], *training_tags(entry["metadata"])]
    return ", ".join(dict.fromkeys(part.strip() for part in parts if part.strip()))[:LONGEST_TEXT]


def training_tags(metadata: Mapping[str, Any]) -> list[str]:
    """Return the tags a trainer counted, the most frequent first; none where there are none, or none that can be read."""
    counted: Counter[str] = Counter()
    for tag, count in _counts(metadata.get(_TRAINING_TAGS)):
        counted[tag] += count
    return [tag for tag, _ in counted.most_common(MOST_TRAINING_TAGS)]


def _counts(found: object) -> Iterator[tuple[str, int]]:
    if isinstance(found, str):
        try:
            found = json.loads(found)
        except ValueError:
            return
    if not isinstance(found, dict):
        return
    for name, value in found.items():
        if isinstance(value, int):
            yield str(name).strip(), value
        elif isinstance(value, dict):
            yield from _counts(value)
