"""From prompts to what a language model makes of them as a line of a chat: what chosen layers say, every prompt filled up to one length."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from jobs.errors import DrawingFailed
from jobs.prompts.attention import unmarked
from models_registry.vocabularies.chats import Chat


def chat_embeddings(
    tokenizer: Any, encoder: Any, texts: Mapping[str, str], chat: Chat, layers: Sequence[int]
) -> dict[str, torch.Tensor]:
    """Return what `layers` of a language model's body say of each text, 1 x length x width of all of them together.

    It is what diffusers' `encode_prompt` makes of the text without the marks of emphasis, bit for bit. The length is the chat's longest,
    or what the tokenizer of a smaller model says. Raises `DrawingFailed` for more tokens than that.
    """
    return {name: _side_by_side(_read(tokenizer, encoder, text, chat)[0], layers) for name, text in texts.items()}


def chat_states(tokenizer: Any, encoder: Any, text: str, chat: Chat, layer: int) -> torch.Tensor:
    """Return the same of one layer and one text without what it was filled up with, tokens x width."""
    states, mask = _read(tokenizer, encoder, text, chat)
    return states[layer][0][mask[0].bool()]


def _read(tokenizer: Any, encoder: Any, text: str, chat: Chat) -> tuple[Sequence[torch.Tensor], torch.Tensor]:
    """Return what each layer says of a text, and which of the places hold tokens of it or of its chat."""
    length = min(chat.longest, int(tokenizer.model_max_length))
    said = f"{chat.before}{unmarked(text)}{chat.behind}"
    # The chat has its own marks.
    row = tokenizer(said, padding="max_length", max_length=length, add_special_tokens=False, verbose=False)
    if len(row.input_ids) > length:
        around = len(tokenizer(chat.before + chat.behind, add_special_tokens=False).input_ids)
        raise DrawingFailed(
            f"the prompt has {len(row.input_ids) - around} tokens, of which this model reads at most {length - around}"
        )
    mask = torch.tensor([row.attention_mask], device=encoder.device)
    output = encoder(
        input_ids=torch.tensor([row.input_ids], device=encoder.device),
        attention_mask=mask,
        output_hidden_states=True,
        use_cache=False,
    )
    return output.hidden_states, mask


def _side_by_side(states: Sequence[torch.Tensor], layers: Sequence[int]) -> torch.Tensor:
    stacked = torch.stack([states[layer] for layer in layers], dim=1)
    count, _, places, width = stacked.shape
    return stacked.permute(0, 2, 1, 3).reshape(count, places, len(layers) * width)
