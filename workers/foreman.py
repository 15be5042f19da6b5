"""Decide what happens to the jobs this worker holds: what the engine draws, when it is told to stop, what is recorded in the end.

Every method is short and waits for nothing but the lock: commands, events and records are only queued here. The engine's reader, the
heartbeat, the cancels, the watch and the drain loop all call it from threads of their own.
"""

import math
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Final
from uuid import UUID

from infra.logging import get_logger
from jobs.errors import JobFailure
from jobs.fleet import WorkerState
from jobs.inputs import Inputs
from jobs.intake import lora_key
from jobs.leases import Beat
from workers.directed import EngineHold, OutcomeKeeper, Room, Standing
from workers.engines.interface import (
    Analysed,
    Cancel,
    Draw,
    Drawn,
    Failed,
    Item,
    PhaseBegan,
    Pictured,
    Previewed,
    Ready,
    Report,
    Resident,
    Stepped,
    Stopped,
)
from workers.held import Ending, Held
from workers.phases import PhaseLimits
from workers.recovery import died, judge, overdue

#: Jobs whose pictures are still being stored; with more, the storage is too slow to claim further.
MOST_UNSTORED: Final = 4
#: How long an engine may take to let go of a job when its worker leaves, seconds.
LEAVE_SECONDS: Final = 2.0

LEASE_LOST: Final = "lease_lost"
LEASE_LAPSED: Final = "lease_lapsed"
ENGINE_KILLED: Final = "engine_killed"

log = get_logger(__name__)


class Foreman:
    """Hold jobs for one engine."""

    def __init__(self, limits: PhaseLimits, lease_seconds: float) -> None:
        self._limits = limits
        self._lease_seconds = lease_seconds
        self._engine: EngineHold
        self._outcomes: OutcomeKeeper
        self._changed = threading.Condition(threading.RLock())
        self._held: dict[tuple[UUID, int], Held] = {}
        #: Life of the engine that takes items now.
        self._life: int | None = None
        self._resident = Resident((), 0, 0)
        self._loads_before = 0
        #: The stack of LoRAs of the job taken last.
        self._loras = ""
        self._nothing_ahead_of: tuple[UUID, int] | None = None
        #: An operator wants no job to be taken.
        self._resting = False
        #: Monotonic time at which a leaving worker hands back what is not drawn.
        self._leave_by: float | None = None

    def employ(self, engine: EngineHold, outcomes: OutcomeKeeper) -> None:
        """Connect the two that this one directs; done once, before anything else."""
        self._engine = engine
        self._outcomes = outcomes

    # -- the drain loop ------------------------------------------------------------------------------------------------

    def wait_for_room(self) -> Room | None:
        """Wait until a job may be claimed; None once the worker is leaving and its engine is idle."""
        with self._changed:
            while True:
                drawing = self._in_engine()
                if self._leave_by is not None and not drawing:
                    return None
                if self._has_room(drawing):
                    if drawing:
                        return Room(drawing[0].job.model_key, self._loras, drawing[0].key)
                    return Room(self._resident.models[-1] if self._resident.models else None, self._loras, None)
                self._changed.wait()

    def nothing_ahead_of(self, key: tuple[UUID, int]) -> None:
        """Ask for no further job until this one is drawn: there was none."""
        with self._changed:
            self._nothing_ahead_of = key

    def take(self, held: Held) -> None:
        """Hold a claimed job, and pass it to the engine unless something of it is still being fetched."""
        with self._changed:
            self._held[held.key] = held
            self._loras = lora_key(held.job.parameters)
            if held.fetching:
                held.clock.begin("fetch", time.monotonic())
            else:
                self._pass_on(held)
            self._changed.notify_all()

    def still_fetching(self, held: Held) -> None:
        """Hear that a job's files are on their way: its limit starts anew."""
        with self._changed:
            if not held.ended:
                held.clock.begin("load", time.monotonic())

    def fetched(self, held: Held, inputs: Inputs) -> None:
        """Pass a job to the engine with what it needs, unless it has ended meanwhile."""
        with self._changed:
            if held.ended:
                held.let_go()
            else:
                held.fetching = False
                held.inputs = inputs
                held.clock.begin("waiting", time.monotonic())
                self._pass_on(held)
                self._changed.notify_all()

    def unfetched(self, held: Held, failure: JobFailure | None) -> None:
        """End a job whose files are not to be had: with a failure of its own, or because the storage is away."""
        with self._changed:
            if held.ended:
                return
            if failure is None:
                self._end(held, Ending.UNFETCHED)
            else:
                self._leave_engine(held)
                self._outcomes.fail(held, failure)

    def _pass_on(self, held: Held) -> None:
        if self._resting or self._leave_by is not None:
            self._end(held, Ending.DRAINED)
        elif self._life is None:
            self._end(held, Ending.ENGINELESS)
        else:
            held.life = self._life
            self._engine.send(held.life, Draw((Item(*held.key, held.job.parameters, held.inputs),)))
            self._start_clock(time.monotonic())

    # -- the engine ----------------------------------------------------------------------------------------------------

    def engine_ready(self, life: int) -> None:
        """Let jobs be claimed for a new engine."""
        with self._changed:
            self._life = life
            self._changed.notify_all()

    def engine_said(self, life: int, report: Report) -> None:
        """Act on a report; one about a job that is held no more means nothing."""
        with self._changed:
            if isinstance(report, Resident):
                self._resident = report
            elif not isinstance(report, Ready):
                held = self._held.get((report.job, report.epoch))
                if held is None or held.ended or held.life != life:
                    return
                if isinstance(report, (Drawn, Failed, Stopped)):
                    self._finished(held, report)
                else:
                    self._advanced(held, report, time.monotonic())

    def engine_died(self, life: int, exit_code: int) -> None:
        """Charge the job that was being drawn; what only waited goes back, since others may draw it before the next engine has started."""
        del life
        with self._changed:
            self._life = None
            self._loads_before += self._resident.loads
            self._resident = Resident((), 0, 0)
            for held in self._in_engine():
                if held.ending is not None:
                    self._end(held, held.ending)
                elif held.begun:
                    self._leave_engine(held)
                    self._outcomes.fail(held, died(exit_code))
                else:
                    self._end(held, Ending.ENGINELESS)
            self._changed.notify_all()

    def _advanced(self, held: Held, report: PhaseBegan | Stepped | Previewed | Pictured | Analysed, now: float) -> None:
        held.begun = True
        if isinstance(report, PhaseBegan):
            held.clock.begin(report.phase, now)
            self._changed.notify_all()
        elif isinstance(report, Stepped):
            held.clock.begin("step", now)
            held.step = report.step
            held.feed.stepped(report)
            if held.is_nearly_drawn:
                self._changed.notify_all()
        elif isinstance(report, Previewed):
            held.feed.previewed(report)
        elif isinstance(report, Analysed):
            held.findings = report.findings
        elif held.ending is not Ending.LOST:
            held.clock.begin("decode", now)
            self._outcomes.picture(held, report)

    def _finished(self, held: Held, report: Drawn | Failed | Stopped) -> None:
        if held.ending in {Ending.CANCELLED, Ending.LOST} or isinstance(report, Stopped):
            self._end(held, held.ending or Ending.DRAINED)
            return
        # Whatever else it was to be stopped for, the outcome came first.
        self._leave_engine(held)
        if isinstance(report, Drawn):
            self._outcomes.complete(held, report.seconds)
        else:
            self._outcomes.fail(held, judge(report))

    # -- ends ----------------------------------------------------------------------------------------------------------

    def cancel(self, job: UUID) -> None:
        """Stop a job because its owner wants it no more; nothing happens when it is not held here, or is drawn already."""
        with self._changed:
            for held in self._in_engine():
                if held.job.id == job and held.ending is None:
                    self._stop(held, Ending.CANCELLED)

    def leave(self, seconds: float) -> None:
        """Claim nothing more, hand back what is not begun, and after so many seconds what is not drawn."""
        with self._changed:
            by = time.monotonic() + seconds
            self._leave_by = by if self._leave_by is None else min(by, self._leave_by)
            self._hand_back_unbegun()
            self._changed.notify_all()

    @property
    def is_resting(self) -> bool:
        """Tell whether an operator wants no job to be taken."""
        return self._resting

    def rest(self, *, resting: bool) -> None:
        """Claim nothing and hand back what is not begun, until told otherwise; what is begun is drawn to its end."""
        with self._changed:
            if resting != self._resting:
                self._resting = resting
                if resting:
                    self._hand_back_unbegun()
                self._changed.notify_all()

    def _hand_back_unbegun(self) -> None:
        for held in self._in_engine():
            if not held.begun and held.ending is None:
                self._stop(held, Ending.DRAINED)

    def release(self, held: Held) -> None:
        """Let go of a job whose outcome has been dealt with."""
        held.let_go()
        with self._changed:
            self._held.pop(held.key, None)
            self._changed.notify_all()

    def wait_until_empty(self, seconds: float) -> bool:
        """Wait until nothing is held any more; return whether that was so in time."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._held, seconds)

    def _stop(self, held: Held, ending: Ending) -> None:
        held.ending = ending
        if held.fetching:
            # The engine has never heard of it.
            self._end(held, ending)
            return
        self._engine.send(held.life, Cancel(*held.key))
        # The engine hears it between the steps of the job before: only what it is really in can be late.
        if held.clock.stage != "waiting":
            held.stop_by = min(held.stop_by, time.monotonic() + self._grace(ending))
        self._changed.notify_all()

    def _grace(self, ending: Ending) -> float:
        return LEAVE_SECONDS if ending is Ending.DRAINED else self._limits["step"]

    def _end(self, held: Held, ending: Ending) -> None:
        """Deal with a job of which nothing runs any more."""
        stage, limit = held.clock.stage, held.clock.limit
        self._leave_engine(held)
        if ending is Ending.CANCELLED:
            self._outcomes.stopped(held)
        elif ending is Ending.LOST:
            self._outcomes.discard(held)
        elif ending is Ending.OVERDUE:
            self._outcomes.fail(held, overdue(stage, limit))
        else:
            self._outcomes.hand_back(held, ending.value)

    def _leave_engine(self, held: Held) -> None:
        now = time.monotonic()
        held.ended = True
        held.fetching = False
        held.stop_by = math.inf
        held.clock.begin("store", now)
        self._start_clock(now)
        self._changed.notify_all()

    # -- leases --------------------------------------------------------------------------------------------------------

    def beats(self) -> list[Beat]:
        """Return the jobs whose lease deserves to be renewed: those that make progress."""
        now = time.monotonic()
        with self._changed:
            return [
                Beat(*held.key, held.step)
                for held in self._held.values()
                if held.ending not in {Ending.LOST, Ending.LAPSED, Ending.OVERDUE} and not held.clock.is_overdue(now)
            ]

    def renewed(self, sent_at: float, beats: Sequence[Beat], owned: Mapping[UUID, bool]) -> None:
        """Take in the answer to beats sent at this monotonic time: what is still owned, and whose cancel was asked for."""
        with self._changed:
            for beat in beats:
                held = self._held.get((beat.job, beat.epoch))
                if held is None or held.ended:
                    # Recording is guarded by the database itself.
                    continue
                if beat.job not in owned:
                    log.warning(LEASE_LOST, job=str(beat.job), epoch=beat.epoch)
                    self._stop(held, Ending.LOST)
                else:
                    held.lease_until = sent_at + self._lease_seconds
                    if owned[beat.job] and held.ending is None:
                        self._stop(held, Ending.CANCELLED)

    def watch(self, leaving: threading.Event) -> None:
        """Enforce limits and deadlines until `leaving` is set."""
        with self._changed:
            while not leaving.is_set():
                now = time.monotonic()
                alarm = self._look(now)
                self._changed.wait(None if alarm == math.inf else max(0.0, alarm - now))

    def nudge(self) -> None:
        """Make every waiting thread look again."""
        with self._changed:
            self._changed.notify_all()

    def _look(self, now: float) -> float:
        """Act on what is overdue; return when to look again."""
        handing_back = self._leave_by is not None and now >= self._leave_by
        alarm = math.inf if self._leave_by is None or handing_back else self._leave_by
        for held in self._in_engine():
            if now >= held.stop_by:
                log.warning(ENGINE_KILLED, job=str(held.job.id), reason="not_stopped")
                held.stop_by = math.inf
                self._engine.kill(held.life)
            if held.ending is None:
                self._look_at(held, now, handing_back=handing_back)
            if not held.ended:
                watched = () if held.ending is not None else (held.lease_until, held.clock.deadline)
                alarm = min(alarm, held.stop_by, *watched)
        return alarm

    def _look_at(self, held: Held, now: float, *, handing_back: bool) -> None:
        if now >= held.lease_until:
            log.warning(LEASE_LAPSED, job=str(held.job.id), epoch=held.job.epoch)
            self._stop(held, Ending.LAPSED)
        elif held.fetching and held.clock.is_overdue(now):
            self._stop(held, Ending.UNFETCHED)
        elif held.clock.is_overdue(now):
            log.warning(ENGINE_KILLED, job=str(held.job.id), reason="phase_overdue", phase=held.clock.stage)
            held.ending = Ending.OVERDUE
            self._engine.kill(held.life)
        elif handing_back:
            self._stop(held, Ending.DRAINED)

    def standing(self) -> Standing:
        """Return how the worker does."""
        with self._changed:
            draining = self._resting or self._leave_by is not None
            state: WorkerState = "draining" if draining else "busy" if self._held else "idle"
            loads = self._loads_before + self._resident.loads
            current = tuple(held.job.id for held in self._held.values())
            return Standing(state, tuple(self._resident.models), loads, current, self._resident.ledger)

    # -- inside the lock -----------------------------------------------------------------------------------------------

    def _in_engine(self) -> list[Held]:
        """Return the jobs not yet drawn, in the order of their claims."""
        return [held for held in self._held.values() if not held.ended]

    def _has_room(self, drawing: Sequence[Held]) -> bool:
        if self._life is None or self._resting or self._leave_by is not None or not self._outcomes.can_store():
            return False
        if len(self._held) - len(drawing) >= MOST_UNSTORED:
            return False
        if not drawing:
            return True
        first = drawing[0]
        return len(drawing) == 1 and first.is_nearly_drawn and first.key != self._nothing_ahead_of

    def _start_clock(self, now: float) -> None:
        """Let the first job's limits count: nothing is before it any more."""
        drawing = self._in_engine()
        if drawing and drawing[0].clock.stage == "waiting":
            drawing[0].clock.begin("load", now)
            if drawing[0].ending is not None:
                drawing[0].stop_by = now + self._grace(drawing[0].ending)
