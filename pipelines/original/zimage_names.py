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

#: Norms of queries and keys in the original code.
_NORM: Final = re.compile(r"(.+\.attention)\.([qk])_norm\.weight")
#: What some files have, and no code reads.
_UNUSED: Final = "norm_final.weight"


def zimage_norm(name: str) -> str | None:
    """Return what diffusers calls a norm of queries or keys, by its original name; empty for one that nothing reads, None for no norm."""
    found = _NORM.fullmatch(name)
    if found is not None:
        return f"{found[1]}.norm_{found[2]}.weight"
    return "" if name == _UNUSED else None


def zimage_names(known: Collection[str]) -> dict[str, tuple[str, ...]]:
    """Return the layers that each original name stands for, of a transformer with these module paths; none for another kind's."""
    names = {}
    for own in (found[1] for path in known if (found := _ATTENTION.fullmatch(path))):
        names[f"{own}.qkv"] = tuple(f"{own}.to_{part}" for part in "qkv")
        names[f"{own}.out"] = (f"{own}.to_out.0",)
    return {**names, **_WHOLE} if names else {}
