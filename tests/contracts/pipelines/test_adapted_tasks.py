"""LoRAs, another VAE and skipped layers in every task: each is drawn under its own, whoever draws beside it."""

import hashlib
import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image

from jobs.contract import DiffusionJob, parse_parameters
from jobs.inputs import Inputs
from models_registry.entries import Kind, Layout, ModelEntry
from pipelines.engine.checkpoint import Checkpoint
from pipelines.families.base import Family
from pipelines.loading import load
from tests.contracts.pipelines.conftest import build_tiny_controlnet, entry_for
from tests.contracts.pipelines.running import end, take_step
from tests.lora_layouts import make, write_kohya

#: The library ships no types for these classes.
_DIFFUSERS: Any = diffusers
_SOURCE, _HOLE = (f"upload:{letter * 64}" for letter in "ab")
_CASES: Mapping[str, dict[str, Any]] = {
    "txt2img": {},
    "img2img": {"task": "img2img", "image": _SOURCE, "strength": 0.6},
    "inpaint": {"task": "inpaint", "image": _SOURCE, "mask": _HOLE},
    "one control": {"controls": [{"model": "tiny-control", "image": _SOURCE}]},
    "hires, latent": {"hires": {"scale": 1.5, "strength": 0.6}},
    "hires, lanczos": {"hires": {"scale": 1.5, "strength": 0.6, "upscaler": "lanczos"}},
}
#: What each run has that its neighbours have not.
_ADDED: tuple[dict[str, Any], ...] = (
    {"loras": [{"name": "one", "weight": 0.7}]},
    {"loras": [{"name": "two", "weight": -0.5}], "vae": "other"},
    {"loras": [{"name": "one", "weight": 0.3}, {"name": "two", "weight": 0.4}], "clip_skip": 2},
    {"vae": "other"},
    {},
)
every_case = pytest.mark.parametrize("case", _CASES)


class Models(NamedTuple):
    """The tiny model, and what jobs may refer to."""

    family: Family
    inputs: Inputs

    def prepare(self, parameters: DiffusionJob, **options: Any) -> Any:
        """Start a picture."""
        return self.family.prepare(parameters, 0, self.inputs, **options)


def _entry(kind: Kind, path: Path) -> ModelEntry:
    single = path.is_file()
    whole = path if single else path / "diffusion_pytorch_model.safetensors"
    return ModelEntry(
        name=path.stem,
        kind=kind,
        layout=Layout.SINGLE_FILE if single else Layout.DIFFUSERS,
        family="sd15",
        path=path,
        fingerprint=hashlib.sha256(whole.read_bytes()).hexdigest(),
        components=(),
    )


def _png(pixels: np.ndarray[Any, np.dtype[np.uint8]]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def models(tiny_sd15_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Models]:
    """Load the tiny model, and write two LoRAs, a VAE and a ControlNet."""
    folder = tmp_path_factory.mktemp("added")
    family = load(entry_for(tiny_sd15_folder), "cpu")
    parts = (family.pipe.unet, family.pipe.text_encoder)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        vae = _DIFFUSERS.AutoencoderTiny(
            encoder_block_out_channels=(4, 4),
            decoder_block_out_channels=(4, 4),
            num_encoder_blocks=(1, 1),
            num_decoder_blocks=(1, 1),
        )
    vae.save_pretrained(folder / "other")
    entries = [
        _entry(Kind.LORA, write_kohya(make("lora", *parts, seed=1), folder / "one.safetensors")),
        _entry(Kind.LORA, write_kohya(make("lokr", *parts, seed=2), folder / "two.safetensors")),
        _entry(Kind.VAE, folder / "other"),
        _entry(Kind.CONTROLNET, build_tiny_controlnet(folder / "tiny-control", seed=0)),
    ]
    noise = np.random.default_rng(1).integers(0, 256, (32, 32, 3), np.uint8)
    hole = np.zeros((32, 32), np.uint8)
    hole[8:20, 4:24] = 255
    yield Models(family, Inputs({entry.ref: entry for entry in entries}, {_SOURCE: _png(noise), _HOLE: _png(hole)}))
    left = set(family.open_states)
    family.close()
    assert not left


def _parameters(case: str, added: Mapping[str, Any]) -> DiffusionJob:
    parameters = parse_parameters(
        {
            "task": "txt2img",
            "model": "tiny-sd15",
            "prompt": "a red circle",
            "negative_prompt": "blue",
            "width": 32,
            "height": 32,
            "steps": 4,
            "guidance_scale": 4.0,
            "scheduler": "Euler a",
            "seed": 11,
            "preview_every": 0,
            **_CASES[case],
            **added,
        }
    )
    assert isinstance(parameters, DiffusionJob)
    return parameters


@every_case
def test_neighbours_of_every_kind_equal_solo(models: Models, case: str) -> None:
    """Side by side, step by step, each run has the bits it has alone, and no two the same."""
    wanted = [_parameters(case, added) for added in _ADDED]
    solo = [end(models.family, models.prepare(each)) for each in wanted]
    assert len({each.picture.tobytes() for each in solo}) == len(wanted)
    states = [models.prepare(each) for each in wanted]
    while any(state.phase == "denoise" for state in states):
        take_step(models.family, states)
        states.reverse()
    by_id = {state.id: end(models.family, state) for state in states}
    for state_id, alone in zip(sorted(by_id, key=lambda each: int(each.split(".")[0])), solo, strict=True):
        assert by_id[state_id].same(alone)


@every_case
def test_every_task_resumes_under_its_stack(models: Models, case: str) -> None:
    """A checkpoint from the middle, or the second pass, goes on to the same bits."""
    wanted = _parameters(case, _ADDED[2] | {"vae": "other"})
    solo = end(models.family, models.prepare(wanted))
    state = models.prepare(wanted)
    kept = []
    while state.phase == "denoise":
        take_step(models.family, [state])
        if state.phase == "denoise":
            kept.append(state.checkpoint().to_bytes())
    state.close()
    for data in (kept[0], kept[-1]):
        assert end(models.family, models.prepare(wanted, resume=Checkpoint.from_bytes(data))).same(solo)
