"""From prompts to the embeddings that a Stable Diffusion 1.x UNet is given: windows, emphasis, textual inversions, skipped layers.

A prompt longer than the text encoder's window becomes several windows one behind the other. LoRA tags and wildcards are read elsewhere.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import MappingProxyType
from typing import Any, NamedTuple

import torch

from jobs.errors import DrawingFailed, ModelDamaged
from jobs.prompts.attention import parse_attention
from pipelines.adapters.embedding import Embedding

#: By the word that stands for it, in small letters.
Words = Mapping[str, Embedding]

NO_WORDS: Words = MappingProxyType({})


class Token(NamedTuple):
    """One place of a window."""

    id: int
    weight: float = 1.0
    #: In place of what the text encoder knows the id by.
    vector: torch.Tensor | None = None


def prompt_embeddings(
    pipe: Any, prompt: str, negative_prompt: str | None, *, words: Words = NO_WORDS, clip_skip: int = 1
) -> dict[str, torch.Tensor]:
    """Return the pipeline's prompt arguments, each 1 x (windows x 77) x width; None for `negative_prompt` is without guidance.

    With neither emphasis nor words of their own, and no layer skipped, they are those of diffusers' `encode_prompt`, bit for bit.
    """
    _check_depth(pipe.text_encoder, clip_skip)
    texts = {"prompt_embeds": prompt}
    if negative_prompt is not None:
        texts["negative_prompt_embeds"] = negative_prompt
    windows = {name: _windows(pipe, text, words) for name, text in texts.items()}
    most = max(len(each) for each in windows.values())
    return {name: _encode(pipe, [*each, *([[]] * (most - len(each)))], clip_skip) for name, each in windows.items()}


def _check_depth(text_encoder: Any, clip_skip: int) -> None:
    layers = int(text_encoder.config.num_hidden_layers)
    if clip_skip > layers:
        raise DrawingFailed(f"clip_skip is at most {layers} for this model, whose text encoder has {layers} layers")


def _room(tokenizer: Any) -> int:
    """Return how many tokens fit between the beginning and the end mark."""
    return int(tokenizer.model_max_length) - 2


def _windows(pipe: Any, text: str, words: Words) -> list[list[Token]]:
    """Lay the tokens of a prompt into windows; a word of several vectors is never split between two."""
    room = _room(pipe.tokenizer)
    windows: list[list[Token]] = [[]]
    for segment in parse_attention(text):
        if segment.breaks:
            windows.append([])
        for group in _groups(pipe, segment.text, segment.weight, words):
            if len(windows[-1]) + len(group) > room:
                windows.append([])
            windows[-1].extend(group)
    return windows


def _groups(pipe: Any, text: str, weight: float, words: Words) -> Iterator[list[Token]]:
    """Yield the tokens of a text that may not be parted: one by one, and those of an embedding's word together."""
    # A longer word wins over one that it begins with.
    pattern = "|".join(re.escape(word) for word in sorted(words, key=len, reverse=True))
    parts = re.split(rf"(?<![\w-])({pattern})(?![\w-])", text, flags=re.IGNORECASE) if pattern else [text]
    for place, part in enumerate(parts):
        if place % 2:
            yield _own_tokens(pipe, words[part.casefold()], weight)
        else:
            for number in pipe.tokenizer(part, add_special_tokens=False, truncation=False, verbose=False).input_ids:
                yield [Token(number, weight)]


def _own_tokens(pipe: Any, embedding: Embedding, weight: float) -> list[Token]:
    width, room = int(pipe.text_encoder.config.hidden_size), _room(pipe.tokenizer)
    count = len(embedding.vectors)
    if embedding.vectors.shape[1] != width:
        raise ModelDamaged(
            f"{embedding.path} was made for another model: its vectors are {embedding.vectors.shape[1]} wide, this one's {width}"
        )
    if count > room:
        raise ModelDamaged(f"{embedding.path} has {count} vectors, and a text encoder's window {room} places")
    return [Token(pipe.tokenizer.unk_token_id, weight, vector) for vector in embedding.vectors]


def _encode(pipe: Any, windows: Sequence[Sequence[Token]], clip_skip: int) -> torch.Tensor:
    """Encode each window by itself and lay them side by side."""
    tokenizer, text_encoder, length = pipe.tokenizer, pipe.text_encoder, _room(pipe.tokenizer) + 2
    start, end, padding = (
        Token(number) for number in (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id)
    )
    rows = [[start, *window, end] for window in windows]
    rows = [row + [padding] * (length - len(row)) for row in rows]
    ids = torch.tensor([[token.id for token in row] for row in rows], device=text_encoder.device)
    with _own_vectors(text_encoder, rows):
        if clip_skip == 1:
            hidden = text_encoder(ids)[0]
        else:
            # As A1111 counts: 2 is the last layer but one; the final norm is always applied.
            hidden = text_encoder(ids, output_hidden_states=True).hidden_states[-clip_skip]
            hidden = text_encoder.get_submodule(_FINAL_NORM[hasattr(text_encoder, "text_model")])(hidden)
    hidden = _emphasised(hidden, rows)
    embeddings: torch.Tensor = hidden.reshape(1, -1, hidden.shape[-1]).to(pipe.unet.dtype)
    return embeddings


#: By whether the text encoder keeps its layers in a module of their own, as older versions of its library do.
_FINAL_NORM = ("final_layer_norm", "text_model.final_layer_norm")


def _emphasised(hidden: torch.Tensor, rows: Sequence[Sequence[Token]]) -> torch.Tensor:
    """Weigh each place and bring each window's mean back to what it was, as A1111 does (windows x 77 x width)."""
    if all(token.weight == 1.0 for row in rows for token in row):
        return hidden
    weights = torch.tensor([[token.weight for token in row] for row in rows], device=hidden.device, dtype=hidden.dtype)
    weighed = hidden * weights[..., None]
    # A window without emphasis is left alone: its factor would be 1 but for rounding.
    factors = [
        _ratio(before, after) if any(token.weight != 1.0 for token in row) else 1.0
        for row, before, after in zip(rows, hidden.float().mean((1, 2)), weighed.float().mean((1, 2)), strict=True)
    ]
    return weighed * torch.tensor(factors, device=hidden.device, dtype=hidden.dtype)[:, None, None]


def _ratio(before: torch.Tensor, after: torch.Tensor) -> float:
    ratio = float(before) / float(after) if float(after) else 1.0
    return ratio if math.isfinite(ratio) else 1.0


def _own_vectors(text_encoder: Any, rows: Sequence[Sequence[Token]]) -> AbstractContextManager[None]:
    """Give the text encoder other vectors at the places that bring one, for the time of a call; neither weights nor vocabulary change."""
    places = [
        (row, place, token.vector)
        for row, tokens in enumerate(rows)
        for place, token in enumerate(tokens)
        if token.vector is not None
    ]
    return _replacing(text_encoder.get_input_embeddings(), places) if places else nullcontext()


@contextmanager
def _replacing(table: torch.nn.Module, places: Sequence[tuple[int, int, torch.Tensor]]) -> Iterator[None]:
    def replace(_table: object, _args: object, output: torch.Tensor) -> torch.Tensor:
        output = output.clone()
        for row, place, vector in places:
            output[row, place] = vector
        return output

    hook = table.register_forward_hook(replace)
    try:
        yield
    finally:
        hook.remove()
