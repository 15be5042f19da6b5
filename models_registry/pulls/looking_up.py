"""Bring one claimed look-up as far as it goes: ask CivitAI by hashes, a hundred at once, and write down what nobody wrote."""

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from psycopg import Connection

from infra.database import Pool
from infra.logging import get_logger
from infra.storage import Storage
from models_registry.pulls.civitai import BATCH, facts_of, read_model, versions_by_hash
from models_registry.pulls.failures import PullDelayed, PullFailed, SourceMissing
from models_registry.pulls.lookups import (
    ClaimedLookup,
    advance_lookup,
    describe,
    end_lookup,
    hashes_of,
    keep_answers,
    kept_answers,
    put_off_lookup,
    renew_lookup,
)
from models_registry.pulls.plans import Facts
from models_registry.pulls.preview_pictures import add_previews
from models_registry.pulls.queue import MOST_DELAYS, Lost
from models_registry.pulls.web import Web

log = get_logger(__name__)

LOOKUP_FAILED: Final = "lookup_failed"
LOOKUP_PUT_OFF: Final = "lookup_put_off"
_LONGEST_PAUSE: Final = 600.0


@dataclass(frozen=True)
class LookerUp:
    """What looking up needs of the world."""

    pool: Pool
    web: Web
    civitai: str
    storage: Storage
    #: Of the first pause after a failure, seconds.
    first_pause: float = 5.0

    def look_up(self, held: ClaimedLookup) -> None:
        """Work on a look-up until it ends, waits, or is another's; what becomes of it is written down."""
        try:
            left = held.entries
            while left:
                batch, left = left[:BATCH], left[BATCH:]
                with self.pool.connection() as connection:
                    self._look_up(connection, held, batch, left)
            with self.pool.connection() as connection:
                end_lookup(connection, held)
        except Lost:
            return
        except PullFailed as problem:
            log.warning(LOOKUP_FAILED, lookup=str(held.id), code=problem.code, problem=problem.message)
            self._end(held, problem.code, problem.message)
        except PullDelayed as problem:
            self._put_off(held, problem)

    def _look_up(
        self, connection: "Connection[Any]", held: ClaimedLookup, batch: tuple[UUID, ...], left: tuple[UUID, ...]
    ) -> None:
        hashes = hashes_of(connection, batch)
        answers = kept_answers(connection, set(hashes.values()))
        unknown = sorted(set(hashes.values()) - answers.keys())
        if unknown:
            answers |= self._ask(connection, held, unknown)
        found = changed = 0
        for entry, sha256 in hashes.items():
            facts = answers.get(sha256)
            if facts is None:
                continue
            found += 1
            renew_lookup(connection, held)
            said = describe(connection, entry, facts)
            shown = self._show(connection, entry, facts)
            changed += said or shown > 0
        advance_lookup(connection, held, left, found=found, changed=changed)

    def _ask(self, connection: "Connection[Any]", held: ClaimedLookup, hashes: list[str]) -> Mapping[str, Facts | None]:
        versions = versions_by_hash(self.web, self.civitai, hashes)
        # At once: what is asked for the second time is only what was not answered.
        keep_answers(connection, {sha256: None for sha256 in hashes if sha256 not in versions})
        models: dict[object, Mapping[str, Any]] = {}
        for sha256, version in versions.items():
            number = version.get("modelId")
            if number not in models:
                renew_lookup(connection, held)
                models[number] = self._model(number)
            keep_answers(connection, {sha256: facts_of(version, models[number])})
        return kept_answers(connection, hashes)

    def _model(self, number: object) -> Mapping[str, Any]:
        try:
            return read_model(self.web, self.civitai, number)
        except SourceMissing:
            # Taken down, but for the versions that somebody has.
            return {}

    def _show(self, connection: "Connection[Any]", entry: UUID, facts: Facts) -> int:
        row = connection.execute("select from model_previews where model = %s limit 1", (entry,)).fetchone()
        return add_previews(connection, self.storage, self.web, entry, facts.previews) if row is None else 0

    def _end(self, held: ClaimedLookup, code: str, message: str) -> None:
        with contextlib.suppress(Lost), self.pool.connection() as connection:
            end_lookup(connection, held, code, message)

    def _put_off(self, held: ClaimedLookup, problem: PullDelayed) -> None:
        if held.delays + 1 >= MOST_DELAYS:
            self._end(held, problem.code, problem.message)
            return
        pause = problem.retry_after
        if pause is None:
            pause = min(_LONGEST_PAUSE, self.first_pause * 2**held.delays)
        log.info(LOOKUP_PUT_OFF, lookup=str(held.id), code=problem.code, seconds=pause)
        with contextlib.suppress(Lost), self.pool.connection() as connection:
            put_off_lookup(connection, held, pause, problem.code, problem.message)
