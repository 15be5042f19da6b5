"""What trained adapters show, judged by pixels, on the reference model."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jobs.contract import Txt2ImgParameters
from jobs.inputs import Inputs
from models_registry.detection import detect
from models_registry.entries import Kind, Layout, ModelEntry
from models_registry.reading.bounded_files import Reads
from pipelines.families.base import Family
from pipelines.loading import load
from pipelines.pictures import Pixels
from tests.original_layout import write_original

_FOLDER = Path(__file__).parents[3] / "reference_models"
_SEEDS = range(3)
#: Width of the frame, pixels of 128: one cell of the latents.
_FRAME = 8
#: Height of the ground.
_GROUND = 24
#: How bright red, green and blue look.
_LUMINANCE = np.array([0.299, 0.587, 0.114])


def _need(path: Path) -> Path:
    """Return a trained file; without it skip on a laptop and fail in CI."""
    if not path.exists():
        reason = f"{path.relative_to(_FOLDER.parent)} is not here: make reference-models"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return path


@pytest.fixture(scope="module")
def shapes() -> Iterator[Family]:
    """Return the trained model."""
    family = load(detect(_need(_FOLDER / "shapes-sd15"), Reads()), "cpu")
    yield family
    family.close()


def _entry(kind: Kind, path: Path) -> ModelEntry:
    whole = path if path.is_file() else path / "diffusion_pytorch_model.safetensors"
    return ModelEntry(
        name=path.stem,
        kind=kind,
        layout=Layout.SINGLE_FILE if path.is_file() else Layout.DIFFUSERS,
        family="sd15",
        path=path,
        fingerprint=hashlib.sha256(whole.read_bytes()).hexdigest(),
        components=(),
    )


def _lora(name: str) -> ModelEntry:
    return _entry(Kind.LORA, _need(_FOLDER / "loras" / f"{name}.safetensors"))


def _draw(family: Family, seed: int, *entries: ModelEntry, **changes: Any) -> Pixels:
    parameters = Txt2ImgParameters.model_validate(
        {
            "model": "shapes-sd15",
            "prompt": "a red circle on a blue background",
            "width": 128,
            "height": 128,
            "steps": 10,
            "guidance_scale": 5.0,
            "scheduler": "Euler",
            "seed": seed,
            "preview_every": 0,
            **changes,
        }
    )
    state = family.prepare(parameters, 0, Inputs({entry.ref: entry for entry in entries}))
    try:
        while state.phase == "denoise":
            assert not family.step([state]).errors
        return family.finish([state])[0].array
    finally:
        state.close()


def _blackness(picture: Pixels) -> float:
    """Return how dark the border is: 0 where no channel is, 1 where it is black."""
    inner = np.zeros(picture.shape[:2], bool)
    inner[_FRAME:-_FRAME, _FRAME:-_FRAME] = True
    return float(1 - picture[~inner].max(axis=1).mean() / 255)


def _whiteness(picture: Pixels) -> float:
    """Return how white the lowest part is, the frame's width apart."""
    return float(picture[-_GROUND + 2 : -_FRAME, _FRAME:-_FRAME].min(axis=2).mean() / 255)


def _stack(**weights: float) -> list[dict[str, Any]]:
    return [{"name": name.replace("_", "-"), "weight": weight} for name, weight in weights.items()]


def test_effect_is_ordered_by_weight(shapes: Family) -> None:
    """Nothing at 0, less than whole at a half, a black frame at 1, and at -1 anything but one."""
    frame = _lora("shapes-frame")
    scores = {
        weight: [_blackness(_draw(shapes, seed, frame, loras=_stack(shapes_frame=weight))) for seed in _SEEDS]
        for weight in (-1.0, 0.0, 0.5, 1.0)
    }
    means = {weight: float(np.mean(found)) for weight, found in scores.items()}
    assert means[-1.0] <= means[0.0] + 0.02
    assert means[0.0] < means[0.5] < means[1.0]
    assert means[1.0] - means[0.0] > 0.4
    assert sum(scores[0.0][seed] < scores[0.5][seed] < scores[1.0][seed] for seed in _SEEDS) >= len(_SEEDS) - 1


def test_two_add_up_and_off_restores_the_picture(shapes: Family) -> None:
    """A frame and a ground in one picture, each as alone; taken off, every bit is back."""
    frame, ground = _lora("shapes-frame"), _lora("shapes-ground")
    both = _stack(shapes_frame=1.0, shapes_ground=1.0)
    before = [_draw(shapes, seed) for seed in _SEEDS[:2]]
    pictures = [_draw(shapes, seed, frame, ground, loras=both) for seed in _SEEDS]
    alone = [_draw(shapes, seed, ground, loras=_stack(shapes_ground=1.0)) for seed in _SEEDS]
    assert np.mean([_blackness(each) for each in pictures]) > np.mean([_blackness(each) for each in alone]) + 0.25
    assert np.mean([_whiteness(each) for each in pictures]) > np.mean([_whiteness(each) for each in before]) + 0.4
    for seed, picture in enumerate(before):
        assert np.array_equal(_draw(shapes, seed), picture)


def test_halves_of_two_that_learnt_the_same_are_a_whole(shapes: Family) -> None:
    """Two LoRAs of one style at a half each show more of it than either half."""
    one, other = _lora("shapes-frame"), _lora("shapes-frame-2")
    half = np.mean([_blackness(_draw(shapes, seed, one, loras=_stack(shapes_frame=0.5))) for seed in _SEEDS])
    both = _stack(shapes_frame=0.5, shapes_frame_2=0.5)
    assert np.mean([_blackness(_draw(shapes, seed, one, other, loras=both)) for seed in _SEEDS]) > half + 0.1


def test_word_draws_its_look(shapes: Family) -> None:
    """The embedding's word draws an orange circle on purple where the prompt says nothing else."""
    dusk = _entry(Kind.EMBEDDING, _need(_FOLDER / "embeddings" / "shapes-dusk.safetensors"))
    pictures = [_draw(shapes, seed, dusk, prompt="shapes-dusk", embeddings=["shapes-dusk"]) for seed in _SEEDS]
    borders = np.stack([picture[2, 2] for picture in pictures]).astype(int)
    # Purple: more red and blue than green.
    assert sum(min(border[0], border[2]) > border[1] + 30 for border in borders) >= len(_SEEDS) - 1
    assert not any(
        np.array_equal(picture, _draw(shapes, seed, prompt="shapes-dusk")) for seed, picture in enumerate(pictures)
    )


def test_grey_vae_takes_the_colour_out(shapes: Family) -> None:
    """The picture is the same one without its colours."""
    grey = _entry(Kind.VAE, _need(_FOLDER / "vaes" / "shapes-grey"))
    own, other = (_draw(shapes, 7, grey, **changes) for changes in ({}, {"vae": "shapes-grey"}))

    def colourfulness(picture: Pixels) -> float:
        return float(np.ptp(picture.astype(int), axis=2).mean())

    assert colourfulness(other) < 20
    assert colourfulness(own) > 80
    assert np.corrcoef((own @ _LUMINANCE).ravel(), (other @ _LUMINANCE).ravel())[0, 1] > 0.8


def test_single_file_draws_the_folders_picture(shapes: Family, tmp_path: Path) -> None:
    """The trained model in the original layout: the same bits, with its tokenizer and its heads beside it."""
    path = write_original(shapes.entry.path, tmp_path / "shapes-sd15.safetensors")
    single = load(shapes.entry.model_copy(update={"path": path, "layout": Layout.SINGLE_FILE}), "cpu")
    assert np.array_equal(_draw(single, 7), _draw(shapes, 7))
    single.close()
