"""Prompts longer than a text encoder's window, as embeddings of several windows one behind the other.

It does not know weights, LoRA tags or wildcards: the text comes as it is to be read.
"""

from typing import Any

import torch


def long_embeddings(pipe: Any, prompt: str, negative_prompt: str) -> dict[str, Any]:
    """Return the pipeline's prompt arguments: the texts themselves where both fit one window, else embeddings."""
    tokens = [_tokens(pipe.tokenizer, text) for text in (prompt, negative_prompt)]
    windows = max(_windows(pipe.tokenizer, each) for each in tokens)
    if windows == 1:
        return {"prompt": prompt, "negative_prompt": negative_prompt}
    embeddings = [_encode(pipe, each, windows) for each in tokens]
    return {"prompt_embeds": embeddings[0], "negative_prompt_embeds": embeddings[1]}


def _tokens(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False, truncation=False, verbose=False).input_ids)


def _room(tokenizer: Any) -> int:
    """Return how many tokens fit between the beginning and the end mark."""
    return int(tokenizer.model_max_length) - 2


def _windows(tokenizer: Any, tokens: list[int]) -> int:
    return max(1, -(-len(tokens) // _room(tokenizer)))


def _encode(pipe: Any, tokens: list[int], windows: int) -> torch.Tensor:
    """Encode each window by itself and lay them side by side: 1 x (windows x 77) x width."""
    tokenizer, room = pipe.tokenizer, _room(pipe.tokenizer)
    rows = []
    for start in range(0, windows * room, room):
        row = [tokenizer.bos_token_id, *tokens[start : start + room], tokenizer.eos_token_id]
        rows.append(row + [tokenizer.pad_token_id] * (room + 2 - len(row)))
    hidden: torch.Tensor = pipe.text_encoder(torch.tensor(rows, device=pipe.text_encoder.device))[0]
    return hidden.reshape(1, -1, hidden.shape[-1]).to(pipe.unet.dtype)
