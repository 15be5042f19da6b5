"""The caretaker's loop: try to lead, do a round of duties, rest; whatever is unplugged, try again."""

import threading
from dataclasses import dataclass
from typing import Final

import celery
import psycopg
import redis

from infra.database import Connection, connect
from infra.logging import get_logger
from infra.storage import Storage
from jobs.events import EventWriter
from keeper.analysing import ask_anew
from keeper.duties import announce, count_uses, reroute, take_back, tidy, wake_workers
from keeper.leader import leadership
from keeper.strays import Strays

log = get_logger(__name__)

KEEPER_LEADS: Final = "keeper_leads"
KEEPER_WAITS: Final = "keeper_waits"
DATABASE_AWAY: Final = "database_away"
DUTY_FAILED: Final = "duty_failed"

#: A round in so many also tidies: deletes what is old, and objects nobody refers to.
TIDY_EVERY: Final = 15


@dataclass(frozen=True)
class Keeper:
    """What the caretaker needs of the world."""

    database_url: str
    application: "celery.Celery"
    redis: "redis.Redis"
    storage: Storage
    pause_seconds: float
    retention_days: float

    def run(self, stop: threading.Event) -> None:
        """Keep the fleet until told to stop; at most one keeper of a fleet acts, the others stand by."""
        while not stop.is_set():
            try:
                with connect(self.database_url, application_name="keeper") as connection:
                    self._stand_by_or_lead(connection, stop)
            except psycopg.Error as problem:
                # Also how a frozen leader learns that it leads no more: its session was ended.
                log.warning(DATABASE_AWAY, problem=str(problem))
                stop.wait(self.pause_seconds)

    def _stand_by_or_lead(self, connection: Connection, stop: threading.Event) -> None:
        waiting = False
        while not stop.is_set():
            with leadership(connection) as leads:
                if leads:
                    log.info(KEEPER_LEADS)
                    self._lead(connection, stop)
                    return
            if not waiting:
                log.info(KEEPER_WAITS)
                waiting = True
            stop.wait(self.pause_seconds)

    def _lead(self, connection: Connection, stop: threading.Event) -> None:
        writer = EventWriter(self.redis)
        strays = Strays(self.storage)
        number = 1
        while not stop.is_set():
            try:
                announce(writer, take_back(connection))
                fleet = reroute(connection)
                wake_workers(connection, self.application, self.redis, fleet)
                count_uses(connection)
                if number % TIDY_EVERY == 0:
                    strays.sweep(connection)
                    tidy(connection, self.storage, self.retention_days)
                    announce(writer, ask_anew(connection, self.database_url, fleet))
            except psycopg.Error:
                raise
            except Exception:
                # One duty that fails in a way nobody foresaw must not keep the others from being done for ever.
                log.exception(DUTY_FAILED)
            number += 1
            stop.wait(self.pause_seconds)
