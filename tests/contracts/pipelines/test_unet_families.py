"""SD 2.x and SDXL, each variant and task, through the step engine, bit for bit: the numbers are those of plain diffusers calls."""

import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image

from jobs.contract import DiffusionJob, parse_parameters
from jobs.errors import DrawingFailed
from jobs.geometry import steps_per_picture
from jobs.inputs import Inputs
from models_registry.entries import Kind, Layout, ModelEntry
from pipelines.families.base import Family
from pipelines.loading import load
from tests.contracts.pipelines.plain_calls import EDGES, HOLE, PICTURES, SIDE, SOURCE, PlainCalls
from tests.contracts.pipelines.resuming import Interrupted
from tests.contracts.pipelines.running import Result, end, take_step
from tests.tiny.unets import CHECKPOINTS, build_sd2_controlnet, build_sdxl_controlnet

_CONTROLNETS = {"sd2-control": build_sd2_controlnet, "sdxl-control": build_sdxl_controlnet}
_FROM_PICTURE = {"task": "img2img", "image": SOURCE, "strength": 0.6}
_HOLED = {"task": "inpaint", "image": SOURCE, "mask": HOLE, "mask_blur": 0}
_HIRES = {"scale": 1.5, "strength": 0.6}
_REFINER = {"model": "sdxl-refiner", "switch_at": 0.6}


def _control(family: str, **changes: Any) -> dict[str, Any]:
    return {"model": f"{family}-control", "image": EDGES, "scale": 0.9, **changes}


#: What each case asks for beside the common fields; the model is the family and the variant.
_CASES: Mapping[str, dict[str, Any]] = {
    "sd2-base": {},
    "sd2-v": {"scheduler": "DPM++ 2M Karras"},
    "sd2-v img2img": _FROM_PICTURE,
    "sd2-v inpaint": _HOLED,
    "sd2-v control": {"controls": [_control("sd2")]},
    "sd2-v hires": {"hires": _HIRES},
    "sd2-inpaint inpaint": _HOLED,
    "sdxl-base": {"scheduler": "DPM++ 2M Karras"},
    "sdxl-base no negative": {"negative_prompt": ""},
    "sdxl-base img2img": {**_FROM_PICTURE, "scheduler": "Heun"},
    "sdxl-base inpaint": {**_HOLED, "strength": 0.8},
    "sdxl-base control": {"controls": [_control("sdxl", end=0.5), _control("sdxl", image=SOURCE, scale=0.4)]},
    "sdxl-base controlled img2img": {**_FROM_PICTURE, "controls": [_control("sdxl")]},
    "sdxl-base controlled inpaint": {**_HOLED, "controls": [_control("sdxl")]},
    "sdxl-base hires": {"hires": _HIRES},
    # Schedulers that remember nothing: diffusers starts another one for the second checkpoint.
    "sdxl-base refined": {"refiner": _REFINER, "scheduler": "Euler"},
    "sdxl-base refined, unguided": {"refiner": _REFINER, "scheduler": "DDIM", "guidance_scale": 1.0},
    "sdxl-refiner img2img": _FROM_PICTURE,
    "sdxl-inpaint inpaint": _HOLED,
    "sdxl-turbo": {"guidance_scale": 0.0, "steps": 4},
    "sdxl-turbo img2img": {**_FROM_PICTURE, "guidance_scale": 0.0, "steps": 4},
    "sdxl-lightning": {"guidance_scale": 0.0, "scheduler": "Euler"},
    "sdxl-lcm": {"guidance_scale": 0.0, "scheduler": "LCM"},
    "sdxl-lcm-full": {"guidance_scale": 8.0, "scheduler": "LCM"},
    "sdxl-v": {"scheduler": "Euler"},
}
every_case = pytest.mark.parametrize("case", _CASES)


def _job(model: str, **asked: Any) -> DiffusionJob:
    parameters = parse_parameters(
        {
            "task": "txt2img",
            "model": model,
            "prompt": "a red circle",
            "negative_prompt": "blue",
            "width": SIDE,
            "height": SIDE,
            "steps": 5,
            "guidance_scale": 4.0,
            "scheduler": "Euler a",
            "seed": 11,
            "preview_every": 0,
            **asked,
        }
    )
    assert isinstance(parameters, DiffusionJob)
    return parameters


def _parameters(case: str, **changes: Any) -> DiffusionJob:
    return _job(case.partition(" ")[0], **{**_CASES[case], **changes})


def _entry(path: Path, family: str, variant: str, kind: Kind = Kind.CHECKPOINT) -> ModelEntry:
    return ModelEntry(
        name=path.name,
        kind=kind,
        layout=Layout.DIFFUSERS,
        family=family,
        variant=variant,
        path=path,
        fingerprint=path.name.encode().hex().ljust(64, "0"),
        components=(),
        native_size=SIDE,
        latent_factor=8,
        latent_channels=4,
    )


class Models(NamedTuple):
    """The tiny models of this file, loaded, and what a job may refer to."""

    families: Mapping[str, Family]
    inputs: Inputs
    folder: Path

    def prepare(self, parameters: DiffusionJob, **options: Any) -> Any:
        """Start a picture with the family it names."""
        return self.families[parameters.model].prepare(parameters, 0, self.inputs, **options)


def _png(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Models]:
    """Build and load every variant; ControlNets and refiners are loaded when they are named."""
    folder = tmp_path_factory.mktemp("models")
    entries = [
        _entry(build(folder / f"{family}-{variant}"), family, variant)
        for (family, variant), build in CHECKPOINTS.items()
        if family != "sd15"
    ]
    families = {entry.name: load(entry, "cpu") for entry in entries}
    for name, build in _CONTROLNETS.items():
        entries.append(_entry(build(folder / name), name.partition("-")[0], "base", Kind.CONTROLNET))
    pictures = {ref: _png(picture) for ref, picture in PICTURES.items()}
    yield Models(families, Inputs({entry.ref: entry for entry in entries}, pictures), folder)
    assert not [state for family in families.values() for state in family.open_states]
    for family in families.values():
        family.close()


@pytest.fixture(scope="module")
def plain(models: Models) -> dict[str, Result]:
    """Return what diffusers' own pipelines draw of every case over the same files."""
    calls = PlainCalls(models.folder)
    return {case: calls(_parameters(case)) for case in _CASES}


@every_case
def test_stepped_task_equals_the_plain_calls(models: Models, plain: dict[str, Result], case: str) -> None:
    """Alone, in turns with another run over the same weights, and beside one that is cancelled, the bits are the same."""
    wanted = _parameters(case)
    family = models.families[wanted.model]
    neighbour, cancelled = (models.prepare(_parameters(case, seed=seed)) for seed in (3, 4))
    state = models.prepare(wanted)
    while state.phase == "denoise":
        take_step(family, [cancelled, state] if state.step < 2 else [state, neighbour])
        if state.step == 2:
            cancelled.close()
    assert end(family, state).same(plain[case])
    assert not end(family, neighbour).same(plain[case])
    cancelled.close()


@every_case
def test_task_counts_its_steps(models: Models, plain: dict[str, Result], case: str) -> None:
    """Solo, steps rise by one to the total that the job was told, each has a preview, and the picture is finite and not flat."""
    wanted = _parameters(case)
    family = models.families[wanted.model]
    state = models.prepare(wanted)
    total, seen = steps_per_picture(wanted), [0]
    assert state.total == total
    while state.phase == "denoise":
        take_step(family, [state])
        assert state.preview() is not None
        if state.step != seen[-1]:
            seen.append(state.step)
    assert seen == list(range(total + 1))
    found = end(family, state)
    assert found.same(plain[case])
    assert np.isfinite(found.latents).all()
    assert found.picture.std() > 1


@pytest.fixture(scope="module")
def resumed_elsewhere(models: Models, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Result]]:
    """Interrupt every case after its first and its last step; return what a new process makes of the checkpoints."""
    interrupted = Interrupted(tmp_path_factory.mktemp("checkpoints"))
    for case in _CASES:
        wanted = _parameters(case)
        state = models.prepare(wanted)
        while state.phase == "denoise":
            take_step(models.families[wanted.model], [state])
            if state.step in {1, state.total}:
                interrupted.keep(case, wanted, state)
        state.close()
    return interrupted.resume(models.inputs, seconds=240)


@every_case
def test_task_resumed_in_a_new_process_equals_the_plain_calls(
    plain: dict[str, Result], resumed_elsewhere: dict[str, list[Result]], case: str
) -> None:
    """A checkpoint leads another process to the same bits."""
    assert len(resumed_elsewhere[case]) >= 2
    assert [result.same(plain[case]) for result in resumed_elsewhere[case]].count(False) == 0


@pytest.mark.parametrize(
    ("model", "asked", "said"),
    [
        ("sdxl-refiner", {}, "refiner"),
        ("sdxl-refiner", _HOLED, "refiner"),
        ("sdxl-inpaint", _FROM_PICTURE, "inpainting"),
        ("sd2-inpaint", {}, "inpainting"),
    ],
)
def test_task_that_a_variant_does_not_do_is_told(models: Models, model: str, asked: dict[str, Any], said: str) -> None:
    """What was never trained from noise, or never without a mask, says so."""
    with pytest.raises(DrawingFailed, match=said):
        models.prepare(_job(model, **asked))


def test_refiner_draws_the_end_alone(models: Models) -> None:
    """Up to the switch nothing is different, with a control as well; behind it everything is; the shelf holds the refiner once."""

    def latents(**changes: Any) -> list[bytes]:
        state = models.prepare(_parameters("sdxl-base", scheduler="Euler", controls=[_control("sdxl")], **changes))
        seen = []
        while state.phase == "denoise":
            take_step(models.families["sdxl-base"], [state])
            seen.append(state._body.latents.numpy().tobytes())  # noqa: SLF001 - the picture's 8 bits would hide a difference
        state.close()
        return seen

    alone, refined = latents(), latents(refiner=_REFINER)
    assert [one == other for one, other in zip(alone, refined, strict=True)] == [True, True, True, False, False]
    held = [each for each in models.families["sdxl-base"].shelf.held if each.entry.kind is Kind.CHECKPOINT]
    assert [each.entry.name for each in held] == ["sdxl-refiner"]
    assert held[0].bytes > 100_000
