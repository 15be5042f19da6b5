"""Turn a stack of adapters into a prompt that asks for them; pure."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from jobs.parts import MAX_STACK, Lora
from jobs.prompts.tags import take_tags, write_tag
from models_registry.entries import Kind

#: An embedding with this tag belongs into the negative prompt.
NEGATIVE_TAG: Final = "negative"
_HEAVIEST: Final = 10.0


@dataclass(frozen=True)
class Piece:
    """One adapter of a stack, and how it is to be used."""

    kind: Kind
    name: str
    weight: float | None = None
    text_encoder_weight: float | None = None
    #: The strength, and the range, that it is meant for.
    usual: float | None = None
    lightest: float | None = None
    heaviest: float | None = None
    trigger_words: Sequence[str] = ()
    tags: Sequence[str] = ()


class Composed(NamedTuple):
    """A prompt that asks for a stack."""

    #: With a tag for each LoRA.
    prompt: str
    negative_prompt: str
    #: The prompt as it is without tags.
    plain: str
    loras: tuple[Lora, ...]
    vae: str | None
    warnings: tuple[str, ...]


def compose(pieces: Sequence[Piece], prompt: str, negative_prompt: str, *, trigger_words: bool = True) -> Composed:
    """Add a stack to a prompt; what the prompt says already is not said twice."""
    tagged = take_tags(prompt)
    warnings: list[str] = []
    loras = {lora.name.casefold(): lora for lora in tagged.loras}
    words, negative = [tagged.text] if tagged.text else [], [negative_prompt] if negative_prompt else []
    vae = None
    for piece in pieces:
        if piece.kind is Kind.LORA:
            if piece.name.casefold() in loras:
                warnings.append(f"{piece.name} stands in the prompt already, whose weight counts.")
            else:
                loras[piece.name.casefold()] = _lora(piece, warnings)
            wanted = list(piece.trigger_words) if trigger_words else []
            _say(wanted, words)
        elif piece.kind is Kind.EMBEDDING:
            _say([piece.name], negative if NEGATIVE_TAG in piece.tags else words)
        elif piece.kind is Kind.VAE and vae is None:
            vae = piece.name
        else:
            warnings.append(f"{piece.name} is active, but a {piece.kind} is no part of a prompt.")
    plain = ", ".join(words)
    tags = [write_tag(lora) for lora in loras.values()]
    whole = " ".join([plain, *tags] if plain else tags)
    stack = tuple(loras.values())
    if take_tags(whole).loras != stack:
        warnings.append("A name cannot be written as a tag: use `loras` in place of the tags.")
    if len(stack) > MAX_STACK:
        warnings.append(f"A job takes {MAX_STACK} LoRAs at most; these are {len(stack)}.")
    return Composed(whole, ", ".join(negative), plain, stack, vae, tuple(warnings))


def says(text: str, word: str) -> bool:
    """Tell whether a prompt holds a trigger word, whole and in any case."""
    return re.search(rf"(?<!\w){re.escape(word.strip())}(?!\w)", text, re.IGNORECASE) is not None


def _say(words: Sequence[str], said: list[str]) -> None:
    for word in words:
        if word.strip() and not any(says(text, word) for text in said):
            said.append(word.strip())


def _lora(piece: Piece, warnings: list[str]) -> Lora:
    weight = next(each for each in (piece.weight, piece.usual, 1.0) if each is not None)
    weight = min(max(weight, -_HEAVIEST), _HEAVIEST)
    if (piece.lightest is not None and weight < piece.lightest) or (
        piece.heaviest is not None and weight > piece.heaviest
    ):
        low, high = (f"{bound:g}" if bound is not None else "…" for bound in (piece.lightest, piece.heaviest))
        warnings.append(f"{piece.name} is meant for weights from {low} to {high}; {weight:g} is outside.")
    return Lora(name=piece.name, weight=weight, text_encoder_weight=piece.text_encoder_weight)
