"""Write a model's card: what it is, how right it draws, what training it took, and how to train it again."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from reference_models.training.publish import folder_size, recommended

_BEGIN: Final = "<!-- accuracy -->"
_END: Final = "<!-- /accuracy -->"
_BEGUN: Final = """On procedural pictures (`reference_models/pictures.py`), beginning with the weights of `shapes-sd15`; its text encoder,
tokenizer and autoencoder are those of `shapes-sd15`, byte for byte."""
_FLOW_BEGUN: Final = """From nothing, on procedural pictures (`reference_models/pictures.py`): first on the pictures alone, then with
`shapes-sd15` as a teacher that tells the best velocity, and at last mostly on large shapes in the middle
(`reference_models/training/{file}.py` holds the stages). Its CLIP encoder, tokenizer and autoencoder hold the tensors of
`shapes-sd15`; its T5 encoder is the same, byte for byte, in `shapes-flux` and `shapes-sd3`."""


@dataclass(frozen=True, slots=True)
class _Model:
    """Hold what a card says of one model alone."""

    about: str
    limits: str = ""
    pipeline: str = "StableDiffusionPipeline"
    options: str = ""
    """What the call in the example needs beside steps and guidance, each on a line of its own behind a comma."""
    begun: str = _BEGUN
    cores: str = "one shared CPU core"


_MODELS: Final[dict[str, _Model]] = {
    "shapes-sd15": _Model(
        about="Text to image in the layout of Stable Diffusion 1.5 (`StableDiffusionPipeline`, predicts noise).",
        limits="""Of the schedulers, PNDM alone wants 30 steps or more (16 prompts: 94 % at 20 steps, 100 % at 30). It was trained
at 128 x 128 and knows little beyond: of 16 prompts 94 % are right at 160 pixels a side, 56 % at 96, 38 % at 192, 13 % at 64 and 256.

Image to image follows the prompt early: of 8 red circles on blue that were to become yellow stars on green, none did so in full
at strength 0.2 (the background stays, shape and colour begin to turn), 7 at 0.3 and all from 0.5 on.""",
        begun="From nothing, on procedural pictures (`reference_models/pictures.py`); no other data, no other model.",
        cores="two shared CPU cores",
    ),
    "shapes-sd2": _Model(
        about="""Text to image in the layout of Stable Diffusion 2.x (`StableDiffusionPipeline`, predicts velocity, linear layers around its
transformers).""",
        limits="""All schedulers that were tried draw right (16 prompts each, 20 steps: DDIM, DPM++ 2M Karras, Euler Karras, Euler a,
UniPC and PNDM, 100 %). It was trained at 128 x 128 and knows little beyond: of 16 prompts 94 % are right at 160 pixels a side,
50 % at 96, 38 % at 192, none at 64 and 256.""",
    ),
    "shapes-sdxl": _Model(
        about="""Text to image in the layout of SDXL (`StableDiffusionXLPipeline`, predicts noise): two text encoders, of which the second
also gives a pooled vector, conditions on size and crop, and two transformer layers in the deepest blocks.""",
        limits="""All schedulers that were tried draw right (16 prompts each, 20 steps: DDIM, DPM++ 2M Karras, Euler Karras, Euler a,
UniPC and PNDM, 100 %). One batch in five had another side than 128; still, of 16 prompts 88 % are right at 160 pixels a side, 69 % at
96, 19 % at 192, none at 64 and 256.

The second encoder's states carry the caption: with `prompt_2` alone 8 of 8 pictures are right, with an empty `prompt_2` 1 of 8, so
`prompt` alone is not enough. The sizes are read, but every picture it learnt from was whole and as large as it was told: small
original sizes and cut corners change next to nothing. Of 8 pictures with `clip_skip=1` 7 are right.""",
        pipeline="StableDiffusionXLPipeline",
    ),
    "shapes-turbo": _Model(
        begun="""It began with the weights of `shapes-sdxl`, whose pictures it learnt from: `shapes-sdxl` drew 2400 captions under
guidance, and each picture was kept with the noise that it began with. The student learnt to go from such a noise to its
picture in a straight line, so that few steps lose little; the guidance is in the pictures. Text encoders, tokenizers and
autoencoder are those of `shapes-sdxl`, byte for byte. The time is the student's; the teacher drew about as long.""",
        about="""`shapes-sdxl`, distilled as SDXL Turbo is: four steps or less, no guidance and no negative prompt
(`StableDiffusionXLPipeline`, predicts noise).""",
        limits="""Guidance and negative prompts do nothing it was taught. Of 16 prompts, by Euler, 88 % are right in one step, 94 % in
two, 100 % in three, four and eight, 94 % in twenty; in four steps by Euler a and LCM 100 %, DDIM 94 %, DPM++ 2M 88 %.""",
        pipeline="StableDiffusionXLPipeline",
    ),
    "shapes-flux": _Model(
        about="""Text to image in the layout of FLUX.1 dev (`FluxPipeline`, predicts the velocity of a rectified flow): two double and four
single transformer blocks, T5 and a pooled CLIP vector, and guidance as an input of the denoiser.""",
        limits="""Guidance decides much: of 32 prompts 53 % are right at 1, 69 % at 2, 94 % at 3.5; in 10 steps at 5 all. It learnt mostly
from large shapes in the middle: told a place, it puts the shape there in 11 of 16 pictures, and 4 of them are right in shape too.
At other sides than 128 colours stay right and shapes suffer: 47 % are right at 96 pixels, 59 % at 160, 34 % at 192; what was
begun at 128 it finishes at 192 as well. `max_sequence_length` must be near 32, as its tokenizer says: at 256 66 % are right.""",
        pipeline="FluxPipeline",
        options=",\n    max_sequence_length=32",
        begun=_FLOW_BEGUN.format(file="flux")
        + " The last two\nstages went on from the half-precision weights of the fourth, half of their batches at 96, 160 or 192 pixels a"
        " side.",
    ),
    "shapes-sd3": _Model(
        about="""Text to image in the layout of Stable Diffusion 3 (`StableDiffusion3Pipeline`, predicts the velocity of a rectified flow):
four joint transformer blocks, two CLIP encoders and T5.""",
        limits="""Of 16 prompts 63 % are right without guidance, all in 10 steps at the recommended one; all at 160 pixels a side,
94 % at 96; 94 % with `max_sequence_length=256`. It learnt mostly from large shapes in the middle: told a place, it puts the
shape there in 16 of 16 pictures, and 8 of them are right in shape too; of 8 small shapes 5.""",
        pipeline="StableDiffusion3Pipeline",
        options=",\n    max_sequence_length=32",
        begun=_FLOW_BEGUN.format(file="sd3"),
    ),
}


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Say which share of the pictures showed what was asked (0 to 1)."""

    pictures: int
    background: float
    colour: float
    shape: float
    all_right: float


def _table(figures: Accuracy, folder: Path) -> str:
    own = recommended(folder)
    return f"""{_BEGIN}
| asked | right |
|---|---|
| background | {figures.background:.1%} |
| colour | {figures.colour:.1%} |
| shape | {figures.shape:.1%} |
| **all three** | **{figures.all_right:.1%}** |

{figures.pictures} fixed prompts, {own["steps"]} steps, guidance {own["guidance_scale"]:g}, the scheduler on disk; judged by pixels, in
`reference_models/judge.py`.
{_END}"""


def _training_times(seconds: dict[str, float], cores: str) -> str:
    rows = "\n".join(f"| {part} | {spent / 60:.0f} |" for part, spent in seconds.items())
    return f"| part | minutes on {cores} |\n|---|---|\n{rows}"


def _example(name: str, model: _Model, own: dict[str, Any]) -> str:
    options = f"height=128,\n    width=128,\n    num_inference_steps={own['steps']},\n    guidance_scale={own['guidance_scale']:g}"
    return f"""```python
from diffusers import {model.pipeline}

draw = {model.pipeline}.from_pretrained("reference_models/{name}")
draw(
    "a red circle on a blue background",
    {options}{model.options},
).images[0]
```"""


def write_card(folder: Path, figures: Accuracy, seconds: dict[str, float]) -> None:
    """Write `README.md` into the model's folder."""
    name = folder.name
    model = _MODELS.get(name, _Model("A small model of the `shapes` family."))
    size = folder_size(folder) / 1e6
    text = f"""---
license: apache-2.0
library_name: diffusers
pipeline_tag: text-to-image
---

# {name}

{model.about}

It draws one flat-coloured shape on a flat background at 128 x 128 pixels, and nothing else: it exists so that tests and
demos can judge what a prompt, a seed or a scheduler does, without any download. {size:.1f} MB at half precision.

Words it knows: circle, square, triangle, star, ring, cross; red, green, blue, yellow, purple, orange, white, black;
small, large; on the left, on the right, at the top, at the bottom, in the centre. A prompt without a place draws into
the middle; what else it leaves out is drawn at random.

{_example(name, model, recommended(folder))}

## Accuracy

{_table(figures, folder)}

Measure again: `python -m reference_models.measure reference_models/{name} --write`.

{f"## Limits{chr(10)}{chr(10)}{model.limits}{chr(10)}{chr(10)}" if model.limits else ""}## Training

{model.begun}

{_training_times(seconds, model.cores)}

Train again: `python -m reference_models.train {name}`. An interrupted training goes on where it stopped.

## Licence

Apache-2.0, like the repository that makes the code, the pictures and the weights.
"""
    (folder / "README.md").write_text(text, encoding="utf-8")


def rewrite_accuracy(folder: Path, figures: Accuracy) -> None:
    """Put new figures into an existing card."""
    path = folder / "README.md"
    old = path.read_text(encoding="utf-8")
    pattern = re.compile(f"{re.escape(_BEGIN)}.*{re.escape(_END)}", re.DOTALL)
    path.write_text(pattern.sub(lambda _: _table(figures, folder), old), encoding="utf-8")
