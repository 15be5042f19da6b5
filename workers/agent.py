"""One worker: it claims jobs for the device it owns, has its engine draw them, and records what came of them.

It imports no torch and no pipeline, so it answers at once whatever the engine does. Its threads: the drain loop (Celery's), the engine's
maker and reader, the heartbeat, the listener for cancels, the watch over limits, the fetcher, two recorders, the narrator,
the task events.
"""

import random
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

import celery
import psycopg
import redis

from infra.database import Connection, Pool
from infra.logging import get_logger
from infra.settings import Settings
from infra.storage import Storage
from jobs import roster, store
from jobs.claims import ClaimedJob, Claimer, claim
from jobs.dispatch import wake
from jobs.errors import ModelMissing
from jobs.events import Event, EventWriter
from jobs.fleet import WorkerFacts
from jobs.inputs import Inputs
from jobs.needs import needs_of
from jobs.pictures import uploads_of
from models_registry import catalogue
from workers.cancels import CancelListener
from workers.directed import Room
from workers.engine_process import EngineProcess
from workers.engines.interface import Setup
from workers.fetching import Fetcher
from workers.foreman import Foreman
from workers.heartbeat import Heartbeat
from workers.held import Held
from workers.model_cache import ModelCache
from workers.model_fetching import ModelFetcher
from workers.phases import PhaseClock, PhaseLimits
from workers.progress import Narrator
from workers.recorder import Recorder
from workers.revocation import Revocations
from workers.task_events import JobsAsTasks

#: A claim that lost a race is repeated after at most this, seconds.
RACE_PAUSE: Final = 0.01
#: While the database is away a claim is tried so often, seconds.
DATABASE_PAUSE: Final = 0.5
#: What a leaving worker grants its recorders beyond the drain, and then its narrator, seconds.
RECORD_SECONDS: Final = 5.0
TELL_SECONDS: Final = 3.0

WORKER_ENROLLED: Final = "worker_enrolled"
WORKER_LEAVES: Final = "worker_leaves"
WORKER_GONE: Final = "worker_gone"
JOB_CLAIMED: Final = "job_claimed"
MODEL_MISSING: Final = "model_missing"
DATABASE_AWAY: Final = "database_away"
OUTCOMES_ABANDONED: Final = "outcomes_abandoned"

log = get_logger(__name__)


class Agent:
    """Own one device: start it, drain queues whenever woken, let it leave, close it."""

    def __init__(
        self,
        settings: Settings,
        facts: WorkerFacts,
        setup: Setup,
        environment: Mapping[str, str],
        *,
        pool: Pool,
        connect: Callable[[str], Connection],
        client: "redis.Redis",
        storage: Storage,
        application: "celery.Celery",
        dethroned: Callable[[], None],
    ) -> None:
        self.facts = facts
        self._settings = settings
        self._pool = pool
        self._claimer = Claimer(facts.name, facts.run, facts.queues, facts.memory_bytes, settings.lease_seconds)
        self._limits = PhaseLimits.of(settings)
        self._leaving = threading.Event()
        self._unserved: set[str] = set()
        self._narrator = Narrator(EventWriter(client), partial(wake, application, client, workers=1))
        self._tasks = JobsAsTasks(application, facts.name)
        self._foreman = Foreman(self._limits, settings.lease_seconds)
        self._engine = EngineProcess(setup, environment, self._foreman, settings.load_limit_seconds)
        self._recorder = Recorder(storage, pool, self._narrator, self._tasks, settings.store_limit_seconds)
        self._foreman.employ(self._engine, self._recorder)
        self._recorder.report_to(self._foreman.release, self._foreman.nudge)
        cache = ModelCache(settings.model_cache, settings.cache_bytes, settings.disk_headroom_bytes)
        self._models = ModelFetcher(storage, pool, cache, settings.load_limit_seconds)
        self._fetcher = Fetcher(storage, self._models, self._foreman, self._recorder.storage_lost)
        self._revocations = Revocations(pool, self._narrator)
        self._cancels = CancelListener(partial(connect, "cancels"), self._foreman.cancel)
        self._heartbeat = Heartbeat(
            partial(connect, "heartbeat"),
            self._foreman,
            facts.name,
            facts.run,
            every=settings.heartbeat_seconds,
            lease_seconds=settings.lease_seconds,
            dethroned=dethroned,
        )
        self._watch = threading.Thread(target=self._foreman.watch, args=(self._leaving,), name="watch", daemon=True)

    def start_engine(self) -> None:
        """Begin to load the engine; it needs nothing of the other services."""
        self._engine.start()

    def enrol(self) -> None:
        """Sign on and begin to live; jobs an earlier life of this name still held go back into their queues."""
        with self._pool.connection() as line:
            changes = roster.register(line, self.facts)
        self._narrator.start()
        self._tasks.start()
        self._narrator.announce([change.event for change in changes])
        for change in changes:
            if change.type == "requeued":
                self._narrator.wake(change.queue)
        self._watch.start()
        self._heartbeat.start()
        self._cancels.start()
        self._revocations.start()
        log.info(WORKER_ENROLLED, worker=self.facts.name, queues=self.facts.queues, taken_back=len(changes))

    def drain(self, queue: str) -> None:
        """Claim and draw until the fleet has nothing more for this worker; `queue` is where the wake-up came from."""
        if self._foreman.is_resting:
            # Another worker of the queue should have it. This one, waiting below until it may claim again, takes no further ones.
            self._narrator.wake(queue)
        while (room := self._foreman.wait_for_room()) is not None:
            try:
                seen, taken = self._claim(room)
            except psycopg.OperationalError as problem:
                log.warning(DATABASE_AWAY, problem=str(problem))
                self._leaving.wait(DATABASE_PAUSE)
                continue
            if taken:
                continue
            if seen:
                # Another worker was quicker; not all losers should come back at the same moment.
                time.sleep(random.uniform(0, RACE_PAUSE))  # noqa: S311 - not a secret
            elif room.ahead_of is None:
                return
            else:
                self._foreman.nothing_ahead_of(room.ahead_of)
        self._unserved.add(queue)

    def leave(self, seconds: float) -> None:
        """Claim nothing more; finish what ends within so many seconds and hand the rest back."""
        log.info(WORKER_LEAVES, worker=self.facts.name, seconds=seconds)
        self._foreman.leave(seconds)

    def close(self, seconds: float) -> bool:
        """Wait so long for what is still held, sign off and end the engine; return whether every outcome was recorded."""
        self._foreman.leave(seconds)
        recorded = self._foreman.wait_until_empty(seconds + RECORD_SECONDS)
        if not recorded:
            self._recorder.hurry()
            recorded = self._foreman.wait_until_empty(RECORD_SECONDS)
            if not recorded:
                log.error(OUTCOMES_ABANDONED, worker=self.facts.name)
        self._leaving.set()
        self._foreman.nudge()
        self._fetcher.close()
        self._recorder.close()
        self._cancels.close()
        self._revocations.close()
        self._heartbeat.close()
        self._sign_off()
        self._engine.close()
        for queue in self._unserved:
            # A wake-up this worker took and did not serve is for the others.
            self._narrator.wake(queue)
        self._narrator.close(TELL_SECONDS)
        self._tasks.close(TELL_SECONDS)
        log.info(WORKER_GONE, worker=self.facts.name)
        return recorded

    def _claim(self, room: Room) -> tuple[int, int]:
        """Claim and take; return how many could have been claimed and how many were."""
        with self._pool.connection() as line:
            lease_until = time.monotonic() + self._settings.lease_seconds
            claimed = claim(line, self._claimer, warm_model=room.warm, warm_loras=room.loras)
            for job in claimed.jobs:
                self._take(line, job, lease_until)
        return claimed.seen, len(claimed.jobs)

    def _take(self, line: "psycopg.Connection[Any]", job: ClaimedJob, lease_until: float) -> None:
        log.info(JOB_CLAIMED, job=str(job.id), epoch=job.epoch, model=job.parameters.model)
        now = datetime.now(UTC)
        started = Event(job=job.id, epoch=job.epoch, seq=1, type="started", at=now, data={"worker": self.facts.name})
        feed = self._narrator.open(job.id, job.epoch, [job.predecessor, started])
        needs = needs_of(job.parameters)
        models = catalogue.find_all(line, [need.ref for need in needs])
        missing = next((need.ref for need in needs if need.ref not in models), None)
        if missing is not None:
            log.warning(MODEL_MISSING, job=str(job.id), kind=missing.kind, model=missing.name)
            failure = ModelMissing(f"The {missing.kind} '{missing.name}' is not where it was.")
            change = store.fail(line, job.id, job.epoch, feed.close(), failure)
            self._narrator.announce([] if change is None else [change.event])
            return
        held = Held(job, Inputs(models), feed, PhaseClock(self._limits), lease_until)
        held.lacking = self._models.lacking(line, models)
        held.fetching = bool(held.lacking or uploads_of(job.parameters))
        self._tasks.began(held)
        self._foreman.take(held)
        if held.fetching:
            self._fetcher.fetch(held)

    def _sign_off(self) -> None:
        try:
            with self._pool.connection(timeout=RECORD_SECONDS) as line:
                roster.sign_off(line, self.facts.name, self.facts.run)
        except psycopg.Error as problem:
            log.warning(DATABASE_AWAY, problem=str(problem))
