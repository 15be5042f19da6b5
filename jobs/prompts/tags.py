"""Read LoRA tags and the names of embeddings out of prompts, as A1111 does; pure.

```
a red circle <lora:name> <lora:name:0.8> <lora:name:0.5:1> <lora:name:te=0.5:unet=1> <lyco:name:0.8>
```
One figure is the weight of both networks; of two the first is the text encoder's. A tag that cannot be read stays text.
"""

import math
import re
from collections.abc import Iterable
from typing import Final, NamedTuple

from pydantic import ValidationError

from jobs.parts import Lora

_TAG: Final = re.compile(r"[ \t]*<(?:lora|lyco):([^<>\n]+)>", re.IGNORECASE)
#: Name, the text encoder's weight, the UNet's.
_MOST_POSITIONAL: Final = 3
_NAMED: Final = frozenset({"te", "unet"})


class Tagged(NamedTuple):
    """A prompt without its tags, and the LoRAs they named, in their order."""

    text: str
    loras: tuple[Lora, ...]


def take_tags(prompt: str) -> Tagged:
    """Take every LoRA tag out of a prompt."""
    loras: list[Lora] = []

    def take(found: re.Match[str]) -> str:
        lora = _lora(found[1])
        if lora is None:
            return found[0]
        loras.append(lora)
        return ""

    text = _TAG.sub(take, prompt)
    return Tagged(text.strip() if loras else prompt, tuple(loras))


def write_tag(lora: Lora) -> str:
    """Return the tag that `take_tags` reads as this LoRA."""
    weight = write_number(lora.weight)
    if lora.text_encoder_weight in {None, lora.weight}:
        return f"<lora:{lora.name}:{weight}>"
    return f"<lora:{lora.name}:{write_number(lora.text_encoder_weight or 0.0)}:{weight}>"


def write_number(value: float) -> str:
    """Write a number as A1111 does: without a fraction where there is none."""
    return str(int(value)) if float(value).is_integer() else str(value)


def named_embeddings(prompts: Iterable[str], names: Iterable[str]) -> list[str]:
    """Return those of `names` that occur in a prompt as whole words, in any case; of two that begin alike the longer one counts."""
    known = {name.casefold(): name for name in names}
    if not known:
        return []
    longest_first = sorted(known, key=len, reverse=True)
    words = re.compile(rf"(?<![\w-])(?:{'|'.join(map(re.escape, longest_first))})(?![\w-])")
    found = {known[word] for prompt in prompts for word in words.findall(prompt.casefold())}
    return [name for name in known.values() if name in found]


def _lora(text: str) -> Lora | None:
    """Read what stands between `<lora:` and `>`; None when that is no LoRA."""
    name, *given = (part.strip() for part in text.split(":"))
    named = dict(part.split("=", 1) for part in given if "=" in part)
    positional = [part for part in given if "=" not in part]
    if not named.keys() <= _NAMED or len(positional) >= _MOST_POSITIONAL or len(named) + len(positional) != len(given):
        return None
    try:
        if not given:
            # The weight is left to whoever knows what the LoRA is meant to be used with.
            return Lora(name=name)
        figures = [float(part) for part in positional]
        text_encoder = float(named.get("te", figures[0] if figures else 1.0))
        unet = float(named.get("unet", figures[1] if len(figures) > 1 else text_encoder))
        if not math.isfinite(text_encoder) or not math.isfinite(unet):
            return None
        return Lora(name=name, weight=unet, text_encoder_weight=None if text_encoder == unet else text_encoder)
    except (ValueError, ValidationError):
        return None
