"""Read the files that vocabularies lie in, by bounded reads."""

import json
from pathlib import Path
from typing import Any, Final

from models_registry.reading.bounded_files import Reads, read_small
from models_registry.refusals import ConfigInvalid

#: The published vocabularies take 2 to 17 MB as JSON.
LARGEST_FILE: Final = 32 * 1024**2


def read_text(path: Path) -> str:
    """Return what a file says, raising `ConfigInvalid`."""
    try:
        return read_small(path, LARGEST_FILE, Reads()).decode()
    except UnicodeDecodeError:
        raise ConfigInvalid(path, "is not UTF-8") from None


def read_object(path: Path) -> dict[str, Any]:
    """Return the JSON object that a file holds, raising `ConfigInvalid`."""
    try:
        found = json.loads(read_text(path))
    except (ValueError, RecursionError):
        raise ConfigInvalid(path, "is not JSON") from None
    if not isinstance(found, dict):
        raise ConfigInvalid(path, "is not an object")
    return found
