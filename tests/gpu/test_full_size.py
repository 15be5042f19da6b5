"""The step engine on a real GPU with a model of the published size and random weights."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline

from benchmarks.gpu.full_size import build
from jobs.contract import Txt2ImgParameters
from jobs.errors import OutOfMemory
from models_registry.detection import detect
from models_registry.reading.bounded_files import Reads
from pipelines.families.base import Family
from pipelines.loading import load

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the model once."""
    return build("sd15", tmp_path_factory.mktemp("models") / "full-sd15")


@pytest.fixture(scope="module")
def family(folder: Path) -> Iterator[Family]:
    """Load the model as a worker does."""
    loaded = load(detect(folder, Reads()), "cuda")
    yield loaded
    loaded.close()


def _parameters(**changes: object) -> Txt2ImgParameters:
    return Txt2ImgParameters(
        model="full-sd15",
        prompt="a red circle",
        width=512,
        height=512,
        steps=8,
        guidance_scale=7.0,
        scheduler="Euler",
        seed=7,
        preview_every=0,
    ).model_copy(update=changes)


def _draw(family: Family, parameters: Txt2ImgParameters) -> "np.ndarray[tuple[int, ...], np.dtype[np.uint8]]":
    state = family.prepare(parameters, 0)
    try:
        while state.phase == "denoise":
            for failure in family.step([state]).errors.values():
                raise failure
        return family.finish([state])[0].array
    finally:
        state.close()


def test_stepped_is_the_plain_call_bit_for_bit(family: Family, folder: Path) -> None:
    """The engine changes nothing in what the GPU computes."""
    pipe = StableDiffusionPipeline.from_pretrained(folder, dtype=family.pipe.unet.dtype, safety_checker=None).to("cuda")
    plain = pipe(
        "a red circle",
        height=512,
        width=512,
        num_inference_steps=8,
        guidance_scale=7.0,
        generator=torch.Generator("cpu").manual_seed(7),
        output_type="np",
    ).images[0]
    np.testing.assert_array_equal(_draw(family, _parameters()), (plain * 255).round().astype(np.uint8))


def test_out_of_memory_fails_one_job_and_returns_the_memory(family: Family) -> None:
    """After a picture that cannot fit, the next one is drawn and nothing is kept."""
    before = torch.cuda.memory_allocated()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((before + 2**29) / total)
    try:
        with pytest.raises(OutOfMemory):
            _draw(family, _parameters(width=2048, height=2048, steps=1))
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    torch.cuda.empty_cache()
    assert torch.cuda.memory_allocated() - before < 64 * 2**20
    _draw(family, _parameters(steps=2))
