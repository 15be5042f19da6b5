"""A tiny checkpoint of every family's every variant, in the real architecture."""

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

from tests.tiny import flux2, qwenimage, transformers, unets, zimage

#: By family and `ModelEntry.variant`: saves it into a folder.
BUILDERS: Final[Mapping[tuple[str, str], Callable[[Path], Path]]] = MappingProxyType(
    {**unets.CHECKPOINTS, **transformers.BUILDERS, **zimage.BUILDERS, **flux2.BUILDERS, **qwenimage.BUILDERS}
)
