"""From prompts to what a T5 text encoder makes of them: one window that grows with the prompt, and emphasis token by token."""

from collections.abc import Mapping
from typing import Any

import torch

from jobs.errors import DrawingFailed
from jobs.prompts.attention import parse_attention
from models_registry.vocabularies.t5 import LONGEST


def window(tokenizer: Any, usual: int) -> int:
    """Return how many tokens a prompt is filled up to, unless it has more: `usual`, or what the tokenizer of a smaller model says."""
    return min(usual, int(tokenizer.model_max_length))


def t5_embeddings(tokenizer: Any, encoder: Any, texts: Mapping[str, str], usual: int) -> dict[str, torch.Tensor]:
    """Return each text's vectors, 1 x length x width, of one length for all: the `usual` one or the smallest multiple that holds them.

    Without emphasis they are those of diffusers' `encode_prompt`, bit for bit. With it each token's vector is multiplied by its weight; the
    mean is not brought back as for CLIP, because that of T5 is next to nothing. `BREAK` parts words and nothing else. Raises
    `DrawingFailed` for more tokens than the models know.
    """
    rows = {name: _tokens(tokenizer, text) for name, text in texts.items()}
    base = window(tokenizer, usual)
    most = max(len(ids) for ids, _ in rows.values())
    length = -(-most // base) * base
    if most > LONGEST:
        raise DrawingFailed(f"the prompt has {most} tokens for T5, of which this model reads at most {LONGEST}")
    return {name: _encode(tokenizer, encoder, *row, min(length, LONGEST)) for name, row in rows.items()}


def plain_text(prompt: str) -> str:
    """Return a prompt without the marks of emphasis, for encoders whose answer is one vector for all of it."""
    return " ".join(segment.text.strip() for segment in parse_attention(prompt)) if _marked(prompt) else prompt


def _marked(prompt: str) -> bool:
    segments = parse_attention(prompt)
    return len(segments) != 1 or segments[0].text != prompt or segments[0].weight != 1.0


def _tokens(tokenizer: Any, text: str) -> tuple[list[int], list[float]]:
    """Return a prompt's tokens with the end mark, and what each weighs."""
    ids: list[int] = []
    weights: list[float] = []
    for segment in parse_attention(text):
        found = tokenizer(segment.text, add_special_tokens=False, truncation=False, verbose=False).input_ids
        ids += found
        weights += [segment.weight] * len(found)
    return [*ids, int(tokenizer.eos_token_id)], [*weights, 1.0]


def _encode(tokenizer: Any, encoder: Any, ids: list[int], weights: list[float], length: int) -> torch.Tensor:
    filled = ids + [int(tokenizer.pad_token_id)] * (length - len(ids))
    hidden: torch.Tensor = encoder(torch.tensor([filled], device=encoder.device))[0]
    if any(weight != 1.0 for weight in weights):
        scale = torch.ones(length, device=hidden.device, dtype=hidden.dtype)
        scale[: len(weights)] = torch.tensor(weights, device=hidden.device, dtype=hidden.dtype)
        hidden = hidden * scale[:, None]
    return hidden
