"""At which precision each part of a model is held, once and for all its users: nobody changes it for the time of a call."""

from collections.abc import Mapping
from typing import Any, Final

import torch

#: Families whose pipelines heed a VAE that says it overflows in half precision; the others' VAEs say so for no reason.
_HEEDING: Final = frozenset({"sdxl"})


def held_at(family: str, component: str, config: Mapping[str, Any], dtype: torch.dtype) -> torch.dtype:
    """Return the precision to hold a component at where everything else is held at `dtype`; `config` is its own."""
    # Left out, it is true: so diffusers' class has it.
    overflows = component == "vae" and family in _HEEDING and config.get("force_upcast", True)
    return torch.float32 if overflows and dtype is torch.float16 else dtype
