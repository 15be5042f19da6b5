"""Decisions about held jobs, with an engine and a keeper of outcomes that only write down what they are told."""

import math
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from infra.settings import Settings
from jobs.claims import ClaimedJob
from jobs.contract import Txt2ImgParameters
from jobs.errors import JobFailure, PictureUnreadable
from jobs.events import Event
from jobs.inputs import Inputs
from jobs.intake import lora_key
from jobs.parts import Lora
from models_registry.entries import Kind, Layout, ModelEntry
from workers.directed import Room
from workers.engines.interface import (
    Cancel,
    Command,
    Draw,
    Drawn,
    Failed,
    PhaseBegan,
    Pictured,
    Resident,
    Stepped,
    Stopped,
)
from workers.foreman import MOST_UNSTORED, Foreman
from workers.held import Held
from workers.phases import PhaseClock, PhaseLimits
from workers.progress import Feed, Narrator

LIMITS = PhaseLimits.of(Settings(step_limit_seconds=0.15, load_limit_seconds=5))
ENTRY = ModelEntry(
    name="shapes",
    kind=Kind.CHECKPOINT,
    layout=Layout.DIFFUSERS,
    family="sd15",
    path=Path("/nowhere"),
    fingerprint="0" * 64,
    components=(),
    native_size=128,
    latent_factor=8,
    latent_channels=4,
)
STEPS = 10


class SilentWriter:
    """Stand where Redis would: these tests look at decisions alone."""

    def publish(self, events: list[Event]) -> int:
        """Take events to nowhere."""
        return len(events)


@dataclass
class EngineLog:
    """Write down commands."""

    commands: list[tuple[int, Command]] = field(default_factory=list)
    killed: list[int] = field(default_factory=list)

    def send(self, life: int, command: Command) -> None:
        """Write down a command."""
        self.commands.append((life, command))

    def kill(self, life: int) -> None:
        """Write down a kill."""
        self.killed.append(life)


@dataclass
class OutcomeLog:
    """Write down outcomes: what happened, and to which job."""

    outcomes: list[tuple[str, UUID]] = field(default_factory=list)
    happened: threading.Condition = field(default_factory=threading.Condition)
    storage: bool = True

    def can_store(self) -> bool:
        """Say what the test has set."""
        return self.storage

    def _note(self, what: str, held: Held) -> None:
        with self.happened:
            self.outcomes.append((what, held.job.id))
            self.happened.notify_all()

    def picture(self, held: Held, report: Pictured) -> None:
        """Write down a picture."""
        self._note(f"picture {report.index}", held)

    def complete(self, held: Held, seconds: float) -> None:
        """Write down a success."""
        del seconds
        self._note("complete", held)

    def fail(self, held: Held, failure: JobFailure) -> None:
        """Write down a failure."""
        self._note(failure.code, held)

    def stopped(self, held: Held) -> None:
        """Write down a cancel."""
        self._note("stopped", held)

    def hand_back(self, held: Held, reason: str) -> None:
        """Write down a return."""
        self._note(f"handed back: {reason}", held)

    def discard(self, held: Held) -> None:
        """Write down a loss."""
        self._note("discarded", held)

    def wait_for(self, count: int) -> None:
        """Wait until so many outcomes are written down."""
        with self.happened:
            assert self.happened.wait_for(lambda: len(self.outcomes) >= count, 5)


@dataclass
class Desk:
    """A foreman with everything around him."""

    foreman: Foreman
    engine: EngineLog
    outcomes: OutcomeLog

    def take(self, lease: float = 60.0, *, fetching: bool = False) -> Held:
        """Give him a claimed job."""
        parameters = Txt2ImgParameters(
            model="shapes",
            prompt="x",
            width=64,
            height=64,
            steps=STEPS,
            guidance_scale=1.0,
            scheduler="Euler",
            seed=1,
            preview_every=0,
        )
        now = datetime.now(UTC)
        job = uuid4()
        before = Event(job=job, epoch=0, seq=1, type="queued", at=now, data={})
        claimed = ClaimedJob(job, 1, "ann", "txt2img.cpu", parameters, "shapes@0", 0, 0, now, before)
        narrator = Narrator(SilentWriter(), print)  # type: ignore[arg-type]
        held = Held(
            claimed, Inputs({ENTRY.ref: ENTRY}), Feed(narrator, job, 1, 2), PhaseClock(LIMITS), time_after(lease)
        )
        held.fetching = fetching
        self.foreman.take(held)
        return held

    def draw(self, held: Held, step: int, life: int = 1) -> None:
        """Report that a job is at a step."""
        self.foreman.engine_said(life, PhaseBegan(*held.key, "step"))
        self.foreman.engine_said(life, Stepped(*held.key, step, STEPS, 0))


def time_after(seconds: float) -> float:
    """Return a monotonic time."""
    import time  # noqa: PLC0415 - hidden so that no test reads a clock by accident

    return time.monotonic() + seconds


@pytest.fixture
def desk() -> Iterator[Desk]:
    """Give a test a foreman whose engine is ready and whose watch runs."""
    foreman, engine, outcomes = Foreman(LIMITS, 60.0), EngineLog(), OutcomeLog()
    foreman.employ(engine, outcomes)
    leaving = threading.Event()
    watch = threading.Thread(target=foreman.watch, args=(leaving,), daemon=True)
    watch.start()
    foreman.engine_ready(1)
    yield Desk(foreman, engine, outcomes)
    leaving.set()
    foreman.nudge()
    watch.join(5)


def drawn_items(engine: EngineLog) -> list[tuple[int, UUID]]:
    """Return what was sent to which life of the engine."""
    return [(life, item.job) for life, said in engine.commands if isinstance(said, Draw) for item in said.items]


def room(foreman: Foreman) -> Room | None:
    """Return whether there is room now, without waiting for it."""
    answer: list[Room | None] = []
    asking = threading.Thread(target=lambda: answer.append(foreman.wait_for_room()), daemon=True)
    asking.start()
    asking.join(0.05)
    return answer[0] if answer else None


def test_foreman_claims_ahead_only_when_the_job_is_nearly_drawn(desk: Desk) -> None:
    """Two steps before the end there is room for one more job, and not for a third."""
    first = desk.take()
    desk.draw(first, STEPS - 3)
    assert room(desk.foreman) is None
    desk.draw(first, STEPS - 2)
    assert room(desk.foreman) == Room("shapes@0", "", first.key)
    second = desk.take()
    assert drawn_items(desk.engine) == [(1, first.job.id), (1, second.job.id)]
    assert room(desk.foreman) is None


def test_foreman_asks_once_ahead_of_a_job(desk: Desk) -> None:
    """When there was nothing to claim ahead, the next question comes when the engine is free."""
    first = desk.take()
    desk.draw(first, STEPS - 1)
    desk.foreman.nothing_ahead_of(first.key)
    assert room(desk.foreman) is None
    desk.foreman.engine_said(1, Resident(("shapes@0",), 1, 10))
    desk.foreman.engine_said(1, Drawn(*first.key, 1.0))
    assert room(desk.foreman) == Room("shapes@0", "", None)


def test_foreman_claims_no_further_while_storing_lags(desk: Desk) -> None:
    """With several jobs drawn and not yet stored, the engine waits for the storage."""
    unstored = []
    for _ in range(MOST_UNSTORED):
        assert room(desk.foreman) is not None
        unstored.append(desk.take())
        desk.foreman.engine_said(1, Drawn(*unstored[-1].key, 1.0))
    assert room(desk.foreman) is None
    desk.foreman.release(unstored[0])
    assert room(desk.foreman) is not None


def test_foreman_claims_nothing_while_the_storage_is_away(desk: Desk) -> None:
    """What could not be stored is not drawn: there is room only once the storage is back, and then at once."""
    desk.outcomes.storage = False
    answer: list[Room | None] = []
    asking = threading.Thread(target=lambda: answer.append(desk.foreman.wait_for_room()), daemon=True)
    asking.start()
    asking.join(0.05)
    assert answer == []
    desk.outcomes.storage = True
    desk.foreman.nudge()
    asking.join(5)
    assert answer == [Room(None, "", None)]


def test_foreman_charges_only_the_job_that_was_drawn(desk: Desk) -> None:
    """When the engine dies, the job behind the first goes back at once, uncharged; the next engine draws what is claimed then."""
    first = desk.take()
    desk.draw(first, STEPS - 1)
    second = desk.take()
    desk.foreman.engine_died(1, -9)
    assert desk.outcomes.outcomes == [("engine_died", first.job.id), ("handed back: engineless", second.job.id)]
    assert room(desk.foreman) is None
    desk.foreman.engine_ready(2)
    third = desk.take()
    assert drawn_items(desk.engine)[-1] == (2, third.job.id)
    desk.foreman.engine_said(2, Drawn(*third.key, 1.0))
    assert desk.outcomes.outcomes[-1] == ("complete", third.job.id)


def test_foreman_hands_back_what_was_claimed_when_the_engine_died(desk: Desk) -> None:
    """A claim that was on its way while the engine ended keeps no job waiting for the next one."""
    desk.foreman.engine_died(1, 1)
    first = desk.take()
    assert desk.outcomes.outcomes == [("handed back: engineless", first.job.id)]
    assert room(desk.foreman) is None


def test_foreman_kills_an_engine_whose_step_does_not_end(desk: Desk) -> None:
    """A step beyond its limit is not renewed any more; the engine is killed and the phase named."""
    held = desk.take()
    desk.draw(held, 1)
    while not desk.engine.killed:
        threading.Event().wait(0.01)
    assert desk.engine.killed == [1]
    assert desk.foreman.beats() == []
    desk.foreman.engine_died(1, -9)
    assert desk.outcomes.outcomes == [("phase_timeout", held.job.id)]


def test_foreman_gives_the_next_job_its_own_limits(desk: Desk) -> None:
    """A job that waits behind another is not overdue, however long that one takes."""
    first = desk.take()
    desk.draw(first, STEPS - 1)
    second = desk.take()
    assert second.clock.deadline == math.inf
    desk.foreman.engine_said(1, Drawn(*first.key, 1.0))
    assert second.clock.stage == "load"


def test_foreman_stops_what_another_writer_has(desk: Desk) -> None:
    """A job missing from the heartbeat's answer is stopped, and nothing of it is recorded, not even its picture."""
    held = desk.take()
    desk.draw(held, 1)
    beats = desk.foreman.beats()
    assert [(beat.job, beat.step) for beat in beats] == [(held.job.id, 1)]
    desk.foreman.renewed(time_after(0), beats, {})
    assert desk.engine.commands[-1] == (1, Cancel(*held.key))
    assert desk.foreman.beats() == []
    desk.foreman.engine_said(1, Pictured(*held.key, 0, 1, 1, 1, b"\0\0\0"))
    desk.foreman.engine_said(1, Drawn(*held.key, 1.0))
    assert desk.outcomes.outcomes == [("discarded", held.job.id)]


def test_foreman_stops_by_its_own_clock(desk: Desk) -> None:
    """With the database out of reach, a job is stopped when its lease must be over, and offered back."""
    held = desk.take(lease=0.05)
    while not any(isinstance(said, Cancel) for _, said in desk.engine.commands):
        threading.Event().wait(0.01)
    assert desk.foreman.beats() == []
    desk.foreman.engine_said(1, Stopped(*held.key))
    assert desk.outcomes.outcomes == [("handed back: lapsed", held.job.id)]


def test_foreman_completes_what_was_drawn_before_it_stopped(desk: Desk) -> None:
    """A job that ended while it was to stop for a lapsed lease is recorded: the database decides whether it counts."""
    held = desk.take(lease=0.0)
    desk.foreman.engine_said(1, Drawn(*held.key, 1.0))
    assert desk.outcomes.outcomes == [("complete", held.job.id)]


@pytest.mark.parametrize("end", ["stopped", "drawn", "failed", "died"])
def test_foreman_cancels_only_when_nothing_runs(desk: Desk, end: str) -> None:
    """However the engine lets go of a cancelled job, it is recorded as cancelled then and not before."""
    held = desk.take()
    desk.draw(held, 1)
    desk.foreman.cancel(held.job.id)
    desk.foreman.cancel(uuid4())
    assert [said for _, said in desk.engine.commands if isinstance(said, Cancel)] == [Cancel(*held.key)]
    assert desk.outcomes.outcomes == []
    ends: dict[str, Any] = {
        "stopped": Stopped(*held.key),
        "drawn": Drawn(*held.key, 1.0),
        "failed": Failed(*held.key, "drawing_failed", "x"),
    }
    if end == "died":
        desk.foreman.engine_died(1, -9)
    else:
        desk.foreman.engine_said(1, ends[end])
    assert desk.outcomes.outcomes == [("stopped", held.job.id)]


@pytest.mark.parametrize("why", ["cancelled", "lost", "left"])
def test_foreman_lets_the_job_before_end(desk: Desk, why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job behind a slow decode is late only once the engine is in it: the one before is drawn to its end."""
    monkeypatch.setattr("workers.foreman.LEAVE_SECONDS", 0.1)
    first = desk.take()
    desk.draw(first, STEPS)
    desk.foreman.engine_said(1, PhaseBegan(*first.key, "decode"))
    second = desk.take()
    if why == "cancelled":
        desk.foreman.cancel(second.job.id)
    elif why == "lost":
        desk.foreman.renewed(time_after(0), desk.foreman.beats(), {first.job.id: False})
    else:
        desk.foreman.leave(60)
    assert desk.engine.commands[-1] == (1, Cancel(*second.key))
    threading.Event().wait(0.3)
    assert desk.engine.killed == []
    desk.foreman.engine_said(1, Drawn(*first.key, 1.0))
    assert desk.outcomes.outcomes == [("complete", first.job.id)]
    while not desk.engine.killed:
        threading.Event().wait(0.01)
    desk.foreman.engine_died(1, -9)
    ends = {"cancelled": "stopped", "lost": "discarded", "left": "handed back: drained"}
    assert desk.outcomes.outcomes[1:] == [(ends[why], second.job.id)]


def test_foreman_hears_a_cancel_with_the_heartbeat(desk: Desk) -> None:
    """An answer that carries a cancel stops the job once."""
    held = desk.take()
    for _ in range(2):
        desk.foreman.renewed(time_after(0), desk.foreman.beats(), {held.job.id: True})
    assert [said for _, said in desk.engine.commands if isinstance(said, Cancel)] == [Cancel(*held.key)]


def test_foreman_leaves_by_handing_back(desk: Desk) -> None:
    """A leaving worker hands back at once what is not begun, later what is not drawn, and takes nothing."""
    first = desk.take()
    desk.draw(first, STEPS - 1)
    second = desk.take()
    desk.foreman.leave(60)
    assert desk.foreman.standing().state == "draining"
    assert desk.engine.commands[-1] == (1, Cancel(*second.key))
    desk.foreman.engine_said(1, Stopped(*second.key))
    assert desk.outcomes.outcomes == [("handed back: drained", second.job.id)]
    desk.foreman.leave(0)
    desk.outcomes.wait_for(1)
    while desk.engine.commands[-1] != (1, Cancel(*first.key)):
        threading.Event().wait(0.01)
    desk.foreman.engine_said(1, Stopped(*first.key))
    late = desk.take()
    assert desk.outcomes.outcomes[1:] == [
        ("handed back: drained", first.job.id),
        ("handed back: drained", late.job.id),
    ]
    assert desk.foreman.wait_for_room() is None


def test_foreman_rests_while_an_operator_wants_it(desk: Desk) -> None:
    """What is begun is drawn to its end, what is not goes back, nothing is claimed; then all is as before."""
    first = desk.take()
    desk.draw(first, STEPS - 1)
    second = desk.take()
    desk.foreman.rest(resting=True)
    assert (desk.foreman.standing().state, desk.foreman.is_resting) == ("draining", True)
    assert desk.engine.commands[-1] == (1, Cancel(*second.key))
    desk.foreman.engine_said(1, Stopped(*second.key))
    late = desk.take()
    desk.foreman.engine_said(1, Drawn(*first.key, 1.0))
    assert desk.outcomes.outcomes == [
        ("handed back: drained", second.job.id), ("handed back: drained", late.job.id), ("complete", first.job.id),
    ]  # fmt: skip
    for held in (first, second, late):
        desk.foreman.release(held)
    rooms: list[Room | None] = []
    waiting = threading.Thread(target=lambda: rooms.append(desk.foreman.wait_for_room()))
    waiting.start()
    desk.foreman.nudge()
    assert rooms == []
    desk.foreman.rest(resting=False)
    waiting.join(5)
    assert [room is not None for room in rooms] == [True]
    assert desk.foreman.standing().state == "idle"


def test_foreman_reports_how_he_does(desk: Desk) -> None:
    """Loads count over the lives of the engine; what is warm is what the present one holds."""
    desk.foreman.engine_said(1, Resident(("a@1",), 2, 10))
    desk.foreman.engine_died(1, -9)
    desk.foreman.engine_ready(2)
    desk.foreman.engine_said(2, Resident(("b@1",), 1, 10))
    held = desk.take()
    standing = desk.foreman.standing()
    assert (standing.loads, standing.warm, standing.state, standing.current) == (3, ("b@1",), "busy", (held.job.id,))


def test_foreman_ignores_what_is_not_held(desk: Desk) -> None:
    """Reports about another life, another epoch or an unknown job mean nothing."""
    held = desk.take()
    desk.foreman.engine_said(7, Drawn(*held.key, 1.0))
    desk.foreman.engine_said(1, Drawn(held.job.id, 99, 1.0))
    desk.foreman.engine_said(1, Drawn(uuid4(), 1, 1.0))
    assert desk.outcomes.outcomes == []


def test_foreman_passes_a_job_on_when_its_pictures_are_here(desk: Desk) -> None:
    """Until then the engine hears nothing of it, its lease is renewed, and no further job is claimed."""
    held = desk.take(fetching=True)
    assert drawn_items(desk.engine) == []
    assert [beat.job for beat in desk.foreman.beats()] == [held.job.id]
    assert room(desk.foreman) is None
    desk.foreman.fetched(held, replace(held.inputs, pictures={"upload:1": b"png"}))
    ((_, said),) = desk.engine.commands
    assert isinstance(said, Draw)
    assert said.items[0].inputs.pictures == {"upload:1": b"png"}
    assert said.items[0].inputs.models == {ENTRY.ref: ENTRY}


@pytest.mark.parametrize(
    ("failure", "outcome"),
    [(PictureUnreadable("gone"), "picture_unreadable"), (None, "handed back: storage_away")],
)
def test_foreman_ends_a_job_whose_pictures_are_not_to_be_had(
    desk: Desk, failure: JobFailure | None, outcome: str
) -> None:
    """A missing picture is the job's failure, a storage that is away is not."""
    held = desk.take(fetching=True)
    desk.foreman.unfetched(held, failure)
    desk.foreman.fetched(held, held.inputs)
    assert desk.outcomes.outcomes == [(outcome, held.job.id)]
    assert desk.engine.commands == []


def test_foreman_stops_a_job_that_is_being_fetched(desk: Desk) -> None:
    """A cancel, a leave and an engine's death end it without a word to the engine; pictures that come late mean nothing."""
    cancelled = desk.take(fetching=True)
    desk.foreman.cancel(cancelled.job.id)
    orphaned = desk.take(fetching=True)
    desk.foreman.engine_died(1, 1)
    desk.foreman.engine_ready(2)
    drained = desk.take(fetching=True)
    desk.foreman.leave(10)
    for held in (cancelled, orphaned, drained):
        desk.foreman.fetched(held, held.inputs)
    assert desk.outcomes.outcomes == [
        ("stopped", cancelled.job.id),
        ("handed back: engineless", orphaned.job.id),
        ("handed back: drained", drained.job.id),
    ]
    assert desk.engine.commands == []
    assert desk.engine.killed == []


def test_foreman_hands_back_a_job_whose_pictures_take_too_long(desk: Desk) -> None:
    """The limit of fetching ends the job, and not the engine."""
    held = desk.take(fetching=True)
    held.clock.deadline = 0.0
    desk.foreman.nudge()
    desk.outcomes.wait_for(1)
    assert desk.outcomes.outcomes == [("handed back: storage_away", held.job.id)]
    assert desk.engine.killed == []


def test_foreman_names_the_stack_that_is_warm(desk: Desk) -> None:
    """The next claim prefers the LoRAs of the job taken last."""
    held = desk.take()
    loras = [Lora(name="frame")]
    stacked = replace(held.job, parameters=held.job.parameters.model_copy(update={"loras": loras}))
    desk.foreman.take(Held(stacked, held.inputs, held.feed, PhaseClock(LIMITS), time_after(60)))
    desk.foreman.engine_said(1, Drawn(*held.key, 0.1))
    found = room(desk.foreman)
    assert found is not None
    assert found.loras == lora_key(stacked.parameters) != ""
