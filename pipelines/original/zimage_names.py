"""What the layers of Z-Image's transformer were called in the original code, where that is not what diffusers calls them."""

import re
from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import Final

_WHOLE: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "x_embedder": ("all_x_embedder.2-1",),
        "final_layer.linear": ("all_final_layer.2-1.linear",),
        "final_layer.adaLN_modulation.1": ("all_final_layer.2-1.adaLN_modulation.1",),
    }
)
_ATTENTION: Final = re.compile(r"((?:layers|noise_refiner|context_refiner)\.\d+\.attention)\.to_q")


def zimage_names(known: Collection[str]) -> dict[str, tuple[str, ...]]:
    """Return the layers that each original name stands for, of a transformer with these module paths; none for another kind's."""
    names = {}
    for own in (found[1] for path in known if (found := _ATTENTION.fullmatch(path))):
        names[f"{own}.qkv"] = tuple(f"{own}.to_{part}" for part in "qkv")
        names[f"{own}.out"] = (f"{own}.to_out.0",)
    return {**names, **_WHOLE} if names else {}
