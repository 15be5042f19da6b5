"""What the tests of LoRAs share: files as the registry describes them, stacks as requests write them, pictures with their latents."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from jobs.contract import Txt2ImgParameters
from jobs.errors import ModelDamaged
from jobs.inputs import Inputs
from models_registry.entries import Kind, Layout, ModelEntry
from pipelines.engine.state import State
from pipelines.families.base import Family
from pipelines.loaders import LOADERS
from pipelines.shelf import Shelf


def entry_of(path: Path) -> ModelEntry:
    """Describe a LoRA as the registry would."""
    digest = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "0" * 64
    return ModelEntry(
        name=path.stem,
        kind=Kind.LORA,
        layout=Layout.SINGLE_FILE,
        family="sd15",
        path=path,
        fingerprint=digest,
        components=(),
    )


def inputs_of(*paths: Path) -> Inputs:
    """Hand LoRAs over under the names of their files."""
    entries = [entry_of(path) for path in paths]
    return Inputs({entry.ref: entry for entry in entries})


def with_own_shelf(family: Family) -> Family:
    """Give a family an empty shelf in place of the one it shares."""
    family.shelf = Shelf(LOADERS, torch.device("cpu"), torch.float32, family.counters)
    family.adapters = type(family.adapters)(family.pipe, family.shelf, family.hosted)
    return family


def finish(family: Family, state: State) -> bytes:
    """Step to the end, and return latents and picture."""
    while state.phase == "denoise":
        assert not family.step([state]).errors
    latents = state._body.latents  # noqa: SLF001 - the picture's 8 bits would hide a difference
    assert latents is not None
    kept = latents.float().numpy().tobytes()
    (picture,) = family.finish([state])
    state.close()
    return kept + picture.array.tobytes()


def draw(family: Family, parameters: Txt2ImgParameters, inputs: Inputs | None = None) -> bytes:
    """Draw one picture."""
    return finish(family, family.prepare(parameters, 0, inputs or Inputs()))


def loras(*weighted: tuple[Path, float] | tuple[Path, float, float]) -> list[dict[str, Any]]:
    """Write a stack as a request does."""
    names = ("name", "weight", "text_encoder_weight")
    return [dict(zip(names, (path.stem, *weights), strict=False)) for path, *weights in weighted]


def two_steps(guidance_scale: float) -> Callable[..., Txt2ImgParameters]:
    """Return a maker of jobs of two steps; what it is called with are their other fields."""
    common = {"model": "tiny", "prompt": "a red circle", "width": 64, "height": 48, "steps": 2, "scheduler": "Euler"}
    own = {"guidance_scale": guidance_scale, "seed": 7, "preview_every": 0}
    return lambda **changes: Txt2ImgParameters.model_validate({**common, **own, **changes})


def all_draw_alike(family: Family, parameters: Callable[..., Txt2ImgParameters], paths: Sequence[Path]) -> None:
    """Hold that each file changes the picture, and all of them by the same bits."""
    pictures = {draw(family, parameters(loras=loras((path, 0.5))), inputs_of(path)) for path in paths}
    assert len(pictures) == 1
    assert draw(family, parameters()) not in pictures


def refuses_layer(
    family: Family, parameters: Callable[..., Txt2ImgParameters], path: Path, layer: str, width: int
) -> None:
    """Hold that a file which trains one square layer that the model does not have is refused."""
    save_file({f"{layer}.lora_A.weight": torch.ones(2, width), f"{layer}.lora_B.weight": torch.ones(width, 2)}, path)
    with pytest.raises(ModelDamaged, match="made for another model"):
        family.prepare(parameters(loras=loras((path, 1.0))), 0, inputs_of(path))
