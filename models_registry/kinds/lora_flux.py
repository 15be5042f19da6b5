"""Which FLUX a LoRA was made for: the original names of both are the same, and their layers differ in their sizes."""

import re
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from types import MappingProxyType
from typing import Final, NamedTuple

from models_registry.refusals import Unrecognised

#: How people call the second one.
SAID: Final = re.compile(r"flux[-_. ]?2|klein", re.IGNORECASE)
#: Widths that the second one alone was published with: 9B and dev. 4B is as wide as the first.
WIDTHS: Final[Mapping[int, str]] = MappingProxyType({4096: "flux2", 6144: "flux2"})
#: End of a layer's name → outputs over inputs → whose it is: the second one has a gate, which is half of what goes into it.
_RATIOS: Final[Mapping[re.Pattern[str], Mapping[Fraction, str]]] = MappingProxyType(
    {
        re.compile(r"single_blocks_\d+_linear1$"): {Fraction(7): "flux", Fraction(9): "flux2"},
        re.compile(r"single_blocks_\d+_linear2$"): {Fraction(1, 5): "flux", Fraction(1, 4): "flux2"},
        re.compile(r"double_blocks_\d+_(?:img|txt)_mlp_0$"): {Fraction(4): "flux", Fraction(6): "flux2"},
        re.compile(r"double_blocks_\d+_(?:img|txt)_mlp_2$"): {Fraction(1, 4): "flux", Fraction(1, 3): "flux2"},
    }
)
#: Blocks of two streams that the second one has at most.
_DOUBLES: Final = 8
_DOUBLE: Final = re.compile(r"double_blocks_(\d{1,4})_")


class Size(NamedTuple):
    """Say how many features a layer reads and gives."""

    inputs: int
    outputs: int


def which_flux(path: Path, sizes: Mapping[str, Size], width: int | None, words: str) -> str:
    """Return the family of a LoRA with original names, raising `Unrecognised` for one of neither; `width` is the network's, if told."""
    for name, size in sizes.items():
        ratios = next((ratios for pattern, ratios in _RATIOS.items() if pattern.match(name)), None)
        if ratios is None:
            continue
        family = ratios.get(Fraction(size.outputs, size.inputs))
        if family is None:
            raise Unrecognised(path, "is a LoRA for another FLUX than FLUX.1 and FLUX.2, which is not supported yet")
        return family
    if width is not None and width in WIDTHS:
        return WIDTHS[width]
    # Attention alone, as wide in both.
    blocks = 1 + max((int(found[1]) for name in sizes if (found := _DOUBLE.match(name))), default=0)
    return "flux2" if blocks <= _DOUBLES and SAID.search(words) else "flux"
