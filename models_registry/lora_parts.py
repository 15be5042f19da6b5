"""How LoRA files name the parts of what is added to a layer: the ends of kohya, of diffusers, of peft, and of LyCORIS for LoHa and LoKr."""

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

#: End of a tensor's name → its part in what is added to a layer.
_PARTS: Final[Mapping[str, str]] = MappingProxyType(
    {
        ".lora_down.weight": "down",
        ".lora_up.weight": "up",
        ".lora_mid.weight": "mid",
        ".lora_A.weight": "down",
        ".lora_B.weight": "up",
        # Of adapters that peft holds, as some trainers write them.
        ".lora_A.default.weight": "down",
        ".lora_B.default.weight": "up",
        ".lora.down.weight": "down",
        ".lora.up.weight": "up",
        "_lora.down.weight": "down",
        "_lora.up.weight": "up",
        ".lora_linear_layer.down.weight": "down",
        ".lora_linear_layer.up.weight": "up",
        ".alpha": "alpha",
        ".dora_scale": "dora",
        ".lora_magnitude_vector": "dora",
        ".lora_magnitude_vector.weight": "dora",
        **{f".{name}": name for name in ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "hada_t1", "hada_t2")},
        **{f".lokr_{name}": f"lokr_{name}" for name in ("w1", "w1_a", "w1_b", "w2", "w2_a", "w2_b", "t2")},
    }
)
_END: Final = re.compile("(?:" + "|".join(re.escape(end) for end in sorted(_PARTS, key=len, reverse=True)) + ")$")


class Named(NamedTuple):
    """Say what a tensor's name says."""

    #: What stands before the end: the layer, with whatever the file puts before it.
    layer: str
    #: `down`, `up`, `mid`, `alpha`, `dora`, `hada_w1_a`, `lokr_w1` …
    part: str


def read_part(name: str) -> Named | None:
    """Return the layer and the part that a tensor's name says; None when it ends like no part of a LoRA."""
    end = _END.search(name)
    return None if end is None else Named(name[: end.start()], _PARTS[end[0]])
