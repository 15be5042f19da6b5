"""Train `shapes-sdxl`: text to image in the layout of SDXL, from the weights of `shapes-sd15` where they fit."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
import torch
from torch import Tensor, nn

from reference_models.libraries import DIFFUSERS, TRANSFORMERS
from reference_models.training import sd2, sdxl_text, sides
from reference_models.training.diffusion import epsilon_loss, scheduler, signal_left
from reference_models.training.family import QUICK_STEPS, Family, published_unet
from reference_models.training.loop import Plan, fit
from reference_models.training.publish import save_pipeline
from reference_models.training.text_encoder import WIDTH, tokens

NAME: Final = "shapes-sdxl"
PUBLISHED: Final = Path(__file__).parents[1] / NAME
PLAN: Final = Plan(NAME, steps=500, rate=8e-4, average=0.99, weight_decay=0.01, seed=71, save_every=100)
BATCH: Final = 24
POSTERIOR_NOISE: Final = 0.05
TRANSFORMERS_PER_BLOCK: Final = (1, 1, 2)
TIME_WIDTH: Final = 16
"""Width in which each of the six sizes is told."""

RECOMMENDED: Final[dict[str, Any]] = {"steps": 20, "guidance_scale": 5.0, "scheduler": "Euler"}
SKIPPED: Final = 0.1
"""Share of batches whose captions are read one layer earlier."""

_HEARD: Final = 0.2
_ONE_ALONE: Final = 0.2
"""Share of the captions that only one of the encoders gets, so that neither is left to the other."""

_NOTHING: Final = 0.5
"""Share of the empty captions that are all zeros, as diffusers hands over where no negative prompt is given."""

_SOME_CAPTIONS: Final = ("a red circle on a blue background", "small green star at the top", "")


class Drawer(nn.Module):
    """Hold what is trained together: the denoiser, and the second text encoder's last layer and projection."""

    def __init__(self, unet: Any, second: Any) -> None:
        """Put both under one roof."""
        super().__init__()
        self.unet = unet
        self.second = second


def build_unet(family: Family) -> Any:
    """Return a `UNet2DConditionModel` of SDXL's layout that begins by drawing like `shapes-sd15`."""
    base = published_unet()
    unet = DIFFUSERS.UNet2DConditionModel.from_config(
        {
            **base.config,
            "use_linear_projection": True,
            "cross_attention_dim": sdxl_text.WORDS,
            "transformer_layers_per_block": list(TRANSFORMERS_PER_BLOCK),
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": TIME_WIDTH,
            "projection_class_embeddings_input_dim": sdxl_text.POOLED + 6 * TIME_WIDTH,
        }
    )
    weights = sd2.linear(base.state_dict())
    _read_states(weights, family)
    unet.load_state_dict({**unet.state_dict(), **weights})
    _silence(unet)
    return unet


def published_drawer() -> Drawer:
    """Return the published denoiser and second text encoder, frozen and in single precision."""
    second = TRANSFORMERS.CLIPTextModelWithProjection.from_pretrained(PUBLISHED / "text_encoder_2", dtype=torch.float32)
    return Drawer(published_unet(PUBLISHED), second.requires_grad_(requires_grad=False).eval())


def _read_states(weights: dict[str, Tensor], family: Family) -> None:
    """Let attention to the caption read plain states in the second half of SDXL's, not normed ones of one encoder.

    The norm is folded into the layers that follow it, but for the spread of each state, which is much the same for all.
    """
    encoder = family.text_encoder
    norm = encoder.final_layer_norm
    with torch.no_grad():
        ids = tokens(family.tokenizer, list(_SOME_CAPTIONS))
        spread = encoder(ids, output_hidden_states=True).hidden_states[-1].std(dim=-1).mean()
    centre = torch.eye(WIDTH) - 1 / WIDTH
    for name in [name for name in weights if name.endswith(("attn2.to_k.weight", "attn2.to_v.weight"))]:
        old = weights[name]
        weights[name] = torch.cat([torch.zeros_like(old), old * norm.weight / spread @ centre], dim=1)
        if name.endswith("to_v.weight"):
            out = name.replace("to_v.weight", "to_out.0")
            # The shares of attention add up to one, so what the norm adds to every state arrives whole.
            weights[f"{out}.bias"] = weights[f"{out}.bias"] + weights[f"{out}.weight"] @ (old @ norm.bias)


def _silence(unet: Any) -> None:
    """Let what `shapes-sd15` does not have count for nothing at first."""
    # Of the pooled caption, strong features that count for nothing yet: weak ones would take thousands of steps to be heard.
    nn.init.normal_(unet.add_embedding.linear_1.weight, std=_HEARD)
    silent = [unet.add_embedding.linear_2]
    for name, module in unet.named_modules():
        if name.endswith("transformer_blocks.1"):
            silent += [module.attn1.to_out[0], module.attn2.to_out[0], module.ff.net[2]]
    for layer in silent:
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)


def conditions(family: Family, further: Any, captions: list[str], rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Return the states and the pooled vector of the captions, now and then a layer earlier, or zeros if empty."""
    readers = (family.text_encoder, further)
    skip = bool(rng.random() < SKIPPED)
    alone = rng.random(len(captions))
    first = ["" if luck < _ONE_ALONE / 2 else caption for caption, luck in zip(captions, alone, strict=True)]
    second = ["" if luck > 1 - _ONE_ALONE / 2 else caption for caption, luck in zip(captions, alone, strict=True)]
    words, pooled = sdxl_text.encode(readers, family.tokenizer, first, second, skip=skip)
    kept = torch.tensor([bool(caption) or rng.random() >= _NOTHING for caption in captions])[:, None]
    return words * kept[..., None], pooled * kept


def save(family: Family, drawer: Any, target: Path, schedule: Any = None, recommended: Any = None) -> None:
    """Write the whole pipeline at half precision in place of the target folder."""
    # Copies, because the originals go on learning in single precision.
    pipeline = DIFFUSERS.StableDiffusionXLPipeline(
        vae=deepcopy(family.vae),
        text_encoder=deepcopy(family.text_encoder),
        text_encoder_2=deepcopy(drawer.second),
        tokenizer=family.tokenizer,
        tokenizer_2=family.tokenizer,
        unet=deepcopy(drawer.unet),
        scheduler=schedule or scheduler(),
        add_watermarker=False,
    )
    save_pipeline(pipeline, target, recommended or RECOMMENDED)


def train(family: Family, folder: Path, target: Path, *, quick: bool = False) -> float:
    """Train with checkpoints in the folder, saving the model to the target as it grows; return the seconds spent."""
    torch.manual_seed(PLAN.seed)
    drawer, left = Drawer(build_unet(family), sdxl_text.build_second(family.text_encoder)), signal_left()
    pictures = sides.Pictures(family.latents(), sides.others(family))

    def loss(rng: np.random.Generator) -> Tensor:
        shown = pictures.pick(rng, BATCH)
        words, pooled = conditions(family, drawer.second, family.captions(shown.scenes, rng), rng)
        latents = shown.latents + POSTERIOR_NOISE * torch.randn_like(shown.latents)
        added = {"text_embeds": pooled, "time_ids": shown.ids}

        def predict(noisy: Tensor, times: Tensor) -> Tensor:
            return cast("Tensor", drawer.unet(noisy, times, words, added_cond_kwargs=added).sample)

        return epsilon_loss(predict, latents, left)

    plan = replace(PLAN, steps=QUICK_STEPS) if quick else PLAN
    learning = [parameter for parameter in drawer.parameters() if parameter.requires_grad]
    seconds = fit(
        plan,
        drawer,
        loss,
        folder,
        trained=learning,
        on_save=lambda average, _step: save(family, average, target),
    )
    # Once more, because a run that finds its training finished has saved nothing yet.
    save(family, drawer, target)
    return seconds
