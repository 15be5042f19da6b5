"""Which jobs show that every model does what it is listed for."""

import base64
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from client.views import AdapterView, ModelView
from models_registry.preprocessors import PREPROCESSORS

Pixels = npt.NDArray[np.uint8]

PROMPT: Final = "a red circle on a blue background"
SEED: Final = 7
#: Share of the side by which outpainting grows the source to the right.
GROWTH: Final = 4


@dataclass(frozen=True)
class Case:
    """One job, and what its picture must be."""

    model: str
    #: What is shown, in the words of people.
    what: str
    request: dict[str, Any] = field(repr=False)
    #: Width and height of the picture, pixels.
    size: tuple[int, int]
    #: The case whose picture this one's must differ from: the same job without the adapter.
    unlike: "Case | None" = field(default=None, repr=False)
    #: A picture and where (height x width) this one must equal it bit for bit.
    kept: "tuple[Pixels, npt.NDArray[np.bool_]] | None" = field(default=None, repr=False)


def source(side: int) -> Pixels:
    """Draw a picture to start from (side x side x 3): a yellow disc on green."""
    across = (np.arange(side) + 0.5) / side - 0.5
    disc = np.hypot(across[:, None], across[None, :]) < 0.3  # noqa: PLR2004 - of the side
    return np.where(disc[..., None], (250, 220, 30), (30, 160, 50)).astype(np.uint8)


def cases(models: Sequence[ModelView], adapters: Sequence[AdapterView], steps: int | None) -> Iterator[Case]:
    """Yield a case per task of each checkpoint, per adapter on a checkpoint that takes it, and per preprocessor without weights."""
    chosen = {} if steps is None else {"steps": steps}
    plain: dict[str, Case] = {}
    for model in models:
        for case in _checkpoint_cases(model, chosen):
            if case.what == "txt2img":
                plain[model.name] = case
            yield case
    for adapter in adapters:
        yield from _adapter_cases(adapter, models, plain)
    side = max((model.native_size for model in models), default=512)
    for name, facts in PREPROCESSORS.items():
        if not facts.needs_weights:
            request = {"task": "preprocess", "image": _encoded(source(side)), "preprocessor": name}
            yield Case(name, "preprocess", request, (side, side))


def _checkpoint_cases(model: ModelView, chosen: dict[str, Any]) -> Iterator[Case]:
    side = model.native_size
    picture, common = source(side), {"model": model.name, "prompt": PROMPT, "seed": SEED, **chosen}
    if model.reads_control:
        # It draws after a control picture, whatever the task.
        common["controls"] = [{"image": _encoded(picture), "preprocessor": "canny"}]
    if "txt2img" in model.tasks:
        yield Case(model.name, "txt2img", {"task": "txt2img", **common}, (side, side))
        larger = {"task": "txt2img", **common, "hires": {"scale": 1.5}}
        grown = round(side * 1.5 / model.size_step) * model.size_step
        yield Case(model.name, "txt2img, hires fix", larger, (grown, grown))
    if "img2img" in model.tasks:
        request = {"task": "img2img", **common, "image": _encoded(picture), "strength": 0.6}
        yield Case(model.name, "img2img", request, (side, side))
    if "inpaint" in model.tasks:
        mask = np.zeros((side, side), np.bool_)
        mask[side // 4 : -side // 4, side // 4 : -side // 4] = True
        request = {"task": "inpaint", **common, "image": _encoded(picture)}
        shown = {**request, "mask": _encoded(mask.astype(np.uint8) * 255)}
        yield Case(model.name, "inpaint", shown, (side, side), kept=(picture, ~mask))
        wide = (side + side // GROWTH, side)
        frame = np.zeros((wide[1], wide[0], 3), np.uint8)
        frame[:, :side] = picture
        old = np.zeros((wide[1], wide[0]), np.bool_)
        old[:, :side] = True
        yield Case(model.name, "outpaint", {**request, "outpaint": {"right": side // GROWTH}}, wide, kept=(frame, old))


def _adapter_cases(adapter: AdapterView, models: Sequence[ModelView], plain: dict[str, Case]) -> Iterator[Case]:
    if adapter.kind == "upscaler":
        scale = adapter.scale or 2
        request = {"task": "upscale", "image": _encoded(source(64)), "upscaler": adapter.name, "scale": scale}
        yield Case(adapter.name, f"upscale by {scale}", request, (64 * scale, 64 * scale))
        return
    # What reads a control picture itself takes no ControlNet.
    plainest = sorted(models, key=lambda model: model.reads_control)
    base = next((model for model in plainest if model.name in plain and _fits(adapter, model)), None)
    if base is None:
        return
    before = plain[base.name]
    added = _addition(adapter, base.native_size)
    if added:
        name = f"{adapter.name} on {base.name}"
        yield Case(name, adapter.kind, {**before.request, **added}, before.size, unlike=before)


def _addition(adapter: AdapterView, side: int) -> dict[str, Any]:
    if adapter.kind == "lora":
        return {"loras": [{"name": adapter.name, "weight": 1.0}]}
    if adapter.kind == "embedding":
        return {"prompt": f"{PROMPT}, {adapter.name}"}
    if adapter.kind == "vae":
        return {"vae": adapter.name}
    if adapter.kind == "controlnet":
        control = {"model": adapter.name, "image": _encoded(source(side)), "preprocessor": "canny"}
        return {"controls": [control]}
    return {}


def _fits(adapter: AdapterView, model: ModelView) -> bool:
    pairs = ((adapter.text_width, model.text_width), (adapter.width, model.width))
    return adapter.family == model.family and all(len({*pair} - {None}) <= 1 for pair in pairs)


def _encoded(picture: npt.NDArray[np.uint8]) -> str:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()
