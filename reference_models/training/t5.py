"""Train the T5 text encoder of the flow models: it learns like the CLIP encoder does, and is then frozen and shared.

FLUX and Stable Diffusion 3 show it the padding too, without a mask: every position must know the caption.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Final, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor, nn

from reference_models.libraries import TRANSFORMERS
from reference_models.pictures import COLOURS, POSITIONS, SHAPES, SIZES
from reference_models.training.family import QUICK_STEPS
from reference_models.training.fillers import WORDS
from reference_models.training.loop import Plan, fit
from reference_models.training.reading import ANSWERS, reading_batch, wrongness

PLAN: Final = Plan("t5", steps=600, rate=2e-3, weight_decay=0.01, seed=5)
BATCH: Final = 96
WIDTH: Final = 128
LENGTH: Final = 32
"""How many tokens of a prompt the flow models are shown."""

LENGTHS: Final = (16, 32, 32, 64)
"""How long the padded captions are while it learns: so a caller may pad further than usual."""

_SPECIAL: Final = ("<pad>", "</s>", "<unk>")
_CAPTION_WORDS: Final = ("a", "an", "on", "at", "shape", "background", "colour")
_WHOLE_WORD: Final = -1.0
_SYMBOL: Final = -4.0
_NEIGHBOURS: Final = (1, 17)
"""T5's numbers for the word before and the word after."""
_NEAR: Final = 4.0
"""Two heads start by looking at neighbours: else which colour belongs to which thing stays unlearnt for long."""
_SPELLINGS: Final = (str.capitalize, str.upper)


def _words() -> list[str]:
    places = (word for phrase in POSITIONS.values() for word in phrase.split())
    return sorted({*COLOURS, *SHAPES, *SIZES, *places, *_CAPTION_WORDS, *WORDS})


def build_tokenizer() -> Any:
    """Return a `T5Tokenizer` that knows the words of captions in three spellings; any other word is unknown to it."""
    words = _words()
    spelt = dict.fromkeys([*words, *(spell(word) for spell in _SPELLINGS for word in words)])
    pieces = [(piece, 0.0) for piece in _SPECIAL]
    pieces += [("▁", _SYMBOL), (",", _SYMBOL), (".", _SYMBOL)]
    pieces += [(f"▁{word}", _WHOLE_WORD) for word in spelt]
    return TRANSFORMERS.T5Tokenizer(vocab=pieces, extra_ids=0, model_max_length=LENGTH)


def build(tokenizer: Any) -> Any:
    """Return a new `T5EncoderModel` (0.3 million parameters)."""
    encoder = TRANSFORMERS.T5EncoderModel(
        TRANSFORMERS.T5Config(
            vocab_size=len(tokenizer),
            d_model=WIDTH,
            d_kv=32,
            d_ff=2 * WIDTH,
            num_layers=2,
            num_heads=4,
            dropout_rate=0.0,
            feed_forward_proj="gated-gelu",
            is_encoder_decoder=False,
            use_cache=False,
            pad_token_id=0,
            eos_token_id=1,
        )
    )
    with torch.no_grad():
        bias = encoder.encoder.block[0].layer[0].SelfAttention.relative_attention_bias.weight
        for head, bucket in enumerate(_NEIGHBOURS):
            bias[bucket, head] = _NEAR
    return encoder


def tokens(tokenizer: Any, captions: list[str], length: int = LENGTH) -> Tensor:
    """Return the captions as token ids: `[n, length]`."""
    found = tokenizer(captions, padding="max_length", max_length=length, truncation=True, return_tensors="pt")
    return cast("Tensor", found.input_ids)


class Reader(nn.Module):
    """Say from one state of the encoder which attributes the caption names."""

    def __init__(self, encoder: Any) -> None:
        """Put a linear answer on top of the encoder."""
        super().__init__()
        self.encoder = encoder
        self.answers = nn.Linear(WIDTH, ANSWERS)

    def forward(self, ids: Tensor, where: Tensor) -> Tensor:
        """Return the scores `[n, ANSWERS]` of the states at the positions `[n]`."""
        scores: Tensor = self.answers(self.encoder(ids)[0][torch.arange(len(ids)), where])
        return scores


@torch.no_grad()
def _read_every_spelling_alike(encoder: Any, tokenizer: Any) -> None:
    """Give a capitalised word the vector of the word as captions spell it."""
    table = encoder.get_input_embeddings().weight
    for word in _words():
        plain, *others = (
            tokenizer.convert_tokens_to_ids(f"▁{spelt}") for spelt in (word, *(spell(word) for spell in _SPELLINGS))
        )
        table[others] = table[plain].clone()


def train(folder: Path, tokenizer: Any, plan: Plan = PLAN) -> tuple[Any, float]:
    """Train a T5 encoder with checkpoints in the folder; return it, frozen, and the seconds spent."""
    torch.manual_seed(0)
    reader = Reader(build(tokenizer))

    def loss(rng: np.random.Generator) -> Tensor:
        captions, labels = reading_batch(rng, BATCH)
        length = LENGTHS[rng.integers(len(LENGTHS))]
        ids = tokens(tokenizer, captions, length)
        whole = ids[:, -1].eq(tokenizer.pad_token_id)
        anywhere = torch.from_numpy(rng.integers(0, length, size=len(ids)))
        # What a cut caption no longer says cannot be asked.
        return wrongness(reader(ids, anywhere)[whole], labels[whole])

    seconds = fit(plan, reader, loss, folder)
    _read_every_spelling_alike(reader.encoder, tokenizer)
    reader.encoder.requires_grad_(requires_grad=False).eval()
    return reader.encoder, seconds


class T5(NamedTuple):
    """Hold the encoder, frozen, and its tokenizer."""

    tokenizer: Any
    encoder: Any
    seconds: float
    """How long its training took."""

    @torch.no_grad()
    def encode(self, captions: list[str], length: int = LENGTH) -> Tensor:
        """Return what the denoiser sees of the captions: `[n, length, 128]`."""
        return cast("Tensor", self.encoder(tokens(self.tokenizer, captions, length))[0])


def shared(folder: Path, *, quick: bool = False) -> T5:
    """Train the encoder that the flow models share, or take it from the folder; `quick` proves that the code runs."""
    tokenizer = build_tokenizer()
    return T5(tokenizer, *train(folder, tokenizer, replace(PLAN, steps=QUICK_STEPS) if quick else PLAN))


def published(model: Path) -> T5:
    """Take the encoder, frozen and in single precision, and its tokenizer from a published model of the FLUX layout."""
    encoder = TRANSFORMERS.T5EncoderModel.from_pretrained(model / "text_encoder_2", dtype=torch.float32)
    tokenizer = TRANSFORMERS.T5Tokenizer.from_pretrained(model / "tokenizer_2")
    return T5(tokenizer, encoder.requires_grad_(requires_grad=False).eval(), 0.0)
