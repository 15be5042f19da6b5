"""Which requests are admitted, what is filled in, and what refusals say."""

import hashlib
from pathlib import Path
from types import MappingProxyType
from typing import Any
from uuid import uuid4

import pytest

from broker_api.admission.admission import Admission, request_hash
from broker_api.admission.refusals import NoModels
from jobs.contract import Txt2ImgParameters, parse_request
from jobs.errors import RequestRefused
from jobs.fleet import Fleet, WorkerFacts, WorkerView
from jobs.intake import NewJob
from models_registry.entries import Component, Kind, Layout, ModelEntry, ModelRef
from models_registry.offers import Catalogue
from models_registry.schedulers import find_scheduler

GIB = 1024**3


def entry(name: str = "shapes-sd15", **changes: Any) -> ModelEntry:
    """Make a model of 5 GiB at half precision."""
    values: dict[str, Any] = {
        "name": name,
        "kind": Kind.CHECKPOINT,
        "layout": Layout.DIFFUSERS,
        "family": "sd15",
        "path": Path("/models") / name,
        "fingerprint": hashlib.sha256(name.encode()).hexdigest(),
        "components": (Component(name="unet", bytes=5 * GIB, parameters=5 * GIB // 2, dtype="F16"),),
        "native_size": 512,
        "latent_factor": 8,
        "latent_channels": 4,
    }
    return ModelEntry(**(values | changes))


def worker(name: str, hardware: str, memory: int, tags: tuple[str, ...] = ()) -> WorkerView:
    """Make a worker that is online."""
    serves = (hardware, *tags)
    facts = WorkerFacts(
        name=name, run=uuid4(), host="h", pid=1, device="d", device_name="d", hardware=hardware, serves=serves, tags=tags,
        tasks=("txt2img",), queues=tuple(f"txt2img.{each}" for each in serves), memory_bytes=memory, engine="fake", version="0",
    )  # fmt: skip
    return WorkerView(
        **facts.model_dump(), state="idle", online=True, warm=(), loads=0, current=(),
        started_at="2026-01-01T00:00:00Z", seen_at="2026-01-01T00:00:00Z",
    )  # fmt: skip


def admission(*entries: ModelEntry, workers: tuple[WorkerView, ...] = (), missing: tuple[str, ...] = ()) -> Admission:
    """Make an admission over these models and workers."""
    catalogue = Catalogue(
        MappingProxyType({each.ref: each for each in entries}),
        frozenset(ModelRef(Kind.CHECKPOINT, name) for name in missing),
    )
    return Admission(catalogue, Fleet(workers=workers), max_pixels=16 * 2**20, draw_seed=lambda: 1234)


def request(**fields: Any) -> Any:
    """Parse a request."""
    return parse_request({"prompt": "a red circle", **fields})


def drawn_by(job: NewJob) -> Txt2ImgParameters:
    """Return what a text-to-image job is drawn from."""
    assert isinstance(job.parameters, Txt2ImgParameters)
    return job.parameters


def test_admit_fills_in_every_default() -> None:
    """What a request leaves out comes from the model, then from its family; a drawn seed is reported."""
    job = admission(entry(default_steps=20, default_scheduler="Euler a")).admit(request(), owner="ann")
    drawn = drawn_by(job)
    assert (drawn.model, drawn.width, drawn.height, drawn.steps) == ("shapes-sd15", 512, 512, 20)
    assert (drawn.guidance_scale, drawn.scheduler, drawn.schedule_type, drawn.seed) == (7.0, "Euler a", None, 1234)
    assert drawn.preview_every == 2
    assert (job.owner, job.model_key, job.hardware) == ("ann", entry().model_key, "cpu")


def test_admit_keeps_what_was_asked_for() -> None:
    """Nothing that was given is changed, zeros neither; names become canonical."""
    asked = request(
        model="SHAPES-SD15", width=640, height=448, steps=1, guidance_scale=0, scheduler="dpmpp_2m karras", seed=2**64 - 1, preview_every=0,
    )  # fmt: skip
    drawn = drawn_by(admission(entry()).admit(asked, owner="ann"))
    assert (drawn.width, drawn.height, drawn.steps, drawn.guidance_scale) == (640, 448, 1, 0)
    assert (drawn.model, drawn.scheduler, drawn.schedule_type) == ("shapes-sd15", "DPM++ 2M", "karras")
    assert (drawn.seed, drawn.preview_every) == (2**64 - 1, 0)


def test_admit_takes_a_schedule_type_alone() -> None:
    """It replaces the one the model's usual scheduler comes with."""
    drawn = drawn_by(admission(entry()).admit(request(schedule_type="exponential"), owner="ann"))
    assert (drawn.scheduler, drawn.schedule_type) == ("DPM++ 2M", "exponential")


def test_admit_fills_in_names_that_a_worker_finds() -> None:
    """Scheduler and schedule type of every admitted job are canonical: finding them again changes nothing."""
    drawn = drawn_by(admission(entry()).admit(request(scheduler="DPM++ 2M SDE Heun Exponential"), owner="ann"))
    found = find_scheduler(drawn.scheduler, drawn.schedule_type)
    assert (found.name, found.schedule_type) == (drawn.scheduler, drawn.schedule_type)


@pytest.mark.parametrize(
    ("fields", "code", "field", "says"),
    [
        ({"model": "shapes-sd51"}, "model_unknown", "model", "shapes-sd15"),
        ({"model": "gone"}, "model_unknown", "model", "away"),
        ({"width": 100}, "size_unsupported", "width", "multiple of 8"),
        ({"height": 104, "width": 131}, "size_unsupported", "width", "multiple of 8"),
        ({"height": 32}, "size_unsupported", "height", "64"),
        ({"width": 10_000, "height": 10_000}, "size_unsupported", "width", "4096"),
        ({"width": 4096, "height": 4104}, "size_unsupported", "height", "4096"),
        ({"scheduler": "DPM++ 2MM"}, "scheduler_unknown", "scheduler", "DPM++ 2M"),
        ({"scheduler": "x"}, "scheduler_unknown", "scheduler", "x"),
        ({"schedule_type": "karas"}, "schedule_type_unknown", "schedule_type", "karras"),
        (
            {"scheduler": "Euler a", "schedule_type": "karras"},
            "schedule_type_unknown",
            "schedule_type",
            "cannot follow",
        ),
        ({"hardware": "gpu-7g"}, "hardware_unknown", "hardware", "gpu-8g"),
        ({"hardware": "blue"}, "hardware_unknown", "hardware", "red"),
    ],
)
def test_admit_refuses_what_cannot_be_done(fields: dict[str, Any], code: str, field: str, says: str) -> None:
    """Each refusal has a code, names the field, and helps."""
    workers = (worker("gpu0@a", "gpu-24g", 24 * GIB, tags=("red",)),)
    with pytest.raises(RequestRefused) as refused:
        admission(entry(), workers=workers, missing=("gone",)).admit(request(**fields), owner="ann")
    assert (refused.value.code, refused.value.field) == (code, field)
    assert says in refused.value.message


def test_admit_refuses_too_many_pixels() -> None:
    """The server's own limit holds below the family's."""
    tight = Admission(admission(entry()).catalogue, Fleet(), max_pixels=512 * 512)
    assert tight.admit(request(width=512, height=512), owner="ann")
    with pytest.raises(RequestRefused) as refused:
        tight.admit(request(width=520, height=512), owner="ann")
    assert (refused.value.code, refused.value.field) == ("size_unsupported", "width")


def test_admit_refuses_what_no_worker_holds() -> None:
    """A job that no registered worker has the memory for is refused with the figures."""
    small = (worker("gpu0@a", "gpu-8g", 4 * GIB),)
    with pytest.raises(RequestRefused) as refused:
        admission(entry(), workers=small).admit(request(), owner="ann")
    assert refused.value.code == "too_large_for_fleet"
    assert "4.0 GiB" in refused.value.message


def test_admit_without_any_model_says_so() -> None:
    """A fresh installation tells what to do."""
    with pytest.raises(NoModels, match="models scan"):
        admission().admit(request(), owner="ann")


def test_admit_routes_to_the_smallest_class_that_holds_the_job() -> None:
    """The route comes from the fleet, a tag that was asked for stands."""
    workers = (worker("gpu0@a", "gpu-24g", 24 * GIB, tags=("red",)), worker("gpu0@b", "gpu-80g", 80 * GIB))
    place = admission(entry(), workers=workers)
    assert place.admit(request(), owner="ann").hardware == "gpu-24g"
    assert place.admit(request(hardware="red"), owner="ann").hardware == "red"


def test_request_hash_ignores_how_the_json_was_written() -> None:
    """Order of fields and defaults written out make no other request; a changed value does."""
    assert request_hash(request(seed=-1, steps=5)) == request_hash(request(steps=5))
    assert request_hash(request(labels={"a": "1"})) != request_hash(request(labels={"a": "2"}))
    assert request_hash(request(seed=1)) != request_hash(request(seed=2))
