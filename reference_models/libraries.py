"""Hand out diffusers and transformers untyped.

Both import lazily, which makes type checkers see stand-ins without methods; here that is said once, instead of one
`type: ignore` at every call.
"""

from __future__ import annotations

from typing import Any, Final

import diffusers
import transformers

# Both import the rest of themselves later: this comes in time.
import pipelines  # noqa: F401 - for what it does to torchvision

DIFFUSERS: Final[Any] = diffusers
TRANSFORMERS: Final[Any] = transformers
