"""Diffusion upscaling: an enlarged picture is redrawn tile by tile with image-to-image, resumable inside a tile, without seams."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from jobs.contract import Img2ImgParameters, UpscaleParameters
from jobs.errors import OutOfMemory
from jobs.geometry import Size, tiles, total_steps
from jobs.inputs import Inputs
from models_registry.entries import ModelEntry
from pipelines.engine.engine import Counters
from pipelines.engine.state import State
from pipelines.families.base import Family
from pipelines.pictures import Pixels
from pipelines.resizing import resample
from pipelines.upscaling.drawer import UpscaleDrawer
from tests.contracts.pipelines.upscalers import picture, png, upscale_inputs, upscale_parameters

SOURCE_PICTURE = picture(40, 30)


def redrawing(scheduler: str = "Euler", **changes: Any) -> UpscaleParameters:
    """Return the parameters of twice the size, redrawn in two tiles of 64 that share at least 16; each takes 2 of 5 steps."""
    refine = {
        "prompt": "a red circle",
        "negative_prompt": "blue",
        "steps": 5,
        "strength": 0.4,
        "guidance_scale": 5.0,
        "scheduler": scheduler,
        "tile": 64,
    }
    return upscale_parameters(SOURCE_PICTURE, "lanczos", 2, model="tiny-sd15", refine=refine | changes)


@pytest.fixture
def inputs(family: Family) -> Inputs:
    """Return the source and the checkpoint's entry."""
    return upscale_inputs(SOURCE_PICTURE, family.entry)


def _no_upscaler(entry: ModelEntry) -> Any:
    raise AssertionError(f"{entry.name} was asked for")


@pytest.fixture
def drawer(family: Family) -> Iterator[UpscaleDrawer]:
    """Return a drawer that redraws with the tiny model; no state may stay open."""
    made = UpscaleDrawer(_no_upscaler, Counters(), family)
    yield made
    left = set(made.open_states)
    made.close()
    assert not left


def end(drawer: UpscaleDrawer, state: State) -> Pixels:
    """Step to the end, finish and close."""
    while state.phase == "denoise":
        assert not drawer.step([state]).errors
    [made] = drawer.finish([state])
    state.close()
    return made.array


def redrawn_tile(family: Family, parameters: UpscaleParameters, number: int, tile: Pixels) -> Pixels:
    """Redraw one tile as a job of its own."""
    refine = parameters.refine
    assert refine is not None
    ref = "upload:" + "7" * 64
    state = family.prepare(
        Img2ImgParameters(
            task="img2img",
            model=parameters.model,
            prompt=refine.prompt,
            negative_prompt=refine.negative_prompt,
            width=tile.shape[1],
            height=tile.shape[0],
            steps=refine.steps,
            guidance_scale=refine.guidance_scale,
            scheduler=refine.scheduler,
            seed=parameters.seed + number,
            preview_every=0,
            image=ref,
            strength=refine.strength,
        ),
        0,
        Inputs({family.entry.ref: family.entry}, {ref: png(tile)}),
    )
    while state.phase == "denoise":
        assert not family.step([state]).errors
    [made] = family.finish([state])
    state.close()
    return made.array


@pytest.mark.parametrize("scheduler", ["Euler a", "Heun", "DPM++ 2M Karras"])
def test_redrawn_tiles_are_those_of_image_to_image(
    drawer: UpscaleDrawer, family: Family, inputs: Inputs, scheduler: str
) -> None:
    """Outside the overlap the picture is, bit for bit, each tile's own image-to-image; steps count as foretold."""
    parameters = redrawing(scheduler)
    boxes = tiles(80, 60, 64, 16)
    assert len(boxes) == 2
    assert total_steps(parameters) == 4
    state = drawer.prepare(parameters, 0, inputs)
    assert (state.total, state.phase) == (4, "denoise")
    seen = []
    while state.phase == "denoise":
        assert not drawer.step([state]).errors
        seen.append(state.step)
    assert sorted(set(seen)) == [1, 2, 3, 4] or (scheduler == "Heun" and sorted(set(seen)) == [0, 1, 2, 3, 4])
    assert seen == sorted(seen)
    [made] = drawer.finish([state])
    state.close()
    base = resample(SOURCE_PICTURE, Size(80, 60))
    # 60 is no multiple of 8: the tile is continued downwards, mirrored, and cut again.
    fitted = [
        np.pad(base[box.top : box.bottom, box.left : box.right], [(0, 4), (0, 0), (0, 0)], mode="symmetric")
        for box in boxes
    ]
    drawn = [redrawn_tile(family, parameters, number, tile)[:60] for number, tile in enumerate(fitted)]
    overlap = boxes[0].right - boxes[1].left
    margin = overlap // 8
    assert np.array_equal(made.array[:, : boxes[1].left + margin], drawn[0][:, : boxes[1].left + margin])
    assert np.array_equal(made.array[:, boxes[0].right - margin :], drawn[1][:, overlap - margin :])
    assert not np.array_equal(drawn[0], fitted[0][:60])
    assert not family.open_states


def test_redrawn_tiles_pass_smoothly_into_each_other(drawer: UpscaleDrawer, family: Family, inputs: Inputs) -> None:
    """Where tiles disagree, the picture lies between them and changes from one to the other little by little."""
    parameters = redrawing(strength=1.0)
    base = resample(SOURCE_PICTURE, Size(80, 60))
    made = end(drawer, drawer.prepare(parameters, 0, inputs)).astype(float)
    fitted = [np.pad(base[:, left : left + 64], [(0, 4), (0, 0), (0, 0)], mode="symmetric") for left in (0, 16)]
    first, second = (redrawn_tile(family, parameters, number, tile)[:60] for number, tile in enumerate(fitted))
    shared, one, other = made[:, 16:64], first[:, 16:].astype(float), second[:, :48].astype(float)
    assert np.abs(one - other).mean() > 5
    assert (shared >= np.minimum(one, other) - 0.5).all()
    assert (shared <= np.maximum(one, other) + 0.5).all()
    apart = np.abs(one - other)
    share = np.where(apart > 30, np.abs(shared - one) / np.maximum(apart, 1), np.nan)
    climb = np.nanmean(share, axis=(0, 2))
    assert (np.diff(climb) > -0.03).all()
    assert np.diff(climb).max() < 0.1


def test_interleaved_redrawings_do_not_see_each_other(
    drawer: UpscaleDrawer, family: Family, inputs: Inputs, parameters: Callable[..., Any]
) -> None:
    """Beside a picture of the same model and a cancelled enlargement, the bits stay."""
    wanted = end(drawer, drawer.prepare(redrawing(), 0, inputs))
    beside = family.prepare(parameters(), 0)
    cancelled = drawer.prepare(redrawing(strength=0.9), 0, inputs)
    state = drawer.prepare(redrawing(), 0, inputs)
    for _ in range(3):
        assert not family.step([beside]).errors
        assert not drawer.step([cancelled, state]).errors
    cancelled.close()
    assert np.array_equal(end(drawer, state), wanted)
    beside.close()
    assert not family.open_states


def test_redrawings_resumed_in_a_new_process_equal_the_plain_one(
    drawer: UpscaleDrawer, family: Family, inputs: Inputs, tmp_path: Path
) -> None:
    """Kept inside a tile or between two, another process goes on to the same bits."""
    cases: list[dict[str, Any]] = []
    wanted: list[Pixels] = []
    for scheduler in ("Euler a", "Heun"):
        parameters = redrawing(scheduler)
        state = drawer.prepare(parameters, 0, inputs)
        while state.phase == "denoise":
            assert not drawer.step([state]).errors
            name = f"{len(cases)}.checkpoint"
            (tmp_path / name).write_bytes(state.checkpoint().to_bytes())
            cases.append({"file": name, "parameters": parameters.model_dump(mode="json")})
        wanted += [drawer.finish([state])[0].array] * (len(cases) - len(wanted))
        state.close()
    (tmp_path / "source.png").write_bytes(png(SOURCE_PICTURE))
    order = {
        "entries": [family.entry.model_dump(mode="json")],
        "threads": torch.get_num_threads(),
        "cases": cases,
    }
    (tmp_path / "cases.json").write_text(json.dumps(order))
    subprocess.run([sys.executable, Path(__file__).with_name("upscale_process.py"), tmp_path], check=True, timeout=200)
    assert len(cases) >= 8
    for case, each in zip(cases, wanted, strict=True):
        assert np.array_equal(np.load(tmp_path / f"{case['file']}.npy"), each), case["file"]


def test_failed_call_inside_a_tile_can_be_tried_again(
    drawer: UpscaleDrawer, family: Family, inputs: Inputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Out of memory while encoding, denoising or decoding a tile leaves the enlargement where it was."""
    wanted = end(drawer, drawer.prepare(redrawing(), 0, inputs))
    state = drawer.prepare(redrawing(), 0, inputs)

    def fail(*_args: Any, **_kwargs: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")

    for module, method in ((family.pipe.vae, "encode"), (family.pipe.unet, "forward"), (family.pipe.vae, "decode")):
        with monkeypatch.context() as patch:
            patch.setattr(module, method, fail)
            for _ in range(2):
                report = drawer.step([state])
                if report.errors:
                    break
        assert isinstance(report.errors[state], OutOfMemory), method
        assert state.failure is None
    assert np.array_equal(end(drawer, state), wanted)


def test_previews_show_tiles_as_they_are_redrawn(drawer: UpscaleDrawer, inputs: Inputs) -> None:
    """Before the first tile is done the enlarged picture is shown, then more and more of the redrawn one."""
    state = drawer.prepare(redrawing(), 0, inputs)
    shown = []
    while state.phase == "denoise":
        assert not drawer.step([state]).errors
        preview = state.preview()
        assert preview is not None
        shown.append(preview)
    [made] = drawer.finish([state])
    state.close()
    assert np.array_equal(shown[0], resample(SOURCE_PICTURE, Size(80, 60)))
    assert np.array_equal(shown[1][:, :64], shown[2][:, :64])
    assert not np.array_equal(shown[1], shown[0])
    assert np.array_equal(shown[-1], made.array)
