"""Fetch what waits to be fetched: a few threads beside the caretaker's round, each with one download at a time.

Every keeper fetches, whether it leads or not: a download is held by its lease, not by leadership.
"""

import contextlib
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Final

import psycopg
import psycopg_pool

from infra.database import open_pool
from infra.guarded_http import Guard
from infra.logging import get_logger
from infra.settings import Settings
from infra.storage import Storage, StorageUnavailable
from models_registry.pulls import queue
from models_registry.pulls.fetching import Room
from models_registry.pulls.looking_up import LookerUp
from models_registry.pulls.lookups import claim_lookup, retire_lookups
from models_registry.pulls.pieces import expire_uploads, remove_strays
from models_registry.pulls.planning import Sites
from models_registry.pulls.pulling import Puller
from models_registry.pulls.web import Web

log = get_logger(__name__)

DATABASE_AWAY: Final = "database_away"
PULLING_FAILED: Final = "pulling_failed"
STORAGE_AWAY: Final = "storage_away"

#: How often an idle thread looks for work.
IDLE_SECONDS: Final = 1.0
#: How often what is left of ended downloads is removed.
FORGET_SECONDS: Final = 60.0
#: Threads have so long to end when the process stops; what they hold then, another keeper goes on with.
STOP_SECONDS: Final = 4.0
FOLDER: Final = "downloads"


@contextlib.contextmanager
def pulling(settings: Settings, database_url: str, storage: Storage, stop: threading.Event) -> Iterator[None]:
    """Fetch downloads in threads until the block ends; `stop` is set before."""
    number = settings.parallel_downloads
    with contextlib.ExitStack() as stack:
        pool = stack.enter_context(
            contextlib.closing(open_pool(database_url, application_name="keeper downloads", size=2 * number + 1))
        )
        web = stack.enter_context(contextlib.closing(open_web(settings)))
        puller = Puller(
            pool=pool,
            web=web,
            sites=Sites(settings.hub_endpoint, settings.civitai_endpoint),
            storage=storage,
            folder=settings.home.absolute() / FOLDER,
            room=Room(settings.max_model_bytes, settings.disk_headroom_bytes),
            stopping=stop,
        )
        looker = LookerUp(pool, web, settings.civitai_endpoint.rstrip("/"), storage)
        pull = partial(_pull_next, puller)
        work: dict[str, tuple[Callable[[], bool], float]] = {
            **{f"download {each}": (pull, IDLE_SECONDS) for each in range(number)},
            "look-ups": (partial(_look_next_up, looker), IDLE_SECONDS),
            "forget": (partial(_forget, puller, settings.retention_days), FORGET_SECONDS),
        }
        threads = [
            threading.Thread(target=_repeat, args=(*each, stop), name=name, daemon=True) for name, each in work.items()
        ]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            stop.set()
            for thread in threads:
                thread.join(STOP_SECONDS)


def open_web(settings: Settings) -> Web:
    """Return a client for the hub, CivitAI and the rest of the public network; raises `AllowListInvalid`."""
    tokens = {
        site: token.get_secret_value()
        for site, token in (
            (settings.hub_endpoint, settings.hub_token),
            (settings.civitai_endpoint, settings.civitai_token),
        )
        if token is not None
    }
    return Web(Guard.of(settings.fetch_allow), tokens)


def _pull_next(puller: Puller) -> bool:
    with puller.pool.connection() as connection:
        held = queue.claim(connection)
    if held is not None:
        puller.pull(held)
    return held is not None


def _look_next_up(looker: LookerUp) -> bool:
    # One at a time: the site asks to be left alone sooner than one expects.
    with looker.pool.connection() as connection:
        held = claim_lookup(connection)
    if held is not None:
        looker.look_up(held)
    return held is not None


def _forget(puller: Puller, days: float) -> bool:
    with puller.pool.connection() as connection:
        puller.forget(connection, days)
        expire_uploads(connection)
        retire_lookups(connection, days)
        remove_strays(connection, puller.storage)
    return False


def _repeat(work: Callable[[], bool], pause: float, stop: threading.Event) -> None:
    """Work on while there is something to do, else rest; nothing that fails ends the thread."""
    while not stop.is_set():
        try:
            if work():
                continue
        except (psycopg.Error, psycopg_pool.PoolTimeout) as problem:
            log.warning(DATABASE_AWAY, problem=str(problem))
        except StorageUnavailable as problem:
            log.warning(STORAGE_AWAY, problem=str(problem))
        except Exception:
            # What it held is tried again by whoever comes once the lease has run out; everything else must not wait for that.
            log.exception(PULLING_FAILED)
        stop.wait(pause)
