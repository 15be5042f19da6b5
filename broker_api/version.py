"""Which version of the product this is."""

import importlib.metadata
from typing import Final

DISTRIBUTION: Final = "imagefleet"
#: Run from a checkout that was not installed.
FROM_SOURCE: Final = "0+source"


def version() -> str:
    """Return the version of this installation."""
    try:
        return importlib.metadata.version(DISTRIBUTION)
    except importlib.metadata.PackageNotFoundError:
        return FROM_SOURCE
