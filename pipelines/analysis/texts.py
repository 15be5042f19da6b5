"""Tell where texts lie for a text encoder: the mean of what it makes of their tokens.

The mean over all tokens, and not the end mark's features, because those were trained for pictures of whole prompts, and an entry's text
is a heap of words.
"""

from typing import Any, Final

import torch

#: Of a longer text only so many windows are read.
MOST_WINDOWS: Final = 4
#: And where there is one window, so many tokens: about as many.
MOST_TOKENS: Final = 300


def text_vector(pipe: Any, text: str) -> tuple[float, ...]:
    """Return a vector of length 1 for a text; an empty one lies where the empty prompt does."""
    # A refiner has the second one alone.
    first = pipe.text_encoder is not None
    tokenizer, encoder = (pipe.tokenizer, pipe.text_encoder) if first else (pipe.tokenizer_2, pipe.text_encoder_2)
    if not encoder.config.model_type.startswith("clip"):
        return _unit(_of_language_model(tokenizer, encoder, text))
    length = int(tokenizer.model_max_length)
    room = length - 2
    ids = tokenizer(text, add_special_tokens=False, truncation=False, verbose=False).input_ids[: room * MOST_WINDOWS]
    windows = [ids[start : start + room] for start in range(0, len(ids), room)] or [[]]
    start, end, padding = tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id
    rows = [[start, *window, end] for window in windows]
    padded = [row + [padding] * (length - len(row)) for row in rows]
    with torch.no_grad():
        hidden = encoder(torch.tensor(padded, device=encoder.device)).last_hidden_state.double().cpu()
    # The end mark alone where there is no token.
    kept = [hidden[place, 1 : max(2, len(row) - 1)] for place, row in enumerate(rows)]
    return _unit(torch.cat(kept))


def _of_language_model(tokenizer: Any, encoder: Any, text: str) -> torch.Tensor:
    """Return what a language model makes of each token (tokens x width): it has one long window, without marks of its ends."""
    ids = tokenizer(text, add_special_tokens=False, truncation=False, verbose=False).input_ids[:MOST_TOKENS]
    given = torch.tensor([ids or [tokenizer.eos_token_id]], device=encoder.device)
    with torch.no_grad():
        # Without the layer that says which word could follow.
        hidden: torch.Tensor = encoder.base_model(input_ids=given, use_cache=False).last_hidden_state
    return hidden[0].double().cpu()


def _unit(hidden: torch.Tensor) -> tuple[float, ...]:
    """Return the direction of the mean of vectors (count x width)."""
    mean = hidden.mean(0)
    return tuple(float(value) for value in mean / mean.norm().clamp_min(1e-12))
