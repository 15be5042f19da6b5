"""The agent's hold on a real engine process."""

import contextlib
import os
import queue
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import psutil
import pytest

from jobs.contract import Txt2ImgParameters
from jobs.inputs import Inputs
from models_registry.entries import Kind, Layout, ModelEntry
from workers.engine_process import EngineProcess
from workers.engines.interface import Draw, Drawn, Item, PhaseBegan, Report, Setup

SETUP = Setup(engine="fake", label="test9", device="cpu", device_name="CPU", memory_bytes=10**9)
WAIT = 15.0


StartEngine = Callable[..., EngineProcess]


class Owner:
    """Write down what the engine says, in order."""

    def __init__(self) -> None:
        self.heard: queue.Queue[tuple[str, int, Report | int | None]] = queue.Queue()

    def engine_ready(self, life: int) -> None:
        """Write down a start."""
        self.heard.put(("ready", life, None))

    def engine_said(self, life: int, report: Report) -> None:
        """Write down a report."""
        self.heard.put(("said", life, report))

    def engine_died(self, life: int, exit_code: int) -> None:
        """Write down an end."""
        self.heard.put(("died", life, exit_code))

    def until(self, kind: str) -> tuple[int, Report | int | None]:
        """Return the next thing of a kind, leaving out what comes before."""
        while True:
            heard, life, what = self.heard.get(timeout=WAIT)
            if heard == kind:
                return life, what

    def until_report(self, kind: type) -> Report:
        """Return the next report of a kind."""
        while True:
            _, report = self.until("said")
            if isinstance(report, kind):
                return report  # type: ignore[return-value]


@pytest.fixture
def owner() -> Owner:
    """Return an owner."""
    return Owner()


@pytest.fixture
def start(owner: Owner) -> Iterator[StartEngine]:
    """Return a function that keeps an engine running until the test ends."""
    with contextlib.ExitStack() as stack:

        def started(start_limit: float = WAIT) -> EngineProcess:
            engine = EngineProcess(SETUP, os.environ, owner, start_limit)
            engine.start()
            stack.callback(engine.close)
            return engine

        yield started


def item(prompt: str = "x", steps: int = 3) -> Item:
    """Return something to draw."""
    parameters = Txt2ImgParameters(
        model="shapes",
        prompt=prompt,
        width=64,
        height=64,
        steps=steps,
        guidance_scale=1.0,
        scheduler="Euler",
        seed=5,
        preview_every=0,
    )
    entry = ModelEntry(
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
    return Item(uuid4(), 1, parameters, Inputs({entry.ref: entry}))


def test_engine_process_draws_and_quits(start: StartEngine, owner: Owner) -> None:
    """A ready engine draws, and ends by itself when its agent leaves."""
    engine = start()
    life, _ = owner.until("ready")
    assert engine.pid is not None
    process = psutil.Process(engine.pid)
    assert process.cmdline()[0] == "imagefleet: engine test9"
    engine.send(life, Draw((item(),)))
    assert isinstance(owner.until_report(Drawn), Drawn)
    engine.close()
    assert owner.until("died") == (1, 0)
    assert not process.is_running()
    assert engine.pid is None


def test_engine_process_is_replaced_when_it_dies(start: StartEngine, owner: Owner) -> None:
    """An end nobody asked for is heard at once with its exit status, and another engine follows."""
    engine = start()
    owner.until("ready")
    assert engine.pid is not None
    os.kill(engine.pid, 9)
    assert owner.until("died") == (1, -9)
    assert owner.until("ready")[0] == 2


def test_engine_process_takes_commands_for_its_own_life_only(start: StartEngine, owner: Owner) -> None:
    """What was meant for an engine that has died is not drawn by the next one, nor is the next one killed in its place."""
    engine = start()
    owner.until("ready")
    engine.kill(1)
    owner.until("died")
    owner.until("ready")
    meant, after = item(), item()
    engine.send(1, Draw((meant,)))
    engine.kill(1)
    engine.send(2, Draw((after,)))
    drawn = owner.until_report(Drawn)
    assert isinstance(drawn, Drawn)
    assert drawn.job == after.job


def test_engine_process_that_hangs_can_be_killed(start: StartEngine, owner: Owner) -> None:
    """A hanging engine dies by force and another one takes its place."""
    engine = start()
    owner.until("ready")
    engine.send(1, Draw((item("[[hang]]"),)))
    owner.until_report(PhaseBegan)
    engine.kill(1)
    assert owner.until("died") == (1, -9)


def test_engine_process_that_starts_too_slowly_is_killed(start: StartEngine, owner: Owner) -> None:
    """An engine that does not become ready in time counts as dead; the agent tries on, with pauses."""
    start(start_limit=0.01)
    assert owner.until("died") == (1, -9)
    assert owner.until("died") == (2, -9)


def test_engine_process_dies_with_a_killed_agent() -> None:
    """Nobody is left to stop the engine of an agent that was killed; it ends all the same, even in a hang."""
    script = textwrap.dedent("""
        import os, sys, time
        sys.path.insert(0, os.getcwd())
        from tests.integration.workers.test_engine_process import Owner, SETUP, item
        from workers.engine_process import EngineProcess
        from workers.engines.interface import Draw, PhaseBegan
        owner = Owner()
        engine = EngineProcess(SETUP, os.environ, owner, 60)
        engine.start()
        owner.until("ready")
        engine.send(1, Draw((item("[[hang]]"),)))
        owner.until_report(PhaseBegan)
        print(engine.pid, flush=True)
        time.sleep(60)
    """)
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as agent:
        assert agent.stdout is not None
        engine = psutil.Process(int(next(line for line in agent.stdout if line.strip().isdigit())))
        agent.kill()
        engine.wait(10.0)
