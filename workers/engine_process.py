"""The agent's hold on its engine: start it, speak to it, notice its end at once, kill it, start it again.

One thread makes every engine process and lives as long as the agent, because Linux sends the parent-death signal when the *thread* that
made the child ends. The engine sees one device and shares nothing but a socket with its agent.
"""

import contextlib
import os
import pickle
import queue
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, Final, Protocol

from infra.logging import get_logger
from workers.engines.interface import Command, Quit, Ready, Report, Setup

#: An engine that lived so long (seconds) is started again at once; quicker deaths wait longer and longer.
STEADY_SECONDS: Final = 10.0
BACKOFF_FIRST: Final = 0.5
BACKOFF_MOST: Final = 30.0
ENGINE_STARTED: Final = "engine_started"
ENGINE_ENDED: Final = "engine_ended"
ENGINE_NOT_STARTED: Final = "engine_not_started"
ENGINE_TOO_SLOW: Final = "engine_too_slow"
REPORT_NOT_HANDLED: Final = "report_not_handled"

#: How long an engine may take to end after `Quit`, seconds.
QUIT_SECONDS: Final = 3.0

log = get_logger(__name__)


class EngineOwner(Protocol):
    """Who is told about the engine; called from the engine's threads, so it must not block."""

    def engine_ready(self, life: int) -> None:
        """Hear that the engine of this life takes items."""

    def engine_said(self, life: int, report: Report) -> None:
        """Hear a report."""

    def engine_died(self, life: int, exit_code: int) -> None:
        """Hear that the engine of this life has ended; a negative exit code is a signal."""


@dataclass(frozen=True)
class _Say:
    life: int
    command: Command


@dataclass(frozen=True)
class _Silence:
    """The reader met the end of the connection."""

    life: int


@dataclass(frozen=True)
class _Close:
    """The agent is leaving."""


@dataclass(frozen=True)
class _Life:
    """One engine process from start to end."""

    number: int
    process: "subprocess.Popen[bytes]"
    connection: "Connection[Any, Any]"
    ready: threading.Event

    def put(self, message: Command | Setup) -> None:
        # A dead engine is noticed by the reader.
        with contextlib.suppress(OSError):
            self.connection.send(message)


class EngineProcess:
    """Keep one engine process running; every method may be called from any thread and returns at once, but `close`."""

    def __init__(self, setup: Setup, environment: Mapping[str, str], owner: EngineOwner, start_limit: float) -> None:
        self._setup = setup
        #: How long an engine may take from its start to `Ready`, seconds.
        self._start_limit = start_limit
        #: The engine's whole environment, with what pins it to its device.
        self._environment = dict(environment)
        self._owner = owner
        self._mail: queue.SimpleQueue[_Say | _Silence | _Close] = queue.SimpleQueue()
        self._present: _Life | None = None
        self._life = 0
        self._quick_deaths = 0
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    @property
    def pid(self) -> int | None:
        """Return the engine's process id while there is one."""
        present = self._present
        return None if present is None else present.process.pid

    def start(self) -> None:
        """Begin to keep an engine running."""
        self._thread.start()

    def send(self, life: int, command: Command) -> None:
        """Hand a command to the engine of this life; nothing happens when that one has ended."""
        self._mail.put(_Say(life, command))

    def kill(self, life: int) -> None:
        """End the engine of this life without asking; its owner hears of the death, and another one is started."""
        present = self._present
        if present is not None and present.number == life:
            present.process.kill()

    def close(self) -> None:
        """Let the engine end by itself for a moment, then make it; nothing is started again."""
        self._mail.put(_Close())
        self._thread.join(2 * QUIT_SECONDS)

    def _run(self) -> None:
        while self._live_once():
            pause = 0.0 if self._quick_deaths == 0 else min(BACKOFF_MOST, BACKOFF_FIRST * 2 ** (self._quick_deaths - 1))
            self._quick_deaths += 1
            if self._close_comes_within(pause):
                return

    def _close_comes_within(self, seconds: float) -> bool:
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            with contextlib.suppress(queue.Empty):
                if isinstance(self._mail.get(timeout=left), _Close):
                    return True
        return False

    def _live_once(self) -> bool:
        """Run one engine from start to end; return whether another one is wanted."""
        self._life += 1
        began = time.monotonic()
        try:
            life = self._spawn()
        except OSError:
            log.exception(ENGINE_NOT_STARTED)
            return True
        self._present = life
        reader = threading.Thread(target=self._read, args=(life,), name="engine-reader", daemon=True)
        reader.start()
        wanted = self._serve(life)
        if not wanted:
            _end(life)
        exit_code = life.process.wait()
        reader.join()
        self._present = None
        life.connection.close()
        if time.monotonic() - began >= STEADY_SECONDS:
            self._quick_deaths = 0
        log.info(ENGINE_ENDED, exit_code=exit_code, life=life.number)
        self._owner.engine_died(life.number, exit_code)
        return wanted

    def _spawn(self) -> _Life:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            process = subprocess.Popen(  # noqa: S603 - our own module
                [sys.executable, "-m", "workers.engines.host", str(theirs.fileno()), str(os.getpid())],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
            )
            life = _Life(self._life, process, Connection(ours.detach()), threading.Event())
        life.put(self._setup)
        log.info(ENGINE_STARTED, pid=process.pid, life=life.number)
        return life

    def _serve(self, life: _Life) -> bool:
        """Pass commands on until the engine ends (True) or the agent leaves (False)."""
        late = threading.Timer(self._start_limit, self._kill_unless_ready, [life])
        late.daemon = True
        late.start()
        try:
            return self._pass_on(life)
        finally:
            late.cancel()

    def _kill_unless_ready(self, life: _Life) -> None:
        if not life.ready.is_set():
            log.warning(ENGINE_TOO_SLOW, life=life.number, seconds=self._start_limit)
            life.process.kill()

    def _pass_on(self, life: _Life) -> bool:
        while True:
            mail = self._mail.get()
            if isinstance(mail, _Close):
                return False
            if isinstance(mail, _Silence) and mail.life == life.number:
                return True
            if isinstance(mail, _Say) and mail.life == life.number:
                life.put(mail.command)

    def _read(self, life: _Life) -> None:
        try:
            while True:
                report = life.connection.recv()
                if isinstance(report, Ready):
                    life.ready.set()
                    self._owner.engine_ready(life.number)
                else:
                    self._owner.engine_said(life.number, report)
        except (EOFError, OSError, pickle.UnpicklingError):
            # A killed engine may leave half a message behind.
            pass
        except Exception:
            # Nobody would listen to this engine any more: a new one is better than a mute one.
            log.exception(REPORT_NOT_HANDLED)
        life.process.kill()
        self._mail.put(_Silence(life.number))


def _end(life: _Life) -> None:
    life.put(Quit())
    try:
        life.process.wait(QUIT_SECONDS)
    except subprocess.TimeoutExpired:
        life.process.kill()
