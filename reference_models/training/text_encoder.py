"""Train the family's CLIP text encoder: first as a reader that says which attributes a caption names, then frozen."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, cast

import numpy as np
import torch
from torch import Tensor, nn

from reference_models.libraries import TRANSFORMERS
from reference_models.training.loop import Plan, fit
from reference_models.training.reading import ANSWERS, reading_batch, wrongness
from reference_models.training.tokenizer import END, LENGTH

PLAN: Final = Plan("text-encoder", steps=600, rate=2e-3, weight_decay=0.01, seed=2)
BATCH: Final = 96
WIDTH: Final = 64


def build(tokenizer: Any) -> Any:
    """Return a new `CLIPTextModel` (0.15 million parameters)."""
    end = tokenizer.convert_tokens_to_ids(END)
    return TRANSFORMERS.CLIPTextModel(
        TRANSFORMERS.CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=WIDTH,
            intermediate_size=4 * WIDTH,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=LENGTH,
            projection_dim=WIDTH,
            bos_token_id=end - 1,
            eos_token_id=end,
            pad_token_id=end,
        )
    )


def tokens(tokenizer: Any, captions: list[str]) -> Tensor:
    """Return the captions as token ids: `[n, 77]`."""
    found = tokenizer(captions, padding="max_length", max_length=LENGTH, truncation=True, return_tensors="pt")
    return cast("Tensor", found.input_ids)


@torch.no_grad()
def encode(encoder: Any, tokenizer: Any, captions: list[str], *, skip: bool = False) -> Tensor:
    """Return what the denoiser sees of the captions: `[n, 77, 64]`; `skip` leaves out the last layer."""
    ids = tokens(tokenizer, captions)
    if skip:
        return cast("Tensor", encoder.final_layer_norm(encoder(ids, output_hidden_states=True).hidden_states[-2]))
    return cast("Tensor", encoder(ids).last_hidden_state)


class Reader(nn.Module):
    """Say from one state of the encoder which attributes the caption names."""

    def __init__(self, encoder: Any) -> None:
        """Put one linear answer per attribute on top of each of the last two layers."""
        super().__init__()
        self.encoder = encoder
        self.answers = nn.ModuleList([nn.Linear(WIDTH, ANSWERS), nn.Linear(WIDTH, ANSWERS)])

    def forward(self, ids: Tensor, where: Tensor) -> list[Tensor]:
        """Return the scores `[n, 31]` of the last and the last but one layer at the positions `[n]`."""
        out = self.encoder(ids, output_hidden_states=True)
        row = torch.arange(len(ids))
        # The siblings with two encoders read the last but one layer, so it must know the caption too.
        states = (out.last_hidden_state, out.hidden_states[-2])
        return [answer(state[row, where]) for answer, state in zip(self.answers, states, strict=True)]


def train(folder: Path, tokenizer: Any, plan: Plan = PLAN) -> tuple[Any, float]:
    """Train a text encoder with checkpoints in the folder; return it, frozen, and the seconds spent."""
    torch.manual_seed(0)
    reader = Reader(build(tokenizer))

    def loss(rng: np.random.Generator) -> Tensor:
        captions, labels = reading_batch(rng, BATCH)
        ids = tokens(tokenizer, captions)
        ends = torch.eq(ids, reader.encoder.config.eos_token_id).int().argmax(dim=1)
        # Cross-attention looks at every position, so padding must carry the meaning as well as the end token.
        later = ends + torch.from_numpy(rng.integers(0, LENGTH, size=len(ids))) % (LENGTH - ends)
        total = torch.zeros(())
        for where in (ends, later):
            total = total + sum((wrongness(scores, labels) for scores in reader(ids, where)), torch.zeros(()))
        return total

    seconds = fit(plan, reader, loss, folder)
    reader.encoder.requires_grad_(requires_grad=False)
    return reader.encoder, seconds
