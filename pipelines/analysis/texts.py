"""Tell where texts lie for a text encoder: the mean of what it makes of their tokens.

The mean over all tokens, and not the end mark's features, because those were trained for pictures of whole prompts, and an entry's text
is a heap of words.
"""

from typing import Any, Final

import torch

#: Of a longer text only so many windows are read.
MOST_WINDOWS: Final = 4


def text_vector(pipe: Any, text: str) -> tuple[float, ...]:
    """Return a vector of length 1 for a text; an empty one lies where the empty prompt does."""
    # A refiner has the second one alone.
    first = pipe.text_encoder is not None
    tokenizer, encoder = (pipe.tokenizer, pipe.text_encoder) if first else (pipe.tokenizer_2, pipe.text_encoder_2)
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
    mean = torch.cat(kept).mean(0)
    unit = mean / mean.norm().clamp_min(1e-12)
    return tuple(float(value) for value in unit)
