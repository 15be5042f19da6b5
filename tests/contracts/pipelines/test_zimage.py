"""Z-Image through the step engine, bit for bit: however a run is stepped, its numbers are those of diffusers."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image

from jobs.contract import DiffusionJob, parse_parameters
from jobs.errors import DrawingFailed
from jobs.geometry import steps_per_picture
from jobs.inputs import Inputs
from models_registry.entries import Kind
from models_registry.families import Prediction
from models_registry.schedulers import SCHEDULERS
from pipelines.families.base import Family
from pipelines.families.zimage import prompt_embeddings
from pipelines.loading import load
from tests.contracts.pipelines.flow_calls import (
    HEIGHT,
    HOLE,
    MASKED,
    PICTURES,
    SOURCE,
    WIDTH,
    plain_flow_scheduler,
    png,
)
from tests.contracts.pipelines.resuming import Interrupted
from tests.contracts.pipelines.running import Result, end, take_step
from tests.contracts.pipelines.test_flow_families import entry_of
from tests.tiny import zimage as tiny

#: The library ships no types for these classes.
_DIFFUSERS: Any = diffusers
_PIPES: Final = {"txt2img": "ZImagePipeline", "img2img": "ZImageImg2ImgPipeline", "inpaint": "ZImageInpaintPipeline"}
_INPAINT: Final = {"task": "inpaint", "image": SOURCE, "mask": HOLE, "mask_blur": 0}
_IMG2IMG: Final = {"task": "img2img", "image": SOURCE, "strength": 0.6}
_HIRES: Final = {"scale": 2.0, "strength": 0.6, "upscaler": "lanczos"}
#: What each case asks for beside the common fields.
_CASES: Final[Mapping[str, dict[str, Any]]] = {
    "turbo": {"model": "turbo"},
    "turbo, img2img": {"model": "turbo", **_IMG2IMG},
    "turbo, one step": {"model": "turbo", **_IMG2IMG, "strength": 0.2},
    "turbo, inpaint": {"model": "turbo", **_INPAINT},
    "turbo, hires": {"model": "turbo", "hires": _HIRES},
    "base": {"model": "base", "guidance_scale": 4.0},
    # Its pipelines add the whole scale to the prompt's own part: it counts from 0.
    "base, some guidance": {"model": "base", "guidance_scale": 0.5},
    "base, no guidance": {"model": "base"},
    "base, img2img": {"model": "base", **_IMG2IMG, "guidance_scale": 4.0},
    "base, inpaint half": {"model": "base", **_INPAINT, "strength": 0.6, "guidance_scale": 4.0},
}
every_case = pytest.mark.parametrize("case", _CASES)
#: With noise at each step, whose state a checkpoint must hold.
_NOISY: Final = "DPM++ 2M SDE"


def _parameters(case: str, scheduler: str = "Euler", **changes: Any) -> DiffusionJob:
    common = {
        "task": "txt2img",
        "prompt": "a red circle",
        "negative_prompt": "blue",
        "width": WIDTH,
        "height": HEIGHT,
        "steps": 5,
        "guidance_scale": 0.0,
        "scheduler": scheduler,
        "seed": 11,
        "preview_every": 0,
    }
    parameters = parse_parameters({**common, **_CASES[case], **changes})
    assert isinstance(parameters, DiffusionJob)
    return parameters


class Models:
    """Both tiny models, as a family and as diffusers' own pipelines over the same files."""

    def __init__(self, folder: Path) -> None:
        entries = [
            entry_of(tiny.build_turbo(folder / "turbo"), "zimage", "turbo"),
            entry_of(tiny.build_base(folder / "base"), "zimage", "base"),
        ]
        self.inputs = Inputs(
            {entry.ref: entry for entry in entries}, {ref: png(each) for ref, each in PICTURES.items()}
        )
        self.families: Mapping[str, Family] = {entry.name: load(entry, "cpu") for entry in entries}
        self._pipes = {
            entry.name: _DIFFUSERS.ZImagePipeline.from_pretrained(entry.path, local_files_only=True)
            for entry in entries
        }

    def prepare(self, parameters: DiffusionJob, **options: Any) -> Any:
        """Start a picture with the family it names."""
        return self.families[parameters.model].prepare(parameters, 0, self.inputs, **options)

    def draw(self, parameters: DiffusionJob) -> Result:
        """Draw a picture to its end."""
        return end(self.families[parameters.model], self.prepare(parameters))

    def pipe(self, model: str, task: str, scheduler: str) -> Any:
        """Return a pipeline of diffusers with a scheduler that nobody else has."""
        own = self._pipes[model]
        pipe = getattr(diffusers, _PIPES[task])(**own.components)
        pipe.set_progress_bar_config(disable=True)
        pipe.scheduler = plain_flow_scheduler(scheduler, own.scheduler.config)
        return pipe

    def plain(self, wanted: Any) -> Result:
        """Draw with diffusers alone what the parameters say."""
        generator = torch.Generator("cpu").manual_seed(wanted.seed)
        if wanted.task == "txt2img":
            first = self._call("txt2img", wanted, generator)
            if wanted.hires is None:
                return first
            size = (int(WIDTH * wanted.hires.scale), int(HEIGHT * wanted.hires.scale))
            larger = Image.fromarray(first.picture).resize(size, Image.Resampling.LANCZOS)
            return self._call("img2img", wanted, generator, size, image=larger, strength=wanted.hires.strength)
        over = {"image": PICTURES[SOURCE], "strength": wanted.strength}
        if wanted.task == "img2img":
            return self._call("img2img", wanted, generator, **over)
        drawn = self._call("inpaint", wanted, generator, mask_image=PICTURES[HOLE], **over)
        laid = np.asarray(PICTURES[SOURCE]).copy()
        laid[MASKED] = drawn.picture[MASKED]
        return Result(drawn.latents, laid)

    def _call(
        self,
        task: str,
        wanted: Any,
        generator: torch.Generator,
        size: tuple[int, int] = (WIDTH, HEIGHT),
        **arguments: Any,
    ) -> Result:
        kept: dict[str, torch.Tensor] = {}

        def keep(_pipe: Any, _step: int, _timestep: Any, tensors: dict[str, torch.Tensor]) -> dict[str, Any]:
            kept.update(tensors)
            return {}

        image = self.pipe(wanted.model, task, wanted.scheduler)(
            wanted.prompt,
            negative_prompt=wanted.negative_prompt,
            width=size[0],
            height=size[1],
            num_inference_steps=wanted.steps,
            guidance_scale=wanted.guidance_scale,
            generator=generator,
            callback_on_step_end=keep,
            output_type="np",
            **arguments,
        ).images[0]
        return Result(kept["latents"].numpy(), (image * 255).round().astype(np.uint8))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Models]:
    """Build and load both checkpoints."""
    made = Models(tmp_path_factory.mktemp("zimage"))
    yield made
    assert not [state for family in made.families.values() for state in family.open_states]
    for family in made.families.values():
        family.close()


@every_case
def test_stepped_run_equals_the_plain_calls(models: Models, case: str) -> None:
    """Pausing at every model call changes nothing, alone and between the steps of a neighbour that is then cancelled."""
    wanted = _parameters(case)
    family = models.families[wanted.model]
    right = models.plain(wanted)
    assert models.draw(wanted).same(right)
    neighbour = models.prepare(_parameters(case, seed=3, prompt="a blue square that is said in more words"))
    state = models.prepare(wanted)
    take_step(family, [neighbour, state])
    neighbour.close()
    assert end(family, state).same(right)


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
    return ("Euler", _NOISY) if case == "base" else ("Euler",)


@pytest.fixture(scope="module")
def resumed_elsewhere(models: Models, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Result]]:
    """Interrupt every case in the middle; return what a new process makes of the checkpoints."""
    interrupted = Interrupted(tmp_path_factory.mktemp("checkpoints"))
    for case in _CASES:
        for scheduler in _schedulers(case):
            wanted = _parameters(case, scheduler)
            state = models.prepare(wanted)
            while state.step < max(1, state.total // 2):
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


@pytest.mark.parametrize(
    "scheduler", [name for name, each in SCHEDULERS.items() if Prediction.FLOW in each.predictions]
)
def test_every_scheduler_for_flows_draws(models: Models, scheduler: str) -> None:
    """By its own noise levels, or by those that the pipeline brings; over a picture as many steps as were asked."""
    for case in ("base", "base, img2img"):
        drawn = models.draw(_parameters(case, scheduler))
        assert np.isfinite(drawn.latents).all()
        if scheduler != "Euler":
            assert not drawn.same(models.draw(_parameters(case)))


def test_prompts_are_read_as_diffusers_reads_them(models: Models) -> None:
    """In the model's own chat, whatever marks of that chat the prompt holds; marks of emphasis are left out."""
    pipe = models.pipe("base", "txt2img", "Euler")
    with torch.no_grad():
        for prompt in ("a red circle", "", "\n two\n\nlines ", "<|im_end|>\n漢字", "a red user " * 40):
            (right,), (other,) = pipe.encode_prompt(prompt, negative_prompt="blue")
            found = prompt_embeddings(models.families["base"].pipe, prompt, "blue")
            assert torch.equal(found["prompt_embeds"][0], right)
            assert torch.equal(found["negative_prompt_embeds"][0], other)
        marked = prompt_embeddings(models.families["base"].pipe, "a (red:1.5) [circle]", None)
        assert torch.equal(marked["prompt_embeds"][0], pipe.encode_prompt("a red circle")[0][0])
        assert "negative_prompt_embeds" not in marked


def test_more_tokens_than_are_read_are_refused(models: Models) -> None:
    """What the model could not see is never dropped in silence: the most that fits is drawn, one more is not."""
    around = len(
        models.families["turbo"].pipe.tokenizer("<|im_start|>user\n<|im_end|>\n<|im_start|>assistant\n").input_ids
    )
    models.prepare(_parameters("turbo", prompt="x" * (512 - around))).close()
    with pytest.raises(DrawingFailed, match=f"has {513 - around} tokens, of which this model reads at most"):
        models.prepare(_parameters("turbo", prompt="x" * (513 - around)))


def test_latents_enlarged_are_decoded_for_the_second_pass(models: Models) -> None:
    """Its pipeline over a picture takes none: a second pass over latents draws, and otherwise than over pixels."""
    by = [
        models.draw(_parameters("turbo", hires={"scale": 2.0, "strength": 0.6, "upscaler": upscaler}))
        for upscaler in ("latent", "lanczos")
    ]
    assert by[0].picture.shape == by[1].picture.shape == (2 * HEIGHT, 2 * WIDTH, 3)
    assert not by[0].same(by[1])


def test_calls_that_may_travel_together_have_one_key(models: Models) -> None:
    """Rows of one form share a call whatever their seed, guidance, timestep, number and length of prompt; another shape does not."""

    def key_of(rows: int, case: str = "base", **changes: Any) -> object:
        state = models.prepare(_parameters(case, **changes))
        assert state.ask is not None
        assert state.ask.rows == rows
        key = state.ask.key
        state.close()
        return key

    one = key_of(2)
    assert key_of(2, seed=2, guidance_scale=2.0, prompt="a blue square of another length", steps=9) == one
    assert key_of(1, "base, no guidance") == one
    assert key_of(2, width=HEIGHT, height=WIDTH) != one


def test_flux_vae_takes_the_place_of_its_own(models: Models, tmp_path: Path) -> None:
    """Their latents are the same; it decodes, and encodes where there is a picture."""
    wanted = _parameters("base, inpaint half")
    family = models.families["base"]
    own = family.pipe.vae
    with torch.random.fork_rng():
        torch.manual_seed(5)
        other = type(own).from_config(own.config)
    other.save_pretrained(tmp_path / "other")
    entry = entry_of(tmp_path / "other", "flux", "base", Kind.VAE, "a")
    inputs = Inputs({**models.inputs.models, entry.ref: entry}, models.inputs.pictures)
    found = end(family, family.prepare(wanted.model_copy(update={"vae": "other"}), 0, inputs))
    assert not np.array_equal(found.picture, models.draw(wanted).picture)


def test_halves_are_those_with_room_for_large_numbers(models: Models) -> None:
    """On a device of half precision the model is held in the other 16 bits, and draws."""
    family = load(models.families["base"].entry, "cpu", torch.float16)
    assert {each.dtype for each in family.parts.values()} == {torch.bfloat16}
    for case in ("base", "base, inpaint half"):
        drawn = end(family, family.prepare(_parameters(case), 0, models.inputs))
        assert drawn.picture.std() > 1
    family.close()
