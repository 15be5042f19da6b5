"""From prompts to what a language model makes of them as a line of a chat: layers side by side, every prompt filled up to one length."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from jobs.errors import DrawingFailed
from jobs.prompts.attention import unmarked
from models_registry.qwen_vocabulary import Chat


def chat_embeddings(
    tokenizer: Any, encoder: Any, texts: Mapping[str, str], chat: Chat, layers: Sequence[int]
) -> dict[str, torch.Tensor]:
    """Return what `layers` of a language model's body say of each text, 1 x length x width of all of them together.

    It is what diffusers' `encode_prompt` makes of the text without the marks of emphasis, bit for bit. The length is the chat's longest,
    or what the tokenizer of a smaller model says. Raises `DrawingFailed` for more tokens than that.
    """
    length = min(chat.longest, int(tokenizer.model_max_length))
    return {name: _encode(tokenizer, encoder, unmarked(text), chat, layers, length) for name, text in texts.items()}


def _encode(tokenizer: Any, encoder: Any, text: str, chat: Chat, layers: Sequence[int], length: int) -> torch.Tensor:
    row = tokenizer(f"{chat.before}{text}{chat.behind}", padding="max_length", max_length=length, verbose=False)
    if len(row.input_ids) > length:
        around = len(tokenizer(chat.before + chat.behind).input_ids)
        raise DrawingFailed(
            f"the prompt has {len(row.input_ids) - around} tokens, of which this model reads at most {length - around}"
        )
    output = encoder(
        input_ids=torch.tensor([row.input_ids], device=encoder.device),
        attention_mask=torch.tensor([row.attention_mask], device=encoder.device),
        output_hidden_states=True,
        use_cache=False,
    )
    stacked = torch.stack([output.hidden_states[layer] for layer in layers], dim=1)
    count, _, places, width = stacked.shape
    return stacked.permute(0, 2, 1, 3).reshape(count, places, len(layers) * width)
