"""At which precision each part of a model is held, once and for all its users: nobody changes it for the time of a call."""

from collections.abc import Mapping
from typing import Any, Final

import torch

#: Families whose pipelines heed a VAE that says it overflows in half precision; the others' VAEs say so for no reason.
_HEEDING: Final = frozenset({"sdxl"})

#: Families whose numbers are too large for half precision; the other 16 bits have room for them.
_BRAIN: Final = frozenset({"sd3", "zimage", "flux", "flux2", "qwenimage"})


def held_at(family: str, component: str, config: Mapping[str, Any], dtype: torch.dtype) -> torch.dtype:
    """Return the precision to hold a component at on a device of precision `dtype`; `config` is its own.

    What is added to a model (LoRAs, ControlNets) is held as the model is.
    """
    if family in _BRAIN and dtype is torch.float16:
        return torch.bfloat16
    # Left out, it is true: so diffusers' class has it.
    overflows = component == "vae" and family in _HEEDING and config.get("force_upcast", True)
    return torch.float32 if overflows and dtype is torch.float16 else dtype
