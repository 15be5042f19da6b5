"""Read which files a picture's infotext names by their hashes; pure.

```
Model hash: 0a1b2c3d4e, Model: name, Lora hashes: "frame: 9f8e7d6c5b4a, dusk: 0011223344"
Hashes: {"model": "0a1b2c3d4e", "lora:frame": "9f8e7d6c5b4a"}
```
The first form is A1111's own, the second that of its extension for CivitAI.
"""

import json
import re
from collections.abc import Mapping
from typing import Final, NamedTuple

from jobs.prompts.infotext import parse_infotext

_DIGEST: Final = re.compile(r"[0-9a-f]{8,64}")
_LORA: Final = "lora:"
#: JSON is no value that the other fields' grammar knows.
_LISTED: Final = re.compile(r"\bHashes: (\{[^{}]{0,10000}\})")


class Resources(NamedTuple):
    """Hashes, or their beginnings, in small letters."""

    model: str | None
    #: By the names that the prompt uses.
    loras: Mapping[str, str]


def read_resources(infotext: str) -> Resources:
    """Return the hashes that an infotext names; what is no hash is left out."""
    fields = parse_infotext(infotext).fields
    found: dict[str, str] = {}
    for part in fields.get("Lora hashes", "").split(","):
        name, colon, digest = part.rpartition(":")
        if colon:
            found[name.strip()] = digest.strip().lower()
    written = _LISTED.search(infotext)
    listed = _listed(written[1]) if written else {}
    found |= {name.removeprefix(_LORA): digest for name, digest in listed.items() if name.startswith(_LORA)}
    model = fields.get("Model hash", listed.get("model", "")).lower()
    return Resources(
        model if _DIGEST.fullmatch(model) else None,
        {name: digest for name, digest in found.items() if name and _DIGEST.fullmatch(digest)},
    )


def _listed(text: str) -> dict[str, str]:
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    if not isinstance(data, dict):
        return {}
    return {name: digest.lower() for name, digest in data.items() if isinstance(digest, str)}
