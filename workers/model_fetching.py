"""Bring the files of models to this host before they are loaded: what a worker lacks it takes from storage, by content."""

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, Final

import psycopg

from infra.database import Pool
from infra.logging import get_logger
from infra.storage import ObjectMissing, Storage
from jobs.errors import DiskFull, ModelDamaged, ModelMissing
from models_registry.content import content_key
from models_registry.contents.stock import Stock, find_stock, read_stock, report_damage, want
from models_registry.entries import Layout, ModelEntry, ModelRef
from workers.held import Held
from workers.model_cache import CacheFull, ContentDamaged, Hold, ModelCache

#: Whether a file has come into storage is asked so often, seconds.
ASK_PAUSE: Final = 0.5
#: A phase is told that it advances at most so often, seconds.
TELL_PAUSE: Final = 0.5

MODEL_FETCHED: Final = "model_fetched"
MODEL_DAMAGED: Final = "model_damaged"

log = get_logger(__name__)


class Abandoned(Exception):
    """Nobody waits for the files any more."""


class ModelFetcher:
    """Fetch through this host's cache; of one thread alone, but for `lacking`."""

    def __init__(self, storage: Storage, pool: Pool, cache: ModelCache, patience: float) -> None:
        self._storage = storage
        self._pool = pool
        self._cache = cache
        #: How long the keeper may take to store what no storage has yet, seconds.
        self._patience = patience

    def lacking(
        self, line: "psycopg.Connection[Any]", models: Mapping[ModelRef, ModelEntry]
    ) -> Mapping[ModelRef, Stock]:
        """Return the files of those models that are not here; what nothing is known of is left to the engine."""
        away = [ref for ref, entry in models.items() if not entry.path.exists()]
        return find_stock(line, away) if away else {}

    def fetch(self, held: Held, advanced: Callable[[], None]) -> tuple[Mapping[ModelRef, ModelEntry], Sequence[Hold]]:
        """Return the entries as they lie here, and what keeps them here; raises a `JobFailure`, `Abandoned`, or `StorageUnavailable`."""
        told = _Teller(held, advanced)
        with ExitStack() as stack:
            holds: list[Hold] = []
            here = {}
            for ref, stock in held.lacking.items():
                fetched = self._one(self._stored(stock, told), told)
                for hold in fetched:
                    stack.callback(hold.close)
                holds.extend(fetched)
                here[ref] = self._placed(held.inputs.models[ref], stock)
                log.info(MODEL_FETCHED, job=str(held.job.id), model=ref.name, kind=ref.kind)
            stack.pop_all()
        return here, holds

    def _stored(self, stock: Stock, told: "_Teller") -> Stock:
        """Wait until storage has an entry's files: the keeper puts them there where it can reach them."""
        until = time.monotonic() + self._patience
        while not stock.stored:
            with contextlib.suppress(psycopg.OperationalError), self._pool.connection() as line:
                want(line, stock.id)
                found = read_stock(line, stock.id)
                if found is None:
                    raise ModelMissing(f"The {stock.ref.kind} '{stock.ref.name}' was deleted.")
                stock = found
            if not stock.stored:
                if time.monotonic() > until:
                    raise ModelMissing(
                        f"The files of the {stock.ref.kind} '{stock.ref.name}' are neither on this worker's host nor in storage."
                    )
                told.check()
                time.sleep(ASK_PAUSE)
        return stock

    def _one(self, stock: Stock, told: "_Teller") -> list[Hold]:
        with ExitStack() as stack:
            holds = []
            for file in stock.files:
                holds.append(self._file(stock, file.sha256 or "", file.bytes, told))
                stack.callback(holds[-1].close)
            stack.pop_all()
        return holds

    def _file(self, stock: Stock, sha256: str, size: int, told: "_Teller") -> Hold:
        try:
            return self._cache.fetch(self._storage, content_key(sha256), sha256, size, told)
        except CacheFull as problem:
            raise DiskFull(f"The {stock.ref.kind} '{stock.ref.name}' cannot be fetched: {problem}.") from None
        except (ContentDamaged, ObjectMissing) as problem:
            gone = isinstance(problem, ObjectMissing)
            damage = "is gone from storage" if gone else "is not in storage as it was recorded"
            log.warning(MODEL_DAMAGED, model=stock.ref.name, kind=stock.ref.kind, sha256=sha256)
            with self._pool.connection() as line:
                report_damage(line, stock.id, f"a file {damage} ({sha256})")
            raise ModelDamaged(f"A file of the {stock.ref.kind} '{stock.ref.name}' {damage}.") from None

    def _placed(self, entry: ModelEntry, stock: Stock) -> ModelEntry:
        try:
            folder = self._cache.arrange({file.path: file.sha256 or "" for file in stock.files})
        except ContentDamaged as problem:
            raise ModelDamaged(f"The {stock.ref.kind} '{stock.ref.name}' cannot be used: {problem}.") from None
        path = folder / entry.path.name if entry.layout is Layout.SINGLE_FILE else folder
        return entry.model_copy(update={"path": path})


class _Teller:
    """Say that a job's files advance, and stop once nobody waits for them."""

    def __init__(self, held: Held, advanced: Callable[[], None]) -> None:
        self._held = held
        self._advanced = advanced
        self._told = 0.0

    def __call__(self) -> None:
        self.check()
        now = time.monotonic()
        if now - self._told > TELL_PAUSE:
            self._told = now
            self._advanced()

    def check(self) -> None:
        """Raise `Abandoned` once the job has ended."""
        if self._held.ended:
            raise Abandoned
