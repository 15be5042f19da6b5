"""What tells the versions of one model apart: `name@version`, and which of them is the newest; pure."""

import re
from typing import Final

MAX_VERSION: Final = 60
_PARTS: Final = re.compile(r"\d+|[^\W\d_]+")


def join_ref(name: str, version: str = "") -> str:
    """Return what a job calls the entry of this name and version."""
    return f"{name}@{version}" if version else name


def split_ref(ref: str) -> tuple[str, str]:
    """Return the name and the version that a job's name for an entry holds; the version is empty where there is none."""
    name, parted, version = ref.rpartition("@")
    return (name, version) if parted else (ref, "")


def version_order(version: str) -> tuple[tuple[int, int, str], ...]:
    """Return what versions are sorted by: numbers count as numbers, and what has no version comes first."""
    return tuple(
        (1, int(part), "") if part.isdecimal() else (0, 0, part.casefold()) for part in _PARTS.findall(version)
    )
