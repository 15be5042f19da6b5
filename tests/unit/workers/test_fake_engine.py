"""The fake engine and what every engine does alike, spoken to through a link in memory."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from PIL import Image

from jobs.contract import InpaintParameters, JobParameters, PreprocessParameters, Txt2ImgParameters, UpscaleParameters
from jobs.inputs import Inputs
from jobs.parts import Hires, Outpaint
from jobs.pictures import upload_ref
from models_registry.entries import Component, Kind, Layout, ModelEntry
from tests.unit.workers.memory_link import MemoryLink
from workers.engines.fake import FakeEngine, directives, pattern
from workers.engines.interface import (
    Cancel,
    Command,
    Draw,
    Drawn,
    Failed,
    Item,
    PhaseBegan,
    Pictured,
    Previewed,
    Quit,
    Report,
    Resident,
    Setup,
    Stepped,
    Stopped,
)

SETUP = Setup(engine="fake", label="cpu0", device="cpu", device_name="CPU", memory_bytes=250)


def entry(name: str = "shapes") -> ModelEntry:
    """Return a model of 100 bytes."""
    return ModelEntry(
        name=name,
        kind=Kind.CHECKPOINT,
        layout=Layout.DIFFUSERS,
        family="sd15",
        path=Path("/nowhere"),
        fingerprint=name.ljust(64, "0"),
        components=(Component(name="unet", bytes=100, parameters=50, dtype="F16"),),
        native_size=128,
        latent_factor=8,
        latent_channels=4,
    )


def item(prompt: str = "[[step=0]]", *, model: str = "shapes", **changes: object) -> Item:
    """Return an item of two pictures of four steps."""
    parameters = Txt2ImgParameters(
        model=model,
        prompt=prompt,
        width=64,
        height=32,
        steps=4,
        guidance_scale=1.0,
        scheduler="Euler",
        seed=5,
        preview_every=2,
        num_images=2,
    ).model_copy(update=changes)
    return Item(uuid4(), 1, parameters, Inputs({entry(model).ref: entry(model)}))


def run(*commands: Command, answer: Callable[[Report], Command | None] = lambda _: None) -> MemoryLink:
    """Let an engine serve commands to the end."""
    link = MemoryLink([*commands, Quit()], answer)
    FakeEngine(SETUP).run(link)
    return link


def test_engine_reports_everything_in_order() -> None:
    """An item's phases, steps, previews and pictures come in the order they happen, and its end last."""
    drawn = item()
    link = run(Draw((drawn,)))
    assert [report.phase for report in link.of(PhaseBegan)] == ["load", "encode", "step", "decode", "step", "decode"]
    assert [(report.step, report.steps, report.image) for report in link.of(Stepped)] == [
        (step, 8, (step - 1) // 4) for step in range(1, 9)
    ]
    assert [(report.image, report.step) for report in link.of(Previewed)] == [(0, 2), (0, 4), (1, 2), (1, 4)]
    assert [(report.index, report.seed, len(report.rgb)) for report in link.of(Pictured)] == [
        (0, 5, 64 * 32 * 3),
        (1, 6, 64 * 32 * 3),
    ]
    assert link.reports[-1] == Drawn(drawn.job, 1, link.of(Drawn)[0].seconds)


REF = upload_ref("0" * 64)


def source(width: int, height: int) -> bytes:
    """Return a picture file of this size."""
    file = io.BytesIO()
    Image.new("RGB", (width, height)).save(file, "PNG")
    return file.getvalue()


OWN: dict[str, Any] = {"model": "shapes", "seed": 5, "preview_every": 0, "image": REF}
INPAINT = InpaintParameters(
    **OWN, prompt="[[step=0]]", mask=REF, width=64, height=32, steps=4, guidance_scale=1.0, scheduler="Euler"
)


@pytest.mark.parametrize(
    ("parameters", "size"),
    [
        (item(hires=Hires(scale=1.6), num_images=1).parameters, (104, 48)),
        (INPAINT, (64, 32)),
        (INPAINT.model_copy(update={"outpaint": Outpaint(left=8, bottom=16)}), (72, 48)),
        (INPAINT.model_copy(update={"inpaint_area": "masked"}), (33, 21)),
        (
            UpscaleParameters(
                **OWN, width=99, height=63, source_width=33, source_height=21, scale=3.0, upscaler="lanczos", upscaler_scale=1
            ),
            (99, 63),
        ),
        (PreprocessParameters(**OWN, width=33, height=21, preprocessor="canny"), (33, 21)),
    ],
    ids=["hires", "inpaint", "outpaint", "masked", "upscale", "preprocess"],
)  # fmt: skip
def test_engine_makes_pictures_of_the_size_a_real_one_would(parameters: JobParameters, size: tuple[int, int]) -> None:
    """Second passes, grown sides, enlargements and cut-outs end at their own sizes."""
    drawn = Item(uuid4(), 1, parameters, Inputs({entry().ref: entry()}, {REF: source(33, 21)}))
    link = run(Draw((drawn,)))
    assert [(report.width, report.height, len(report.rgb)) for report in link.of(Pictured)] == [
        (*size, size[0] * size[1] * 3)
    ]


def test_engine_fails_an_item_whose_picture_was_not_handed_over() -> None:
    """A job that starts from a picture is not drawn without it."""
    link = run(Draw((Item(uuid4(), 1, INPAINT, Inputs({entry().ref: entry()})),)))
    assert [report.code for report in link.of(Failed)] == ["picture_unreadable"]


def test_engine_keeps_models_while_memory_allows() -> None:
    """Two models fit; the third pushes out the one not used longest, and what stayed is not loaded again."""
    names = ["a", "b", "a", "c", "a", "b"]
    link = run(*(Draw((item(model=name),)) for name in names))
    loaded = [report.models[-1][0] for report in link.of(Resident)]
    assert loaded == ["a", "b", "c", "b"]
    assert [report.loads for report in link.of(Resident)] == [1, 2, 3, 4]


def test_engine_stops_at_the_next_step() -> None:
    """A cancel heard during a step stops the item after that step; the next item is drawn."""
    first, second = item(), item()

    def cancel_at_third(report: Report) -> Command | None:
        return Cancel(first.job, 1) if report == Stepped(first.job, 1, 3, 8, 0) else None

    link = run(Draw((first, second)), answer=cancel_at_third)
    assert max(report.step for report in link.of(Stepped) if report.job == first.job) == 3
    assert link.of(Stopped) == [Stopped(first.job, 1)]
    assert [report.job for report in link.of(Drawn)] == [second.job]


def test_engine_drops_a_waiting_item_at_once() -> None:
    """A cancel of an item that waits behind another is answered while that one is drawn."""
    first, second = item(), item()

    def cancel_second(report: Report) -> Command | None:
        return Cancel(second.job, 1) if report == Stepped(first.job, 1, 1, 8, 0) else None

    link = run(Draw((first, second)), answer=cancel_second)
    assert link.reports.index(Stopped(second.job, 1)) < link.reports.index(link.of(Drawn)[0])
    assert [report.job for report in link.of(Drawn)] == [first.job]


def test_engine_ignores_a_cancel_of_another_epoch() -> None:
    """Only the very claim that is named is stopped."""
    first = item()
    link = run(Draw((first,)), Cancel(first.job, 2), Cancel(uuid4(), 1))
    assert link.of(Stopped) == []
    assert len(link.of(Drawn)) == 1


@pytest.mark.parametrize(
    ("directive", "code"), [("oom", "out_of_memory"), ("raise", "drawing_failed"), ("invalid", "picture_invalid")]
)
def test_engine_fails_one_item_alone(directive: str, code: str) -> None:
    """An error is reported with its code, and the next item is drawn."""
    first, second = item(f"[[{directive}]][[step=0]]"), item()
    link = run(Draw((first, second)))
    assert [(report.job, report.code) for report in link.of(Failed)] == [(first.job, code)]
    assert [report.job for report in link.of(Drawn)] == [second.job]


class BrokenDevice(FakeEngine):
    """An engine whose device does not recover."""

    def recover(self) -> None:
        """End the process."""
        raise SystemExit(86)


def test_engine_does_not_blame_the_job_for_a_broken_device() -> None:
    """When the device does not recover, the process ends before the item is reported as failed: its agent hears of the death alone."""
    link = MemoryLink([Draw((item("[[raise]][[step=0]]"),)), Quit()])
    with pytest.raises(SystemExit):
        BrokenDevice(SETUP).run(link)
    assert link.of(Stepped) != []
    assert link.of(Failed) == []


def test_pattern_follows_from_model_parameters_and_seed() -> None:
    """What shapes the picture changes it; what is about delivery does not."""
    asked = item().parameters
    first = pattern(entry().model_key, asked, 5, (64, 32))
    assert pattern(entry().model_key, asked.model_copy(update={"priority": 1, "num_images": 4}), 5, (64, 32)) == first
    others = [
        pattern(entry("other").model_key, asked, 5, (64, 32)),
        pattern(entry().model_key, asked.model_copy(update={"prompt": "y"}), 5, (64, 32)),
        pattern(entry().model_key, asked, 6, (64, 32)),
    ]
    assert first not in others
    assert len(set(others)) == 3


def test_directives_read_names_and_figures() -> None:
    """A prompt may carry several."""
    assert directives("a [[step=0.5]] cat [[load-hang]]") == {"step": 0.5, "load-hang": 0.0}
