"""Give SDXL its two text encoders: the family's own, and a second one that goes a layer further and pools.

SDXL reads the last but one layer of each. The first encoder has two layers, so its share is a reading of the first; the
second has a third layer of its own on top of the family's two, so its share is the family's full reading of the caption.
"""

from __future__ import annotations

from typing import Any, Final, cast

import torch
from torch import Tensor, nn

from reference_models.libraries import TRANSFORMERS
from reference_models.training.text_encoder import WIDTH, tokens

POOLED: Final = 96
"""Width of the pooled caption: another than that of the states, so that nothing can be mistaken for the other."""

WORDS: Final = 2 * WIDTH
_SHARED_LAYERS: Final = 2
_OWN: Final = ("layers.2.", "text_projection")
_PREFIX: Final = "text_model."


def build_second(first: Any) -> Any:
    """Return a `CLIPTextModelWithProjection` that starts with the first encoder's reading in all of its layers."""
    config = TRANSFORMERS.CLIPTextConfig.from_dict(
        {**first.config.to_dict(), "num_hidden_layers": _SHARED_LAYERS + 1, "projection_dim": POOLED}
    )
    second = TRANSFORMERS.CLIPTextModelWithProjection(config)
    shared = {f"{_PREFIX}{name}": value for name, value in first.state_dict().items()}
    second.load_state_dict({**second.state_dict(), **shared})
    last = second.text_model.encoder.layers[_SHARED_LAYERS]
    for silent in (last.self_attn.out_proj, last.mlp.fc2):
        nn.init.zeros_(silent.weight)
        nn.init.zeros_(silent.bias)
    nn.init.orthogonal_(second.text_projection.weight)
    for name, parameter in second.named_parameters():
        parameter.requires_grad_(requires_grad=any(own in name for own in _OWN))
    return second


def encode(
    encoders: tuple[Any, Any], tokenizer: Any, first: list[str], second: list[str], *, skip: bool = False
) -> tuple[Tensor, Tensor]:
    """Return what SDXL's denoiser sees of each encoder's captions: states `[n, 77, 128]` and pooled `[n, 96]`.

    `skip` reads one layer earlier, as "clip skip" does.
    """
    layer = -3 if skip else -2
    with torch.no_grad():
        near = encoders[0](tokens(tokenizer, first), output_hidden_states=True).hidden_states[layer]
    further = encoders[1](tokens(tokenizer, second), output_hidden_states=True)
    return torch.cat([near, further.hidden_states[layer]], dim=-1), cast("Tensor", further.text_embeds)
