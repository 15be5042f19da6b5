"""Every task through the step engine, bit for bit: however a run is stepped, its numbers are those of plain diffusers calls."""

import io
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image

from jobs.contract import DiffusionJob, parse_parameters
from jobs.errors import DrawingFailed, JobFailure, ModelMissing
from jobs.geometry import Size, steps_per_picture
from jobs.inputs import Inputs
from models_registry.entries import Kind, ModelEntry
from pipelines.engine.checkpoint import Checkpoint, CheckpointMismatchError
from pipelines.families.base import Family
from pipelines.loading import load
from pipelines.preprocessing.preprocess import preprocess
from pipelines.resizing import resample
from pipelines.shelf import Shelf
from pipelines.tasks.setting import Setting
from tests.contracts.pipelines.conftest import build_tiny_controlnet, build_tiny_sd15, entry_for
from tests.contracts.pipelines.resuming import Interrupted
from tests.contracts.pipelines.running import Result, end, plain_scheduler, take_step

_DIFFUSERS: Any = diffusers
_PIPES = {
    "txt2img": "StableDiffusionPipeline",
    "img2img": "StableDiffusionImg2ImgPipeline",
    "inpaint": "StableDiffusionInpaintPipeline",
    "txt2img controlled": "StableDiffusionControlNetPipeline",
    "img2img controlled": "StableDiffusionControlNetImg2ImgPipeline",
    "inpaint controlled": "StableDiffusionControlNetInpaintPipeline",
}
_SIDE = 32
#: The mask of every case: sides on the borders of latent cells, so that plain diffusers sees the same one.
_MASKED = np.s_[8:20, 4:24]


def _noise(seed: int, side: int = _SIDE) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8))


def _mask() -> Image.Image:
    mask = np.zeros((_SIDE, _SIDE), np.uint8)
    mask[_MASKED] = 255
    return Image.fromarray(mask)


_PICTURES = {
    f"upload:{name}": picture for name, picture in {"a" * 64: _noise(1), "b" * 64: _noise(2), "c" * 64: _mask()}.items()
}
_SOURCE, _EDGES, _HOLE = _PICTURES


def _png(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def _control(place: int, **changes: Any) -> dict[str, Any]:
    return {"model": f"tiny-control-{place}", "image": _EDGES, "scale": 0.9, **changes}


_ONE = [_control(0)]
_TWO = [_control(0, end=0.5), _control(1, image=_SOURCE, scale=0.4, start=0.25)]
#: What each case asks for beside the common fields.
_CASES: Mapping[str, dict[str, Any]] = {
    "img2img": {"task": "img2img", "image": _SOURCE, "strength": 0.6},
    "img2img, one step": {"task": "img2img", "image": _SOURCE, "strength": 0.05},
    "inpaint": {"task": "inpaint", "image": _SOURCE, "mask": _HOLE, "mask_blur": 0},
    "inpaint, half": {"task": "inpaint", "image": _SOURCE, "mask": _HOLE, "mask_blur": 0, "strength": 0.6},
    "inpaint, 9 channels": {
        "task": "inpaint",
        "model": "tiny-inpaint",
        "image": _SOURCE,
        "mask": _HOLE,
        "mask_blur": 0,
    },
    "one control": {"task": "txt2img", "controls": _ONE},
    "two controls": {"task": "txt2img", "controls": _TWO},
    "controlled img2img": {"task": "img2img", "image": _SOURCE, "strength": 0.6, "controls": _ONE},
    "controlled img2img, two": {"task": "img2img", "image": _SOURCE, "strength": 0.9, "controls": _TWO},
    "controlled inpaint": {"task": "inpaint", "image": _SOURCE, "mask": _HOLE, "mask_blur": 0, "controls": _TWO},
    "controlled inpaint, 9 channels": {
        "task": "inpaint",
        "model": "tiny-inpaint",
        "image": _SOURCE,
        "mask": _HOLE,
        "mask_blur": 0,
        "controls": _ONE,
    },
    "hires, latent": {"task": "txt2img", "hires": {"scale": 1.5, "steps": 4, "strength": 0.6}},
    "hires, lanczos": {"task": "txt2img", "hires": {"scale": 2.0, "strength": 0.5, "upscaler": "Lanczos"}},
    "hires, controlled": {"task": "txt2img", "hires": {"scale": 2.0, "strength": 0.5}, "controls": _ONE},
}
#: One that draws noise at each step, one with a history, one that calls the model twice a step.
_SCHEDULERS = ("Euler a", "DPM++ 2M Karras", "Heun")
every_case = pytest.mark.parametrize("case", _CASES)
every_scheduler = pytest.mark.parametrize("scheduler", _SCHEDULERS)


def _parameters(case: str, scheduler: str, **changes: Any) -> DiffusionJob:
    parameters = parse_parameters(
        {
            "model": "tiny-sd15",
            "prompt": "a red circle",
            "negative_prompt": "blue",
            "width": _SIDE,
            "height": _SIDE,
            "steps": 5,
            "guidance_scale": 4.0,
            "scheduler": scheduler,
            "seed": 11,
            "preview_every": 0,
            **_CASES[case],
            **changes,
        }
    )
    assert isinstance(parameters, DiffusionJob)
    return parameters


class Models(NamedTuple):
    """The tiny models of this file, loaded, and what a job may refer to."""

    families: Mapping[str, Family]
    inputs: Inputs
    folder: Path

    def prepare(self, parameters: DiffusionJob, **options: Any) -> Any:
        """Start a picture with the family it names."""
        return self.families[parameters.model].prepare(parameters, 0, self.inputs, **options)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Models]:
    """Build and load two checkpoints; the ControlNets are loaded when they are named."""
    folder = tmp_path_factory.mktemp("models")
    checkpoints = [build_tiny_sd15(folder / "tiny-sd15"), build_tiny_sd15(folder / "tiny-inpaint", inpaint=True)]
    entries: list[ModelEntry] = [entry_for(path) for path in checkpoints]
    for place in (0, 1):
        path = build_tiny_controlnet(folder / f"tiny-control-{place}", seed=place)
        entries.append(entry_for(path, Kind.CONTROLNET).model_copy(update={"fingerprint": str(place) * 64}))
    families = {entry.name: load(entry, "cpu") for entry in entries if entry.kind is Kind.CHECKPOINT}
    pictures = {ref: _png(picture) for ref, picture in _PICTURES.items()}
    yield Models(families, Inputs({entry.ref: entry for entry in entries}, pictures), folder)
    assert not [state for family in families.values() for state in family.open_states]
    for family in families.values():
        family.close()


class Plain:
    """Draw with diffusers alone, over weights of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._pipes: dict[tuple[str, str, int], Any] = {}

    def __call__(self, wanted: DiffusionJob) -> Result:
        """Draw what the parameters say."""
        generator = torch.Generator("cpu").manual_seed(wanted.seed)
        match wanted.task:
            case "img2img":
                return self._call("img2img", wanted, generator, image=_PICTURES[_SOURCE], strength=wanted.strength)
            case "inpaint":
                drawn = self._call(
                    "inpaint",
                    wanted,
                    generator,
                    image=_PICTURES[_SOURCE],
                    mask_image=_PICTURES[_HOLE],
                    strength=wanted.strength,
                    width=wanted.width,
                    height=wanted.height,
                )
                laid = np.asarray(_PICTURES[_SOURCE]).copy()
                laid[_MASKED] = drawn.picture[_MASKED]
                return Result(drawn.latents, laid)
            case _:
                return self._txt2img(wanted, generator)

    def _txt2img(self, wanted: Any, generator: torch.Generator) -> Result:
        first = self._call("txt2img", wanted, generator, width=wanted.width, height=wanted.height)
        if wanted.hires is None:
            return first
        side = int(_SIDE * wanted.hires.scale)
        if wanted.hires.upscaler == "latent":
            latents = torch.nn.functional.interpolate(torch.from_numpy(first.latents), side // 2, mode="bicubic")
            image: Any = latents
        else:
            image = Image.fromarray(first.picture).resize((side, side), Image.Resampling.LANCZOS)
        changed = wanted.model_copy(update={"steps": wanted.hires.steps or wanted.steps})
        return self._call("img2img", changed, generator, side=side, image=image, strength=wanted.hires.strength)

    def _call(
        self, task: str, wanted: DiffusionJob, generator: torch.Generator, side: int = _SIDE, **arguments: Any
    ) -> Result:
        pipe = self._pipe(task, wanted)
        if arguments.get("strength") == 0.05:
            arguments["strength"] = 0.21  # diffusers itself draws no step at all there
        if wanted.controls:
            pictures = [
                _PICTURES[control.image].resize((side, side), Image.Resampling.LANCZOS) for control in wanted.controls
            ]
            values: dict[str, list[Any]] = {
                "image" if task == "txt2img" else "control_image": pictures,
                "controlnet_conditioning_scale": [control.scale for control in wanted.controls],
                "control_guidance_start": [control.start for control in wanted.controls],
                "control_guidance_end": [control.end for control in wanted.controls],
            }
            single = len(wanted.controls) == 1
            arguments |= {name: value[0] if single else value for name, value in values.items()}
        kept: dict[str, torch.Tensor] = {}

        def keep(_pipe: Any, _step: int, _timestep: Any, tensors: dict[str, torch.Tensor]) -> dict[str, Any]:
            kept.update(tensors)
            return {}

        image = pipe(
            wanted.prompt,
            negative_prompt=wanted.negative_prompt,
            num_inference_steps=wanted.steps,
            guidance_scale=wanted.guidance_scale,
            generator=generator,
            callback_on_step_end=keep,
            **arguments,
        ).images[0]
        return Result(kept["latents"].numpy(), np.asarray(image))

    def _pipe(self, task: str, wanted: DiffusionJob) -> Any:
        count = len(wanted.controls)
        key = (task, wanted.model, count)
        if key not in self._pipes:
            extra: dict[str, Any] = {}
            if count:
                nets = [
                    _DIFFUSERS.ControlNetModel.from_pretrained(self._folder / control.model)
                    for control in wanted.controls
                    if control.model is not None
                ]
                extra["controlnet"] = nets[0] if count == 1 else nets
            cls = getattr(diffusers, _PIPES[f"{task} controlled" if count else task])
            pipe = cls.from_pretrained(self._folder / wanted.model, safety_checker=None, local_files_only=True, **extra)
            pipe.set_progress_bar_config(disable=True)
            self._pipes[key] = (pipe, pipe.scheduler.config)
        pipe, config = self._pipes[key]
        pipe.scheduler = plain_scheduler(wanted.scheduler, config)
        return pipe


@pytest.fixture(scope="module")
def plain(models: Models) -> Plain:
    """Return diffusers' own pipelines over the same files."""
    return Plain(models.folder)


@every_case
@every_scheduler
def test_stepped_task_equals_the_plain_calls(models: Models, plain: Plain, case: str, scheduler: str) -> None:
    """Pausing at every model call changes nothing, alone and between the steps of another task."""
    wanted = _parameters(case, scheduler)
    family = models.families[wanted.model]
    right = plain(wanted)
    assert end(family, models.prepare(wanted)).same(right)
    other = models.families["tiny-sd15"]
    neighbour = models.prepare(_parameters("controlled img2img, two", "DPM++ 2M Karras", seed=3, strength=1.0, steps=9))
    state = models.prepare(wanted)
    for _ in range(2):
        take_step(other, [neighbour])
        take_step(family, [state])
    neighbour.close()
    assert end(family, state).same(right)


@every_case
def test_task_counts_its_steps(models: Models, case: str) -> None:
    """Steps rise by one to the total that the job was told, over every pass, and each has a preview."""
    wanted = _parameters(case, "Euler a")
    family = models.families[wanted.model]
    state = models.prepare(wanted)
    total = steps_per_picture(wanted)
    assert (state.step, state.total) == (0, total)
    seen = []
    while state.phase == "denoise":
        take_step(family, [state])
        seen.append(state.step)
        assert state.preview() is not None
    assert seen == list(range(1, total + 1))
    state.close()


@pytest.fixture(scope="module")
def resumed_elsewhere(models: Models, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Result]]:
    """Interrupt every case after each step; return what a new process makes of the checkpoints."""
    interrupted = Interrupted(tmp_path_factory.mktemp("checkpoints"))
    for case in _CASES:
        wanted = _parameters(case, "Euler a")
        state = models.prepare(wanted)
        while state.phase == "denoise":
            take_step(models.families[wanted.model], [state])
            interrupted.keep(case, wanted, state)
        state.close()
    return interrupted.resume(models.inputs, seconds=120)


@every_case
def test_task_resumed_in_a_new_process_equals_the_plain_calls(
    plain: Plain, resumed_elsewhere: dict[str, list[Result]], case: str
) -> None:
    """A checkpoint of any step of any pass leads another process to the same bits."""
    wanted = _parameters(case, "Euler a")
    right = plain(wanted)
    assert len(resumed_elsewhere[case]) == steps_per_picture(wanted)
    assert [result.same(right) for result in resumed_elsewhere[case]].count(False) == 0


def test_second_pass_is_resumed_without_the_first(models: Models) -> None:
    """A run kept in its second pass draws nothing of the first one again."""
    wanted = _parameters("hires, lanczos", "Euler a")
    family = models.families[wanted.model]
    state = models.prepare(wanted)
    while state.step < wanted.steps + 1:
        take_step(family, [state])
    kept = Checkpoint.from_bytes(state.checkpoint().to_bytes())
    right = end(family, state)
    before = family.counters.denoise_calls
    assert end(family, models.prepare(wanted, resume=kept)).same(right)
    assert family.counters.denoise_calls - before == 1


@pytest.mark.parametrize(
    ("case", "change"),
    [
        ("img2img", {"image": _EDGES}),
        ("inpaint", {"mask": _EDGES}),
        ("one control", {"controls": [_control(0, image=_SOURCE)]}),
    ],
)
def test_checkpoint_of_another_picture_is_refused(models: Models, case: str, change: dict[str, Any]) -> None:
    """Source, mask and control pictures are part of what a checkpoint belongs to."""
    wanted = _parameters(case, "Euler a")
    state = models.prepare(wanted)
    take_step(models.families[wanted.model], [state])
    kept = state.checkpoint()
    state.close()
    with pytest.raises(CheckpointMismatchError):
        models.prepare(_parameters(case, "Euler a", **change), resume=kept)


def test_checkpoint_of_another_control_model_is_refused(models: Models) -> None:
    """The same name over other bytes is another ControlNet."""
    wanted = _parameters("one control", "Euler a")
    state = models.prepare(wanted)
    take_step(models.families[wanted.model], [state])
    kept = state.checkpoint()
    state.close()
    replaced = {
        ref: entry.model_copy(update={"fingerprint": "9" * 64}) if entry.kind is Kind.CONTROLNET else entry
        for ref, entry in models.inputs.models.items()
    }
    with pytest.raises(CheckpointMismatchError):
        models.families[wanted.model].prepare(wanted, 0, Inputs(replaced, models.inputs.pictures), resume=kept)


def test_checkpoint_of_a_pass_that_is_not_there_is_refused(models: Models) -> None:
    """A run of one pass does not go on from the second."""
    wanted = _parameters("img2img", "Euler a")
    state = models.prepare(wanted)
    take_step(models.families[wanted.model], [state])
    kept = replace(state.checkpoint(), number=1)
    state.close()
    with pytest.raises(CheckpointMismatchError):
        models.prepare(wanted, resume=kept)


def test_pipeline_that_counts_otherwise_is_refused(models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    """Progress that was promised and a loop that differs never pass for each other."""
    monkeypatch.setattr(
        "pipelines.families.base.Setting", lambda *given: replace(Setting(*given), strength=lambda _count, _steps: 0.9)
    )
    with pytest.raises(DrawingFailed, match="4 steps where 3 were planned"):
        models.prepare(_parameters("img2img", "Euler a"))


def test_tasks_share_one_copy_of_the_weights(models: Models) -> None:
    """Every pipeline of a family stands over the very same tensors."""
    family = models.families["tiny-sd15"]
    pipes = [
        family.pipes.take(task, controlled=controlled)
        for task in ("txt2img", "img2img", "inpaint")
        for controlled in (False, True)
    ]
    assert len({type(pipe) for pipe in pipes}) == 6
    for name in ("unet", "vae", "text_encoder"):
        wanted = [weights.data_ptr() for weights in getattr(family.pipe, name).parameters()]
        for pipe in pipes:
            assert [weights.data_ptr() for weights in getattr(pipe, name).parameters()] == wanted
    assert family.pipes.take("inpaint") is family.pipes.take("inpaint")


def _latents_of_each_step(models: Models, wanted: DiffusionJob) -> list[bytes]:
    state = models.prepare(wanted)
    seen = []
    while state.phase == "denoise":
        take_step(models.families[wanted.model], [state])
        seen.append(state._body.latents.numpy().tobytes())  # noqa: SLF001 - the picture's 8 bits would hide a difference
    state.close()
    return seen


def test_control_acts_between_its_start_and_its_end(models: Models) -> None:
    """Before the start a run equals one without control, up to the end one that is controlled throughout."""

    def latents(controls: list[dict[str, Any]]) -> list[bytes]:
        return _latents_of_each_step(models, _parameters("one control", "Euler", steps=4, controls=controls))

    free, whole = latents([]), latents([_control(0)])
    late, early, never = (
        latents([_control(0, **span)]) for span in ({"start": 0.5}, {"end": 0.5}, {"start": 0.3, "end": 0.4})
    )
    assert [mine == other for mine, other in zip(late, free, strict=True)] == [True, True, False, False]
    assert [mine == other for mine, other in zip(early, whole, strict=True)] == [True, True, False, False]
    assert never == free
    assert free[0] != whole[0]


def test_preprocessor_sees_the_picture_at_the_size_that_is_drawn(models: Models) -> None:
    """What it makes of the resized picture takes the picture's place, by the options of the control."""
    family = models.families["tiny-sd15"]
    large = Image.fromarray(np.asarray(_PICTURES[_EDGES])).resize((3 * _SIDE, 3 * _SIDE), Image.Resampling.BICUBIC)
    fitted = resample(np.asarray(large.convert("RGB")), Size(_SIDE, _SIDE))
    options = {"low_threshold": 20.0, "high_threshold": 40.0}
    by_hand = preprocess("canny", fitted, options)
    refs = ["upload:" + letter * 64 for letter in "de"]
    files = {refs[0]: _png(large), refs[1]: _png(Image.fromarray(by_hand))}
    inputs = Inputs(models.inputs.models, {**models.inputs.pictures, **files})

    def drawn(**control: Any) -> Result:
        parameters = _parameters("one control", "Euler a", controls=[_control(0, **control)])
        return end(family, family.prepare(parameters, 0, inputs))

    wanted = drawn(image=refs[0], preprocessor="canny", preprocessor_options=options)
    assert wanted.same(drawn(image=refs[1]))
    assert not wanted.same(drawn(image=refs[0], preprocessor="invert"))


def test_preprocessor_without_its_weights_is_told(models: Models) -> None:
    """A network that was not handed over is a missing model, named."""
    asked = _parameters("one control", "Euler", controls=[_control(0, preprocessor="softedge_hed")])
    with pytest.raises(ModelMissing, match="softedge_hed"):
        models.families["tiny-sd15"].prepare(asked, 0, models.inputs)


def test_upscaler_enlarges_between_the_passes(models: Models) -> None:
    """A registered upscaler is asked until the size is reached; running out of memory in it can be tried again."""

    class Doubling:
        calls = 0

        def enlarge(self, pixels: Any) -> Any:
            self.calls += 1
            if self.calls == 2:
                raise MemoryError
            return pixels.repeat(2, 0).repeat(2, 1)

    upscaler = Doubling()
    entry = entry_for(models.folder / "doubling", Kind.UPSCALER)
    loaded = models.families["tiny-sd15"]
    shelf = Shelf({Kind.UPSCALER: lambda *_: upscaler}, torch.device("cpu"), torch.float32, loaded.counters)
    family = type(loaded)(loaded.pipe, loaded.entry, loaded.preview_matrix, loaded.counters, shelf)
    hires = {"scale": 4.0, "strength": 0.5, "upscaler": entry.name}
    state = family.prepare(_parameters("hires, latent", "Euler", hires=hires), 0, Inputs({entry.ref: entry}))
    failures: list[JobFailure] = []
    while state.phase == "denoise":
        failures += family.step([state]).errors.values()
    assert [failure.code for failure in failures] == ["out_of_memory"]
    assert upscaler.calls == 3
    assert end(family, state).picture.shape == (4 * _SIDE, 4 * _SIDE, 3)
