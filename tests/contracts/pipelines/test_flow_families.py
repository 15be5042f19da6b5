"""Models that predict a flow through the step engine, bit for bit: however a run is stepped, its numbers are those of diffusers."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution

from jobs.contract import DiffusionJob, parse_parameters
from jobs.errors import DrawingFailed, ModelDamaged
from jobs.geometry import steps_per_picture
from jobs.inputs import Inputs
from models_registry.entries import Kind, ModelEntry
from models_registry.families import is_guided
from pipelines.families.base import Family
from pipelines.loading import load
from tests.contracts.pipelines.flow_calls import EDGES, HEIGHT, HOLE, PICTURES, SOURCE, WIDTH, PlainFlows, entry_of, png
from tests.contracts.pipelines.flux2_calls import PlainFlux2
from tests.contracts.pipelines.resuming import Interrupted
from tests.contracts.pipelines.running import Result, end, take_step
from tests.contracts.pipelines.zimage_calls import PlainZImage
from tests.tiny import flux2, zimage
from tests.tiny import transformers as tiny
from tests.tiny.qwenimage import build_controlnet, build_qwenimage

_INPAINT = {"task": "inpaint", "image": SOURCE, "mask": HOLE, "mask_blur": 0}
_IMG2IMG = {"task": "img2img", "image": SOURCE, "strength": 0.6}


def _control(model: str | None, **changes: Any) -> dict[str, Any]:
    return {"model": model, "image": EDGES, "scale": 0.9, **changes}


def _two(family: str) -> list[dict[str, Any]]:
    return [
        _control(f"{family}-control-0", end=0.5),
        _control(f"{family}-control-1", image=SOURCE, scale=0.4, start=0.25),
    ]


#: What each case asks for beside the common fields.
_CASES: Mapping[str, dict[str, Any]] = {
    "sd3": {"model": "sd3-medium"},
    "sd3, no guidance": {"model": "sd3-medium", "guidance_scale": 1.0},
    "sd3, no T5": {"model": "sd3-without-t5"},
    "sd3.5 medium": {"model": "sd3-5-medium"},
    "sd3.5 large": {"model": "sd3-5-large", **_IMG2IMG},
    "sd3, img2img": {"model": "sd3-medium", **_IMG2IMG},
    "sd3, inpaint": {"model": "sd3-medium", **_INPAINT},
    "sd3, inpaint half": {"model": "sd3-medium", **_INPAINT, "strength": 0.6},
    "sd3, control": {"model": "sd3-medium", "controls": [_control("sd3-control-0")]},
    "sd3, two controls": {"model": "sd3-medium", "controls": _two("sd3")},
    "sd3, hires latent": {"model": "sd3-medium", "hires": {"scale": 2.0, "strength": 0.6}},
    "flux dev": {"model": "flux-dev"},
    "flux schnell": {"model": "flux-schnell", "steps": 4},
    "flux, img2img": {"model": "flux-dev", **_IMG2IMG},
    "flux, img2img one step": {"model": "flux-dev", **_IMG2IMG, "strength": 0.2},
    "flux, inpaint": {"model": "flux-dev", **_INPAINT},
    "flux, inpaint half": {"model": "flux-dev", **_INPAINT, "strength": 0.6},
    "flux, control": {"model": "flux-dev", "controls": [_control("flux-control-0")]},
    "flux, two controls": {"model": "flux-dev", "controls": _two("flux")},
    "flux, control img2img": {"model": "flux-dev", **_IMG2IMG, "controls": [_control("flux-control-0")]},
    "flux, two controls img2img": {"model": "flux-dev", **_IMG2IMG, "controls": _two("flux")},
    "flux, control inpaint": {"model": "flux-dev", **_INPAINT, "controls": [_control("flux-control-0")]},
    "flux, hires lanczos": {"model": "flux-dev", "hires": {"scale": 2.0, "strength": 0.6, "upscaler": "Lanczos"}},
    "flux, hires latent": {"model": "flux-dev", "hires": {"scale": 2.0, "strength": 0.6}},
    "flux canny": {"model": "flux-canny", "controls": [_control(None, scale=1.0)]},
    "flux canny, img2img": {"model": "flux-canny", **_IMG2IMG, "controls": [_control(None, scale=1.0)]},
    "flux canny, hires lanczos": {
        "model": "flux-canny",
        "controls": [_control(None, scale=1.0)],
        "hires": {"scale": 2.0, "strength": 0.6, "upscaler": "lanczos"},
    },
    "flux fill": {"model": "flux-fill", **_INPAINT, "guidance_scale": 30.0},
    "flux fill, half": {"model": "flux-fill", **_INPAINT, "strength": 0.6},
    "flux2 klein": {"model": "flux2-klein", "steps": 4, "guidance_scale": 0.0},
    "flux2 klein base": {"model": "flux2-base"},
    "flux2, img2img": {"model": "flux2-base", **_IMG2IMG},
    "flux2, inpaint": {"model": "flux2-base", **_INPAINT},
    "flux2, inpaint half": {"model": "flux2-klein", **_INPAINT, "strength": 0.6, "guidance_scale": 0.0},
    "flux2, hires lanczos": {"model": "flux2-klein", "hires": {"scale": 2.0, "strength": 0.6, "upscaler": "Lanczos"}},
    "flux2, hires latent": {"model": "flux2-klein", "hires": {"scale": 2.0, "strength": 0.6}},
    "flux2 dev": {"model": "flux2-dev"},
    "flux2 dev, img2img": {"model": "flux2-dev", **_IMG2IMG},
    "flux2 dev, inpaint": {"model": "flux2-dev", **_INPAINT},
    "flux2 dev, inpaint half": {"model": "flux2-dev", **_INPAINT, "strength": 0.6},
    "flux2 dev, hires lanczos": {"model": "flux2-dev", "hires": {"scale": 2.0, "strength": 0.6, "upscaler": "Lanczos"}},
    "flux2 dev, hires latent": {"model": "flux2-dev", "hires": {"scale": 2.0, "strength": 0.6}},
    "zimage turbo": {"model": "zimage-turbo", "guidance_scale": 0.0},
    "zimage turbo, img2img": {"model": "zimage-turbo", **_IMG2IMG, "guidance_scale": 0.0},
    "zimage turbo, img2img one step": {"model": "zimage-turbo", **_IMG2IMG, "strength": 0.2, "guidance_scale": 0.0},
    "zimage turbo, inpaint": {"model": "zimage-turbo", **_INPAINT, "guidance_scale": 0.0},
    "zimage turbo, hires lanczos": {
        "model": "zimage-turbo",
        "guidance_scale": 0.0,
        "hires": {"scale": 2.0, "strength": 0.6, "upscaler": "lanczos"},
    },
    "zimage": {"model": "zimage-base"},
    # Its pipelines add the whole scale to the prompt's own part: it counts from 0.
    "zimage, some guidance": {"model": "zimage-base", "guidance_scale": 0.5},
    "zimage, no guidance": {"model": "zimage-base", "guidance_scale": 0.0},
    "zimage, img2img": {"model": "zimage-base", **_IMG2IMG},
    "zimage, inpaint half": {"model": "zimage-base", **_INPAINT, "strength": 0.6},
    "qwenimage": {"model": "qwenimage"},
    "qwenimage, no guidance": {"model": "qwenimage", "guidance_scale": 1.0},
    "qwenimage, img2img": {"model": "qwenimage", **_IMG2IMG},
    "qwenimage, inpaint": {"model": "qwenimage", **_INPAINT},
    "qwenimage, inpaint half": {"model": "qwenimage", **_INPAINT, "strength": 0.6},
    "qwenimage, control": {"model": "qwenimage", "controls": [_control("qwenimage-control-0", start=0.25)]},
    "qwenimage, two controls": {
        "model": "qwenimage",
        "controls": [{**control, "model": "qwenimage-control-0"} for control in _two("qwenimage")],
    },
    "qwenimage, hires latent": {"model": "qwenimage", "hires": {"scale": 2.0, "strength": 0.6}},
}
#: Draw with diffusers alone.
Plain = Callable[[DiffusionJob], Result]
every_case = pytest.mark.parametrize("case", _CASES)


def _parameters(case: str | Mapping[str, Any], scheduler: str = "Euler", **changes: Any) -> DiffusionJob:
    parameters = parse_parameters(
        {
            "task": "txt2img",
            "prompt": "a red circle",
            "negative_prompt": "blue",
            "width": WIDTH,
            "height": HEIGHT,
            "steps": 5,
            "guidance_scale": 4.0,
            "scheduler": scheduler,
            "seed": 11,
            "preview_every": 0,
            **(_CASES[case] if isinstance(case, str) else case),
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

    def draw(self, parameters: DiffusionJob) -> Result:
        """Draw a picture to its end."""
        return end(self.families[parameters.model], self.prepare(parameters))


def _build(folder: Path) -> list[ModelEntry]:
    entries = [
        entry_of(tiny.build_sd3_medium(folder / "sd3-medium"), "sd3", "medium"),
        entry_of(tiny.build_sd3_without_t5(folder / "sd3-without-t5"), "sd3", "medium"),
        entry_of(tiny.build_sd35_medium(folder / "sd3-5-medium"), "sd3", "3.5-medium"),
        entry_of(tiny.build_sd35_large(folder / "sd3-5-large"), "sd3", "3.5-large"),
        entry_of(tiny.build_flux_dev(folder / "flux-dev"), "flux", "dev"),
        entry_of(tiny.build_flux_schnell(folder / "flux-schnell"), "flux", "schnell"),
        entry_of(tiny.build_flux_canny(folder / "flux-canny"), "flux", "canny"),
        entry_of(tiny.build_flux_fill(folder / "flux-fill"), "flux", "fill"),
        entry_of(flux2.build_klein(folder / "flux2-klein"), "flux2", "klein"),
        entry_of(flux2.build_klein_base(folder / "flux2-base"), "flux2", "klein-base"),
        entry_of(flux2.build_dev(folder / "flux2-dev"), "flux2", "dev"),
        entry_of(zimage.build_turbo(folder / "zimage-turbo"), "zimage", "turbo"),
        entry_of(zimage.build_base(folder / "zimage-base"), "zimage", "base"),
        entry_of(build_qwenimage(folder / "qwenimage"), "qwenimage", "base"),
    ]
    for place in (0, 1):
        for family, build in (
            ("sd3", tiny.build_sd3_controlnet),
            ("flux", tiny.build_flux_controlnet),
            ("qwenimage", build_controlnet),
        ):
            path = build(folder / f"{family}-control-{place}", 2 + place)
            entries.append(entry_of(path, family, "", Kind.CONTROLNET, f"{place + 1}{family[0]}"[:1]))
    return entries


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Models]:
    """Build and load the checkpoints; the ControlNets are loaded when they are named."""
    folder = tmp_path_factory.mktemp("flows")
    entries = _build(folder)
    families = {entry.name: load(entry, "cpu") for entry in entries if entry.kind is Kind.CHECKPOINT}
    pictures = {ref: png(picture) for ref, picture in PICTURES.items()}
    yield Models(families, Inputs({entry.ref: entry for entry in entries}, pictures), folder)
    assert not [state for family in families.values() for state in family.open_states]
    for family in families.values():
        family.close()


@pytest.fixture(scope="module")
def plain(models: Models) -> Plain:
    """Return diffusers' own pipelines over the same files."""
    others = PlainFlows(models.folder)
    own: dict[str, Plain] = {"flux2": PlainFlux2(models.folder), "zimage": PlainZImage(models.folder)}
    return lambda wanted: own.get(wanted.model.partition("-")[0], others)(wanted)


@every_case
def test_stepped_run_equals_the_plain_calls(models: Models, plain: Plain, case: str) -> None:
    """Pausing at every model call changes nothing, alone and between the steps of a neighbour that is then cancelled."""
    wanted = _parameters(case)
    family = models.families[wanted.model]
    right = plain(wanted)
    assert models.draw(wanted).same(right)
    neighbour = models.prepare(_parameters(case, seed=3, prompt="a blue square"))
    state = models.prepare(wanted)
    take_step(family, [neighbour, state])
    neighbour.close()
    assert end(family, state).same(right)
    # The pipelines of these hand every scheduler steps of their own, which UniPC cannot take, or ours has its reasons not to.
    own_steps = family.name in {"zimage", "qwenimage"}
    if wanted.task == "txt2img" and not wanted.controls and "hires" not in case and not own_steps:
        unipc = _parameters(case, "UniPC")
        assert models.draw(unipc).same(plain(unipc))


@every_case
def test_run_counts_its_steps_and_shows_a_preview(models: Models, case: str) -> None:
    """Steps rise by one to the total that the job was told, over every pass, and each has a preview of the right form."""
    wanted = _parameters(case)
    state = models.prepare(wanted)
    total = steps_per_picture(wanted)
    assert (state.step, state.total) == (0, total)
    for step in range(1, total + 1):
        take_step(models.families[wanted.model], [state])
        assert state.step == step
        preview = state.preview()
        assert preview is not None
        assert preview.shape[1] * HEIGHT == preview.shape[0] * WIDTH
    state.close()


def _schedulers(case: str) -> tuple[str, ...]:
    # The second one with noise at each step, whose state a checkpoint must hold.
    return ("Euler", "DPM++ 2M SDE") if case in {"flux dev", "sd3", "zimage"} else ("Euler",)


@pytest.fixture(scope="module")
def resumed_elsewhere(models: Models, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Result]]:
    """Interrupt every case in the middle; return what a new process makes of the checkpoints."""
    interrupted = Interrupted(tmp_path_factory.mktemp("checkpoints"))
    for case in _CASES:
        for scheduler in _schedulers(case):
            wanted = _parameters(case, scheduler)
            state = models.prepare(wanted)
            middle = state.total // 2
            while state.step < max(1, middle):
                take_step(models.families[wanted.model], [state])
            interrupted.keep(f"{case} {scheduler}", wanted, state)
            state.close()
    return interrupted.resume(models.inputs, seconds=180)


@every_case
def test_run_resumed_in_a_new_process_is_the_same(
    models: Models, resumed_elsewhere: dict[str, list[Result]], case: str
) -> None:
    """A checkpoint leads another process to the same bits, with noise on the way too."""
    for scheduler in _schedulers(case):
        (found,) = resumed_elsewhere[f"{case} {scheduler}"]
        assert found.same(models.draw(_parameters(case, scheduler)))


@pytest.mark.parametrize("model", ["sd3-medium", "flux-dev", "flux2-base", "flux2-dev", "qwenimage"])
@pytest.mark.parametrize("task", [{}, _IMG2IMG, {**_INPAINT, "strength": 0.6}], ids=["txt2img", "img2img", "inpaint"])
def test_second_order_goes_round_twice_a_step(models: Models, model: str, task: dict[str, Any]) -> None:
    """Whether a pipeline counts steps or rounds, as many steps are drawn as were asked for, and all but the last call twice."""
    wanted = _parameters({"model": model, **task}, "Heun")
    family = models.families[model]
    before = family.counters.denoise_calls
    state = models.prepare(wanted)
    count = steps_per_picture(wanted)
    assert state.total == count == (5 if not task else 3)
    while state.phase == "denoise":
        take_step(family, [state])
    assert state.step == count
    rounds = 2 * count - 1
    apart = family.asks_apart and is_guided(family.entry, wanted.guidance_scale)
    assert family.counters.denoise_calls - before == rounds * (2 if apart else 1)
    # It ends where the method of first order does, if not by the same way.
    euler = models.draw(_parameters({"model": model, **task}))
    heun = end(family, state)
    assert not heun.same(euler)
    assert np.corrcoef(heun.latents.ravel(), euler.latents.ravel())[0, 1] > 0.9


@pytest.mark.parametrize("model", ["sd3-medium", "qwenimage"])
@pytest.mark.parametrize("task", [_IMG2IMG, {**_INPAINT, "strength": 0.6}], ids=["img2img", "inpaint"])
def test_control_over_a_picture_is_that_of_no_control_at_weight_nothing(
    models: Models, model: str, task: dict[str, Any]
) -> None:
    """Where diffusers has no such pipeline, ours adds to the plain task what the ControlNet says, and nothing else."""
    family, wanted = models.families[model], {"model": model, **task}
    network = f"{family.name}-control-0"
    without = models.draw(_parameters(wanted))
    silent = _parameters(wanted, controls=[_control(network, scale=0.0)])
    assert models.draw(silent).same(without)
    heard = _parameters(wanted, controls=[_control(network)])
    right = models.draw(heard)
    assert not right.same(without)
    kept = models.prepare(heard)
    take_step(family, [kept])
    checkpoint = kept.checkpoint()
    kept.close()
    assert end(family, models.prepare(heard, resume=checkpoint)).same(right)


def _heard(models: Models, wanted: DiffusionJob) -> list[tuple[float, torch.Tensor]]:
    """Return how strongly the ControlNet of a job for Qwen-Image is asked, and its picture as it is shown, at each of its calls."""
    network = models.families["qwenimage"].shelf.take(models.inputs.model(Kind.CONTROLNET, "qwenimage-control-0"))
    heard: list[tuple[float, torch.Tensor]] = []
    hook = network.register_forward_pre_hook(
        lambda _network, _args, told: heard.append((told["conditioning_scale"], told["controlnet_cond"])),
        with_kwargs=True,
    )
    models.draw(wanted)
    hook.remove()
    return heard


@pytest.mark.parametrize("task", [_IMG2IMG, {**_INPAINT, "strength": 0.6}], ids=["img2img", "inpaint"])
def test_control_over_a_picture_is_asked_as_from_noise(
    models: Models, task: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once a round, between its start and its end, and about the same latents where their noise is left out."""
    monkeypatch.setattr(DiagonalGaussianDistribution, "sample", lambda found, _generator=None: found.mean)
    controls = [_control("qwenimage-control-0", start=0.3, end=0.7)]
    from_noise = _heard(models, _parameters({"model": "qwenimage", "steps": 3}, controls=controls))
    over = _heard(models, _parameters({"model": "qwenimage", **task}, controls=controls))
    assert [scale for scale, _ in over] == [scale for scale, _ in from_noise] == [0.0, 0.9, 0.0]
    for (_, shown), (_, right) in zip(over, from_noise, strict=True):
        assert torch.equal(shown, right)


@pytest.mark.parametrize("upscaler", ["latent", "lanczos"])
def test_control_of_a_second_pass_is_shown_at_its_size(models: Models, upscaler: str) -> None:
    """As many tokens as the pass draws, at each of its rounds."""
    hires = {"scale": 2.0, "strength": 0.6, "upscaler": upscaler}
    heard = _heard(
        models, _parameters({"model": "qwenimage", "hires": hires}, controls=[_control("qwenimage-control-0")])
    )
    tokens = WIDTH * HEIGHT // 16**2
    assert [shown.shape[1] for _, shown in heard] == [tokens] * 5 + [4 * tokens] * 3


def test_controls_of_several_networks_add_up(models: Models, tmp_path: Path) -> None:
    """Also where diffusers takes one network alone; those that cannot be added are refused."""
    one, other = _two("qwenimage")
    wanted = {"model": "qwenimage", **_IMG2IMG}
    alone = models.draw(_parameters(wanted, controls=[one]))
    assert models.draw(_parameters(wanted, controls=[one, {**other, "scale": 0.0}])).same(alone)
    assert not models.draw(_parameters(wanted, controls=[one, other])).same(alone)
    deep = entry_of(build_controlnet(tmp_path / "deep", layers=2), "qwenimage", "", Kind.CONTROLNET, "d")
    inputs = Inputs({**models.inputs.models, deep.ref: deep}, models.inputs.pictures)
    with pytest.raises(DrawingFailed, match="different numbers of layers"):
        models.families["qwenimage"].prepare(_parameters(wanted, controls=[one, _control("deep")]), 0, inputs)


@pytest.mark.parametrize("case", ["sd3", "flux dev"])
def test_emphasis_and_long_prompts_are_heard(models: Models, case: str) -> None:
    """Weights change the picture, brackets without a meaning do not, and a long prompt is not cut at a window."""
    plain = models.draw(_parameters(case))
    assert not models.draw(_parameters(case, prompt="a (red:1.5) circle")).same(plain)
    assert models.draw(_parameters(case, prompt="a red circle")).same(plain)
    words = "a red circle " * 20
    long = [models.draw(_parameters(case, prompt=words + end)) for end in ("on blue", "on green")]
    assert not long[0].same(long[1])


def test_more_tokens_than_t5_reads_are_refused(models: Models) -> None:
    """What the model could not see is never dropped in silence."""
    with pytest.raises(DrawingFailed, match="at most 512"):
        models.prepare(_parameters("flux dev", prompt="a red circle " * 60))


def test_more_tokens_than_a_language_model_reads_are_refused(models: Models) -> None:
    """Of a prompt, and of a negative one that is read."""
    for changes in ({"prompt": "a red circle " * 8}, {"negative_prompt": "a red circle " * 8}):
        with pytest.raises(DrawingFailed, match="of which this model reads at most"):
            models.prepare(_parameters("flux2 klein base", **changes))
    with pytest.raises(DrawingFailed, match="of which this model reads at most"):
        models.prepare(_parameters("flux2 dev", prompt="a red circle " * 8))
    for unread in ("flux2 klein", "flux2 dev"):
        models.prepare(_parameters(unread, negative_prompt="a red circle " * 8)).close()


def test_emphasis_says_nothing_to_a_language_model(models: Models) -> None:
    """Its marks are taken out, and the words are heard."""
    for case in ("flux2 klein", "flux2 dev"):
        plain = models.draw(_parameters(case))
        assert models.draw(_parameters(case, prompt="a (red:1.5) circle")).same(plain)
        assert not models.draw(_parameters(case, prompt="a blue circle")).same(plain)


def test_embedded_guidance_is_heard_over_a_picture_too(models: Models) -> None:
    """Where diffusers has no such pipeline, and ours tells the transformer the scale."""
    for case in ("flux2 dev", "flux2 dev, img2img"):
        assert not models.draw(_parameters(case, guidance_scale=1.5)).same(models.draw(_parameters(case)))


def test_own_control_cannot_be_weighed(models: Models) -> None:
    """A model that reads a control picture reads it whole: what it would ignore is refused, and so is a job without one."""
    for controls in ([], [_control(None)], [_control(None, scale=1.0)] * 2, [_control("flux-control-0", scale=1.0)]):
        with pytest.raises(DrawingFailed, match="control picture"):
            models.prepare(_parameters({"model": "flux-canny", "controls": controls}))
    with pytest.raises(DrawingFailed, match="needs a ControlNet"):
        models.prepare(_parameters({"model": "flux-dev", "controls": [_control(None)]}))


def test_latents_enlarged_for_a_pipeline_that_takes_none_are_decoded(models: Models) -> None:
    """A second pass over latents draws too where its pipeline wants a picture."""
    own = {"model": "flux-canny", "controls": [_control(None, scale=1.0)]}
    guided = {"model": "flux-dev", "controls": [_control("flux-control-0")]}
    for wanted in (own, guided, _CASES["zimage turbo"]):
        by = [
            models.draw(_parameters({**wanted, "hires": {"scale": 2.0, "strength": 0.6, "upscaler": upscaler}}))
            for upscaler in ("latent", "lanczos")
        ]
        assert by[0].picture.shape == by[1].picture.shape == (2 * HEIGHT, 2 * WIDTH, 3)
        assert not by[0].same(by[1])


def test_calls_that_may_travel_together_have_one_key(models: Models) -> None:
    """Rows of one form share a call whatever their seed, guidance and timestep; another shape of as many tokens does not."""

    def key_of(case: str = "flux dev", **changes: Any) -> object:
        state = models.prepare(_parameters(case, **changes))
        assert state.ask is not None
        assert state.ask.rows == (2 if case in {"sd3", "zimage"} else 1)
        key = state.ask.key
        state.close()
        return key

    one = key_of()
    assert key_of(seed=2, guidance_scale=2.0, prompt="a blue square", steps=9) == one
    assert key_of(width=HEIGHT, height=WIDTH) != one
    assert key_of("sd3", seed=2, steps=9) == key_of("sd3")
    klein = key_of("flux2 klein")
    assert key_of("flux2 klein", seed=2, prompt="a blue square", steps=9) == klein
    assert key_of("flux2 klein", width=HEIGHT, height=WIDTH) != klein
    assert key_of("flux2, inpaint half", steps=9) == klein
    # With a prompt of its own and over a picture, whatever guidance is read.
    dev = key_of("flux2 dev")
    assert key_of("flux2 dev, inpaint half", guidance_scale=2.0, prompt="a blue square", steps=9) == dev
    # Its prompts travel as lists, each as long as it is.
    z = key_of("zimage")
    assert key_of("zimage", seed=2, guidance_scale=2.0, prompt="a blue square of another length", steps=9) == z
    assert key_of("zimage, no guidance") == z
    assert key_of("zimage", width=HEIGHT, height=WIDTH) != z


@pytest.mark.parametrize(
    "case", ["sd3", "sd3, inpaint half", "sd3, control", "flux dev", "flux, inpaint half", "flux fill"]
)
def test_another_vae_takes_the_place_of_the_models(models: Models, tmp_path: Path, case: str) -> None:
    """It decodes, and encodes where there is a picture; one that says no shift was made for another model."""
    wanted = _parameters(case)
    own = models.families[wanted.model].pipe.vae
    with torch.random.fork_rng():
        torch.manual_seed(5)
        other = type(own).from_config(own.config)
    inputs = []
    for name, vae in (("other", other), ("unshifted", type(own).from_config({**own.config, "shift_factor": None}))):
        vae.save_pretrained(tmp_path / name)
        family = models.families[wanted.model]
        entry = entry_of(tmp_path / name, family.name, "base", Kind.VAE, name[0].replace("o", "a").replace("u", "b"))
        inputs.append(Inputs({**models.inputs.models, entry.ref: entry}, models.inputs.pictures))
    asked = wanted.model_copy(update={"vae": "other"})
    found = end(family, family.prepare(asked, 0, inputs[0]))
    assert not np.array_equal(found.picture, models.draw(wanted).picture)
    with pytest.raises(ModelDamaged, match="shifted"):
        family.prepare(wanted.model_copy(update={"vae": "unshifted"}), 0, inputs[1])


def test_checkpoint_without_the_task_refuses_it(models: Models) -> None:
    """A network that reads a mask has nothing to read without one."""
    with pytest.raises(DrawingFailed, match="flux-fill draws no txt2img"):
        models.prepare(_parameters({"model": "flux-fill"}))
