"""Which class or tag a job goes to."""

from datetime import UTC, datetime
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.errors import HardwareUnknown, TooLargeForFleet
from jobs.fleet import Fleet, WorkerView
from jobs.routing import CLASSES, GIB, GPU_CLASSES, hardware_class, queues_of, route, served_by


def _worker(name: str, hardware: str, gib: float, *, online: bool = True, tags: tuple[str, ...] = ()) -> WorkerView:
    now = datetime.now(UTC)
    serves = served_by(hardware, tags)
    return WorkerView(
        name=name,
        run=uuid4(),
        host="h",
        pid=1,
        device="d",
        device_name="D",
        hardware=hardware,
        serves=serves,
        tags=tags,
        tasks=("txt2img",),
        queues=tuple(queues_of(["txt2img"], serves)),
        memory_bytes=int(gib * GIB),
        engine="fake",
        version="1",
        state="idle",
        online=online,
        warm=(),
        loads=0,
        current=(),
        started_at=now,
        seen_at=now,
    )


SMALL, LARGE, CPU = _worker("s", "gpu-8g", 7.6), _worker("l", "gpu-24g", 23.5), _worker("c", "cpu", 16)


@pytest.mark.parametrize(
    ("gib", "expected"),
    [
        (7.6, "gpu-8g"),
        (4, "gpu-8g"),
        (11.6, "gpu-12g"),
        (22.5, "gpu-24g"),
        (23.6, "gpu-24g"),
        (44.4, "gpu-48g"),
        (79.2, "gpu-80g"),
        (139.8, "gpu-141g"),
    ],
)
def test_hardware_class_counts_nominal_sizes(gib: float, expected: str) -> None:
    """A card sold as 24 GB counts as such though its driver shows a little less."""
    assert hardware_class("gpu", int(gib * GIB)) == expected


def test_served_by_serves_its_class_those_below_and_its_tags() -> None:
    """A larger card helps out below; CPU queues are for CPU workers alone."""
    assert served_by("gpu-16g", ("fast",)) == ("gpu-16g", "gpu-12g", "gpu-8g", "fast")
    assert served_by("cpu", ("a", "b")) == ("cpu", "a", "b")


def test_route_takes_the_smallest_that_holds_the_job() -> None:
    """Large cards are kept for what needs them."""
    fleet = Fleet(workers=(LARGE, SMALL, CPU))
    assert route("txt2img", 6 * GIB, None, fleet) == "gpu-8g"
    assert route("txt2img", 10 * GIB, None, fleet) == "gpu-24g"


def test_route_falls_back_to_cpu_while_no_gpu_can() -> None:
    """Without a capable GPU a CPU worker draws, slowly."""
    assert route("txt2img", 10 * GIB, None, Fleet(workers=(SMALL, CPU))) == "cpu"
    away = LARGE.model_copy(update={"online": False})
    assert route("txt2img", 6 * GIB, None, Fleet(workers=(away, CPU))) == "cpu"


def test_route_waits_for_one_that_is_away_rather_than_refuse() -> None:
    """A known worker that could do it counts, also while it is away."""
    away = LARGE.model_copy(update={"online": False})
    assert route("txt2img", 20 * GIB, None, Fleet(workers=(away, SMALL))) == "gpu-24g"
    assert route("txt2img", 20 * GIB, None, Fleet()) == "cpu"


def test_route_refuses_what_no_worker_could_hold() -> None:
    """An impossible job is refused at once, with the figures."""
    with pytest.raises(TooLargeForFleet, match=r"30\.0 GiB.*23\.5 GiB"):
        route("txt2img", 30 * GIB, None, Fleet(workers=(LARGE, SMALL)))


def test_route_follows_the_tag_that_was_asked_for() -> None:
    """Known classes and tags are followed, also while their workers are away; unknown ones are refused."""
    tagged = _worker("t", "cpu", 16, online=False, tags=("a",))
    fleet = Fleet(workers=(tagged, SMALL))
    assert route("txt2img", GIB, "a", fleet) == "a"
    assert route("txt2img", GIB, "gpu-80g", fleet) == "gpu-80g"
    with pytest.raises(HardwareUnknown) as refused:
        route("txt2img", GIB, "b", fleet)
    assert refused.value.field == "hardware"
    with pytest.raises(TooLargeForFleet):
        route("txt2img", 17 * GIB, "a", fleet)


@given(st.integers(0, 200 * GIB), st.lists(st.sampled_from([SMALL, LARGE, CPU]), unique=True))
def test_route_always_leads_to_a_worker_that_holds_the_job(needs: int, workers: list[WorkerView]) -> None:
    """Whatever the fleet, a chosen class is served by someone large enough."""
    fleet = Fleet(workers=tuple(workers))
    try:
        chosen = route("txt2img", needs, None, fleet)
    except TooLargeForFleet:
        assert all(worker.memory_bytes < needs for worker in workers)
        return
    assert chosen in CLASSES
    if workers:
        assert any(chosen in worker.serves and worker.memory_bytes >= needs for worker in workers)


def test_wakes_reach_a_worker_that_can() -> None:
    """One wake-up a job among equals; where memory differs, everyone is asked."""
    small, large = _worker("a", "cpu", 1, tags=("t",)), _worker("b", "cpu", 64, tags=("t",))
    away = _worker("c", "cpu", 8, online=False)
    assert Fleet(workers=(small, large, away)).wakes_for("txt2img.t", 1) == 2
    assert Fleet(workers=(large, large.model_copy(update={"name": "d"}))).wakes_for("txt2img.cpu", 1) == 1
    assert Fleet(workers=(large, large.model_copy(update={"name": "d"}))).wakes_for("txt2img.cpu", 9) == 2
    assert Fleet().wakes_for("txt2img.cpu", 5) == 1


def test_classes_grow() -> None:
    """Smallest first: routing relies on it."""
    assert [entry.memory_bytes for entry in GPU_CLASSES] == sorted(entry.memory_bytes for entry in GPU_CLASSES)
