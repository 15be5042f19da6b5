"""Bring one claimed download to its end: plan, fetch, take in, describe."""

import contextlib
import random
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from psycopg import Connection, OperationalError

from infra.database import Pool
from infra.logging import get_logger
from infra.storage import Storage, StorageError
from models_registry.contents.shelving import Shelved, Wanted, take_in
from models_registry.entries import Kind
from models_registry.library import read_entry
from models_registry.pulls import queue
from models_registry.pulls.failures import PullDelayed, PullFailed, SourceAway
from models_registry.pulls.fetching import Room, fetch_file
from models_registry.pulls.planning import Sites, make_plan
from models_registry.pulls.plans import Plan
from models_registry.pulls.preview_pictures import add_previews
from models_registry.pulls.queue import Claimed, Lost
from models_registry.pulls.web import Web
from models_registry.records import Entry, Facts, Reader
from models_registry.refusals import ModelRefused, NameTaken

log = get_logger(__name__)

DOWNLOAD_STARTED: Final = "download_started"
DOWNLOAD_SUCCEEDED: Final = "download_succeeded"
DOWNLOAD_FAILED: Final = "download_failed"
DOWNLOAD_PUT_OFF: Final = "download_put_off"
DOWNLOAD_LOST: Final = "download_lost"
DATABASE_AWAY: Final = "database_away"

BEAT_SECONDS: Final = 1.0
_LONGEST_PAUSE: Final = 300.0
_FILES: Final = "files"


class _Hold:
    """Renew the lease of a download beside the one who fetches it, and tell him when it is lost."""

    def __init__(self, pool: Pool, held: Claimed) -> None:
        self._pool = pool
        self._held = held
        self._over = threading.Event()
        self.lost = threading.Event()
        self.done = 0

    def run(self) -> None:
        """Renew until told to end."""
        while not self._over.wait(BEAT_SECONDS):
            try:
                self.beat()
            except Lost:
                self.lost.set()
                return
            except OperationalError as problem:
                # The lease outlives a restart of the database; if not, the next beat says so.
                log.warning(DATABASE_AWAY, problem=str(problem))

    def beat(self) -> None:
        """Renew once; raise `Lost`."""
        with self._pool.connection() as connection:
            queue.renew(connection, self._held, self.done)

    def end(self) -> None:
        """Renew no more."""
        self._over.set()

    def advance(self, done: int) -> None:
        """Take note of how many bytes there are; raise `Lost`."""
        self.done = done
        if self.lost.is_set():
            raise Lost


@dataclass(frozen=True)
class Puller:
    """What fetching needs of the world."""

    pool: Pool
    web: Web
    sites: Sites
    storage: Storage
    #: Where files lie while they arrive, one folder a download.
    folder: Path
    room: Room
    #: Of the first pause after a failure, seconds.
    first_pause: float = 2.0
    #: Set when the process stops: the download is left for the next one.
    stopping: threading.Event | None = None

    def pull(self, held: Claimed) -> None:
        """Bring a download as far as it goes now; what becomes of it is written down."""
        log.info(DOWNLOAD_STARTED, download=str(held.id), source=held.source.partition("?")[0])
        try:
            with self._holding(held) as hold:
                self._pull(held, hold)
        except Lost:
            log.info(DOWNLOAD_LOST, download=str(held.id))
        except PullFailed as problem:
            self._fail(held, getattr(problem, "reason", problem.code), problem.message)
        except ModelRefused as refusal:
            self._fail(held, refusal.code, f"The file {refusal.reason}.")
        except PullDelayed as problem:
            self._put_off(held, problem)
        except StorageError as problem:
            self._put_off(held, SourceAway(f"The storage cannot be used: {problem}."))

    def forget(self, connection: "Connection[Any]", days: float) -> None:
        """Remove what lies of downloads that have ended, and rows kept long enough."""
        queue.retire(connection, days)
        lying = {place.name: place for place in self.folder.iterdir()} if self.folder.is_dir() else {}
        ids = [identity for name in lying if (identity := queue.identity_of(name)) is not None]
        kept = {str(identity) for identity in queue.kept(connection, ids)}
        for name, place in lying.items():
            if name not in kept:
                shutil.rmtree(place, ignore_errors=True)

    def _pull(self, held: Claimed, hold: _Hold) -> None:
        plan = held.plan or self._plan(held)
        with self.pool.connection() as connection:
            known = self._known(connection, held, plan)
            if known is not None:
                queue.succeed(connection, held, known.id)
                return
        place = self._fetch(held, plan, hold)
        with self.pool.connection() as connection:
            shelved = self._take_in(connection, held, plan, place)
            hold.end()
            queue.renew(connection, held, hold.done)
            queue.succeed(connection, held, shelved.id)
        log.info(DOWNLOAD_SUCCEEDED, download=str(held.id), model=shelved.entry.name)
        shutil.rmtree(self.folder / str(held.id), ignore_errors=True)
        with self.pool.connection() as connection:
            add_previews(connection, self.storage, self.web, shelved.id, plan.facts.previews)

    def _plan(self, held: Claimed) -> Plan:
        plan = make_plan(self.web, self.sites, held.source, held.order.sha256)
        with self.pool.connection() as connection:
            queue.write_plan(connection, held, plan)
        return plan

    def _fetch(self, held: Claimed, plan: Plan, hold: _Hold) -> Path:
        """Fetch all files and return the file or folder that they make."""
        home = self.folder / str(held.id) / _FILES
        before = 0

        def progress(size: int) -> None:
            hold.advance(before + size)
            if self.stopping is not None and self.stopping.is_set():
                raise SourceAway("The keeper stops.", 0.0)

        for file in plan.files:
            fetch_file(self.web, file, home / file.name, self.room, progress)
            before = hold.done
        return home if plan.is_folder else home / plan.files[0].name

    def _take_in(self, connection: "Connection[Any]", held: Claimed, plan: Plan, place: Path) -> Shelved:
        order, said = held.order, plan.facts
        wanted = Wanted(order.name or plan.name, order.version, order.kind, order.sha256)
        facts = Facts(
            owner=held.owner,
            visibility=order.visibility,
            description=order.description or said.description,
            licence=order.licence or said.licence,
            source=said.source,
            base_model=order.base_model or said.base_model,
            tags=order.tags or said.tags,
            trigger_words=order.trigger_words or said.trigger_words,
            weight=order.weight,
        )
        try:
            return take_in(connection, place, wanted, facts, storage=self.storage)
        except NameTaken:
            # By this very download, when the one who fetched died before it wrote so down.
            entry = _own(connection, held, wanted)
            if entry is None:
                raise
            return Shelved(entry.id, entry.model, entry.sha256 or "")

    def _known(self, connection: "Connection[Any]", held: Claimed, plan: Plan) -> Entry | None:
        """Return the owner's entry that has this name and these bytes already."""
        sha256 = None if plan.is_folder else plan.files[0].sha256
        if sha256 is None:
            return None
        wanted = Wanted(held.order.name or plan.name, held.order.version, held.order.kind)
        entry = _own(connection, held, wanted)
        return entry if entry is not None and entry.sha256 == sha256 else None

    @contextlib.contextmanager
    def _holding(self, held: Claimed) -> Iterator[_Hold]:
        hold = _Hold(self.pool, held)
        thread = threading.Thread(target=hold.run, name=f"hold {held.id}", daemon=True)
        thread.start()
        try:
            yield hold
        finally:
            hold.end()
            thread.join()
            with contextlib.suppress(Lost, OperationalError):
                # What is there is what the next one goes on from.
                hold.beat()

    def _fail(self, held: Claimed, code: str, message: str) -> None:
        log.warning(DOWNLOAD_FAILED, download=str(held.id), code=code, problem=message)
        with contextlib.suppress(Lost), self.pool.connection() as connection:
            queue.fail(connection, held, code, message)

    def _put_off(self, held: Claimed, problem: PullDelayed) -> None:
        if held.delays + 1 >= queue.MOST_DELAYS:
            self._fail(held, problem.code, problem.message)
            return
        pause = problem.retry_after
        if pause is None:
            # Many that failed together should not come back together.
            longest = min(_LONGEST_PAUSE, self.first_pause * 2**held.delays)
            pause = random.uniform(longest / 2, longest)  # noqa: S311 - no secret
        log.info(DOWNLOAD_PUT_OFF, download=str(held.id), code=problem.code, seconds=round(pause, 1))
        with contextlib.suppress(Lost), self.pool.connection() as connection:
            queue.put_off(connection, held, pause, problem.code, problem.message)


def _own(connection: "Connection[Any]", held: Claimed, wanted: Wanted) -> Entry | None:
    kinds = tuple(Kind) if wanted.kind is None else (wanted.kind,)
    entry = read_entry(connection, wanted.ref, kinds=kinds, reader=Reader(owner=held.owner))
    return entry if entry is not None and entry.owner == held.owner and entry.ref == wanted.ref else None
