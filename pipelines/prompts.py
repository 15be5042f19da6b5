"""From prompts to what a UNet is given, by one CLIP text encoder or two: windows, emphasis, textual inversions, skipped layers.

A prompt longer than a text encoder's window becomes several windows one behind the other. LoRA tags and wildcards are read elsewhere.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import MappingProxyType
from typing import Any, NamedTuple

import torch

from jobs.errors import DrawingFailed, ModelDamaged
from jobs.prompts.attention import Segment, parse_attention
from jobs.prompts.windows import lay, parts
from pipelines.adapters.embedding import Embedding
from pipelines.adapters.keys import Component

#: By the word that stands for it, in small letters.
Words = Mapping[str, Embedding]

NO_WORDS: Words = MappingProxyType({})

#: Component -> its tokenizer.
_TOKENIZERS: Mapping[Component, str] = MappingProxyType({"text_encoder": "tokenizer", "text_encoder_2": "tokenizer_2"})


class Token(NamedTuple):
    """One place of a window."""

    id: int
    weight: float = 1.0
    #: In place of what the text encoder knows the id by.
    vector: torch.Tensor | None = None


class TextEncoder(NamedTuple):
    """One CLIP text encoder of a model."""

    component: Component
    tokenizer: Any
    module: Any
    #: Whether its last layer is never read, and what is read is not normed: so SDXL was trained.
    penultimate: bool = False


class Encoded(NamedTuple):
    """What text encoders made of one prompt."""

    #: 1 x (windows x 77) x width, the encoders' widths side by side.
    hidden: torch.Tensor
    #: By encoder, 1 x width: what it says of the first window as a whole; None where it says nothing.
    pooled: tuple[torch.Tensor | None, ...]


def text_encoders(pipe: Any, *, penultimate: bool = False) -> list[TextEncoder]:
    """Return the text encoders that a pipeline has, in their order."""
    return [
        TextEncoder(component, getattr(pipe, tokenizer), module, penultimate)
        for component, tokenizer in _TOKENIZERS.items()
        if (module := getattr(pipe, component, None)) is not None
    ]


def encode_prompts(
    encoders: Sequence[TextEncoder], texts: Mapping[str, str], *, words: Words = NO_WORDS, clip_skip: int = 1
) -> dict[str, Encoded]:
    """Return what the encoders make of each text, all padded to as many windows as the longest has.

    With neither emphasis nor words of their own, and no layer skipped, it is what diffusers' `encode_prompt` makes, bit for bit.
    """
    for encoder in encoders:
        _check_depth(encoder.module, clip_skip)
    windows = {name: [_windows(encoder, text, words) for encoder in encoders] for name, text in texts.items()}
    most = max(len(each) for by_encoder in windows.values() for each in by_encoder)
    return {
        name: _side_by_side(
            [
                _encode(encoder, [*each, *([[]] * (most - len(each)))], clip_skip)
                for encoder, each in zip(encoders, by_encoder, strict=True)
            ]
        )
        for name, by_encoder in windows.items()
    }


def prompt_embeddings(
    pipe: Any, prompt: str, negative_prompt: str | None, *, words: Words = NO_WORDS, clip_skip: int = 1
) -> dict[str, torch.Tensor]:
    """Return the prompt arguments of a Stable Diffusion pipeline; None for `negative_prompt` is without guidance."""
    texts = {"prompt_embeds": prompt}
    if negative_prompt is not None:
        texts["negative_prompt_embeds"] = negative_prompt
    encoded = encode_prompts(text_encoders(pipe), texts, words=words, clip_skip=clip_skip)
    return {name: each.hidden for name, each in encoded.items()}


def _check_depth(module: Any, clip_skip: int) -> None:
    layers = int(module.config.num_hidden_layers)
    if clip_skip > layers:
        raise DrawingFailed(f"clip_skip is at most {layers} for this model, whose text encoder has {layers} layers")


def _side_by_side(parts: Sequence[Encoded]) -> Encoded:
    return Encoded(
        torch.cat([each.hidden for each in parts], dim=-1), tuple(one for each in parts for one in each.pooled)
    )


def _room(tokenizer: Any) -> int:
    """Return how many tokens fit between the beginning and the end mark."""
    return int(tokenizer.model_max_length) - 2


def _windows(encoder: TextEncoder, text: str, words: Words) -> list[list[Token]]:
    """Lay the tokens of a prompt into windows; a word of several vectors is never split between two."""
    return lay(parse_attention(text), lambda segment: _groups(encoder, segment, words), _room(encoder.tokenizer))


def _groups(encoder: TextEncoder, segment: Segment, words: Words) -> Iterator[list[Token]]:
    """Yield the tokens of a segment that may not be parted: one by one, and those of an embedding's word together."""
    for part in parts(segment.text, words):
        if part.is_word:
            yield _own_tokens(encoder, words[part.text.casefold()], segment.weight)
        else:
            for number in encoder.tokenizer(
                part.text, add_special_tokens=False, truncation=False, verbose=False
            ).input_ids:
                yield [Token(number, segment.weight)]


def _own_tokens(encoder: TextEncoder, embedding: Embedding, weight: float) -> list[Token]:
    width, room = int(encoder.module.config.hidden_size), _room(encoder.tokenizer)
    vectors = embedding.vectors.get(encoder.component)
    if vectors is None:
        raise ModelDamaged(
            f"{embedding.path} was made for another model: it has no vectors for the {encoder.component}"
        )
    if vectors.shape[1] != width:
        raise ModelDamaged(
            f"{embedding.path} was made for another model: its vectors are {vectors.shape[1]} wide, this one's {width}"
        )
    if len(vectors) > room:
        raise ModelDamaged(f"{embedding.path} has {len(vectors)} vectors, and a text encoder's window {room} places")
    # The id is looked up for nothing; it must not be the end mark's, whose place the pooled features are taken from.
    return [Token(encoder.tokenizer.bos_token_id, weight, vector) for vector in vectors]


def _encode(encoder: TextEncoder, windows: Sequence[Sequence[Token]], clip_skip: int) -> Encoded:
    """Encode each window by itself and lay them one behind the other."""
    tokenizer, module, length = encoder.tokenizer, encoder.module, _room(encoder.tokenizer) + 2
    start, end, padding = (
        Token(number) for number in (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id)
    )
    rows = [[start, *window, end] for window in windows]
    rows = [row + [padding] * (length - len(row)) for row in rows]
    ids = torch.tensor([[token.id for token in row] for row in rows], device=module.device)
    with _own_vectors(module, rows):
        hidden, pooled = _read(encoder, ids, clip_skip)
    hidden = _emphasised(hidden, rows)
    return Encoded(hidden.reshape(1, -1, hidden.shape[-1]), (pooled if pooled is None else pooled[:1],))


def _read(encoder: TextEncoder, ids: torch.Tensor, clip_skip: int) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return the layer that is asked for (windows x 77 x width), and the features of whole windows where the encoder has them.

    As A1111 counts, 1 is the last layer and 2 the last but one; of SDXL, which never reads its last layer, both mean the same.
    """
    module = encoder.module
    if encoder.penultimate:
        output = module(ids, output_hidden_states=True)
        return output.hidden_states[-max(2, clip_skip)], getattr(output, "text_embeds", None)
    if clip_skip == 1:
        return module(ids)[0], None
    hidden = module(ids, output_hidden_states=True).hidden_states[-clip_skip]
    # The final norm is always applied.
    return module.get_submodule(_FINAL_NORM[hasattr(module, "text_model")])(hidden), None


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
