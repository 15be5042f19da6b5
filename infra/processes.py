"""Keep child processes running: start, watch, restart with back-off, stop in reverse order.

One thread of the supervisor starts every child and lives as long as they do, because Linux sends the parent-death
signal when the *thread* that made the child ends. Whatever kills the supervisor therefore ends its children too.
Elsewhere than on Linux nothing ties a child to a supervisor that was killed.
"""

import contextlib
import ctypes
import itertools
import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import setproctitle

from infra import launcher
from infra.logging import get_logger

#: How often children are looked at, seconds.
TICK = 0.1
#: A child that lived so long (seconds) is restarted at once; quicker deaths wait longer and longer.
STEADY_AFTER = 10.0
BACKOFF_FIRST = 0.5
BACKOFF_MOST = 30.0

CHILD_DIED = "child died"
CHILD_RESTARTED = "child restarted"
CHILD_NOT_RESTARTED = "child could not be restarted"
CHILD_KILLED = "child killed after its grace time"
log = get_logger(__name__)

Status = Literal["running", "waiting", "stopped", "ended"]


class ChildNotStarted(RuntimeError):
    """A child process could not be started."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name} could not be started: {reason}")
        self.name = name


@dataclass(frozen=True)
class RunAs:
    """Name the user a child runs as, when the supervisor is root."""

    uid: int
    gid: int


@dataclass(frozen=True)
class ChildSpec:
    """Describe one child: what to run and how it ends."""

    name: str
    argv: tuple[str, ...]
    #: The whole environment of the child; None inherits the supervisor's.
    env: Mapping[str, str] | None = None
    cwd: Path | None = None
    #: Both output streams are appended here; None inherits the supervisor's.
    log: Path | None = None
    run_as: RunAs | None = None
    stop_signal: int = signal.SIGTERM
    #: Sent by the kernel when the supervisor dies (Linux).
    orphan_signal: int = signal.SIGKILL
    #: Seconds between the stop signal and SIGKILL.
    grace: float = 10.0
    #: Whether a child that ends unasked is started again.
    restart: bool = True
    #: Children started one after the other with the same group are stopped at the same time.
    group: str | None = None
    #: Runs before every start, in the supervisor's thread; an exception counts as a failed start.
    before_start: Callable[[], None] | None = None


@dataclass(frozen=True)
class ChildState:
    """Report how one child fares."""

    name: str
    status: Status
    pid: int | None
    #: How often it was started again after it ended unasked.
    restarts: int
    #: When the present status began.
    since: datetime
    #: Exit status of the last run (negative: signal number); None before the first end.
    exit_code: int | None = None
    #: Why the last start failed, when it failed before it ran.
    problem: str | None = None


def set_title(role: str) -> None:
    """Name this process `imagefleet: <role>` for people and tools."""
    setproctitle.setproctitle(f"imagefleet: {role}")


def die_with_parent(death_signal: int = signal.SIGKILL) -> None:
    """Ask the kernel to signal this process when its parent's creating thread ends (Linux; elsewhere no effect)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(launcher.PR_SET_PDEATHSIG, int(death_signal), 0, 0, 0)


@dataclass
class _Child:
    """One child as the supervisor's thread sees it; other threads read only `state`."""

    spec: ChildSpec
    state: ChildState
    process: "subprocess.Popen[bytes] | None" = None
    started: float = 0.0
    quick_deaths: int = 0
    due: float = 0.0
    ended: threading.Event = field(default_factory=threading.Event)

    def change(self, status: Status, *, pid: int | None = None, exit_code: int | None = None) -> None:
        self.state = replace(self.state, status=status, pid=pid, exit_code=exit_code, since=datetime.now(UTC))

    def spawn(self, restarts: int = 0) -> None:
        spec = self.spec
        if spec.before_start is not None:
            spec.before_start()
        if shutil.which(spec.argv[0], path=None if spec.env is None else spec.env.get("PATH")) is None:
            raise FileNotFoundError(f"there is no program {spec.argv[0]}")
        user = spec.run_as or RunAs(-1, -1)
        arguments = (os.getpid(), int(spec.orphan_signal), user.uid, user.gid)
        # -I and -S keep the child's environment from reaching the launcher, and start it in about 10 ms.
        argv = [sys.executable, "-I", "-S", launcher.__file__, *map(str, arguments), *spec.argv]
        with contextlib.ExitStack() as stack:
            output = stack.enter_context(spec.log.open("ab")) if spec.log else None
            self.process = subprocess.Popen(  # noqa: S603 - what runs is the caller's decision
                argv,
                env=None if spec.env is None else dict(spec.env),
                cwd=spec.cwd,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT if output else None,
                # Ctrl-C reaches the whole terminal group: the supervisor alone decides the order of the end.
                start_new_session=True,
            )
        self.started = time.monotonic()
        # In one step: other threads read this.
        self.state = ChildState(
            spec.name, "running", self.process.pid, restarts, datetime.now(UTC), exit_code=self.state.exit_code
        )

    def watch(self) -> None:
        """Notice an end nobody asked for, and start again when its time has come."""
        if self.process is not None:
            code = self.process.poll()
            if code is None:
                return
            self._died(code)
        if self.state.status == "waiting" and time.monotonic() >= self.due:
            try:
                self.spawn(self.state.restarts + 1)
            except Exception as problem:
                # Whatever the reason, the next try may succeed.
                log.exception(CHILD_NOT_RESTARTED, child=self.spec.name)
                self.state = replace(self.state, problem=str(problem))
                self._wait_longer(self.state.exit_code)
            else:
                log.info(CHILD_RESTARTED, child=self.spec.name, pid=self.state.pid)

    def _died(self, code: int) -> None:
        lived = time.monotonic() - self.started
        log.warning(CHILD_DIED, child=self.spec.name, pid=self.state.pid, exit_code=code, lived_seconds=round(lived, 1))
        _end_group(self.process)
        self.process = None
        if not self.spec.restart:
            self.change("ended", exit_code=code)
            self.ended.set()
            return
        if lived >= STEADY_AFTER:
            self.quick_deaths = 0
        self._wait_longer(code)

    def _wait_longer(self, code: int | None) -> None:
        # The first restart is immediate: most deaths are single events.
        delay = 0.0 if self.quick_deaths == 0 else min(BACKOFF_MOST, BACKOFF_FIRST * 2 ** (self.quick_deaths - 1))
        self.quick_deaths += 1
        self.due = time.monotonic() + delay
        self.change("waiting", exit_code=code)

    def ask(self) -> None:
        """Ask the child to end."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(self.spec.stop_signal)

    def finish(self, deadline: float) -> None:
        """Wait until the child has ended, or make it end when its time is over."""
        process, self.process = self.process, None
        code = self.state.exit_code
        if process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, deadline - time.monotonic()))
            if process.returncode is None:
                log.warning(CHILD_KILLED, child=self.spec.name, pid=process.pid)
            _end_group(process)
            code = process.wait()
        self.change("stopped", exit_code=code)
        self.ended.set()


def _end_group(process: "subprocess.Popen[bytes] | None") -> None:
    """Kill what a child left behind in its own process group."""
    if process is not None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)


class Supervisor:
    """Own a set of children; every method may be called from any thread."""

    def __init__(self) -> None:
        self._children: dict[str, _Child] = {}
        self._commands: queue.SimpleQueue[tuple[Callable[[], None], Future[None]]] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="supervisor", daemon=True)
        self._thread.start()

    def start(self, spec: ChildSpec) -> None:
        """Start a child and keep it running; raises ChildNotStarted when the first start fails."""
        self._call(lambda: self._add(spec))

    def stop(self, name: str, grace: float | None = None) -> None:
        """Stop one child (its stop signal, then SIGKILL after its grace time) and forget it; unknown names are fine."""
        self._call(lambda: self._remove(name, grace))

    def states(self) -> tuple[ChildState, ...]:
        """Report every child, in the order of their start."""
        return tuple(child.state for child in list(self._children.values()))

    def state(self, name: str) -> ChildState:
        """Report one child; raises KeyError for a name never started."""
        return self._children[name].state

    def wait(self, name: str, timeout: float | None = None) -> ChildState:
        """Wait until a child has ended for good (stopped, or not to be restarted); returns its state then or now."""
        child = self._children[name]
        child.ended.wait(timeout)
        return child.state

    def stop_all(self) -> None:
        """Stop every child, last started first, and end the supervisor."""
        if self._thread.is_alive() and not self._stopping.is_set():
            self._call(self._remove_all)
            self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop_all()

    def _call(self, work: Callable[[], None]) -> None:
        if self._stopping.is_set():
            raise RuntimeError("the supervisor has been stopped")
        done: Future[None] = Future()
        self._commands.put((work, done))
        done.result()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                work, done = self._commands.get(timeout=TICK)
            except queue.Empty:
                pass
            else:
                try:
                    work()
                except BaseException as problem:  # noqa: BLE001 - handed to the caller's thread
                    done.set_exception(problem)
                else:
                    done.set_result(None)
            for child in list(self._children.values()):
                child.watch()

    def _add(self, spec: ChildSpec) -> None:
        if spec.name in self._children:
            raise ChildNotStarted(spec.name, "a child of this name runs already")
        child = _Child(spec, ChildState(spec.name, "waiting", None, 0, datetime.now(UTC)))
        try:
            child.spawn()
        except OSError as problem:
            raise ChildNotStarted(spec.name, str(problem)) from problem
        self._children = {**self._children, spec.name: child}

    def _remove(self, name: str, grace: float | None) -> None:
        child = self._children.get(name)
        if child is not None:
            _stop([child], grace)
            self._children = {key: value for key, value in self._children.items() if key != name}

    def _remove_all(self) -> None:
        try:
            backwards = reversed(self._children.values())
            # A child without a group stands alone.
            for _, together in itertools.groupby(backwards, key=lambda child: child.spec.group or id(child)):
                _stop(list(together), None)
        finally:
            self._stopping.set()


def _stop(children: list[_Child], grace: float | None) -> None:
    began = time.monotonic()
    for child in children:
        child.ask()
    for child in children:
        child.finish(began + (child.spec.grace if grace is None else grace))
