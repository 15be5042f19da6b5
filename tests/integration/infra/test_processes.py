"""The supervisor keeps real processes running, and lets none outlive it."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import psutil
import pytest

from infra.processes import ChildNotStarted, ChildSpec, Supervisor

Eventually = Callable[[Callable[[], bool], float], bool]
Alive = Callable[[int], bool]

SLEEP = ("sleep", "60")
#: Ignores the stop signal.
STUBBORN = (
    sys.executable,
    "-c",
    "import signal, time; signal.signal(15, signal.SIG_IGN); print('up', flush=True); time.sleep(60)",
)
#: Has a child of its own in the same group.
PARENT = (
    sys.executable,
    "-c",
    "import subprocess, time; print(subprocess.Popen(['sleep', '60']).pid, flush=True); time.sleep(60)",
)
#: A supervisor in a process of its own, whose children are made by a thread that outlives the call.
SUPERVISED = """
import signal, threading
from infra.processes import ChildSpec, Supervisor
supervisor = Supervisor()
begin = threading.Thread(target=lambda: supervisor.start(ChildSpec("sleep", ("sleep", "60"))))
begin.start()
begin.join()
print(supervisor.state("sleep").pid, flush=True)
signal.pause()
"""


@pytest.fixture
def supervisor() -> Iterator[Supervisor]:
    """Run a supervisor for one test."""
    with Supervisor() as supervisor:
        yield supervisor


def _pid(supervisor: Supervisor, name: str) -> int:
    pid = supervisor.state(name).pid
    assert pid is not None
    return pid


def _first_line(log: Path, eventually: Eventually) -> str:
    assert eventually(lambda: log.exists() and "\n" in log.read_text(), 5.0)
    return log.read_text().splitlines()[0]


def test_child_is_what_was_asked_for(supervisor: Supervisor, tmp_path: Path, eventually: Eventually) -> None:
    """Program, environment, folder and log are the caller's; a child that may end is left ended."""
    log = tmp_path / "log"
    code = "import os, sys; print(os.getcwd(), sorted(os.environ.items()), file=sys.stderr)"
    environment = {"PATH": os.environ["PATH"], "LC_CTYPE": "C.UTF-8", "PYTHONHASHSEED": "7"}
    argv = (sys.executable, "-c", code)
    supervisor.start(ChildSpec("once", argv, env=environment, cwd=tmp_path, log=log, restart=False))
    state = supervisor.wait("once", timeout=10)
    assert (state.status, state.exit_code, state.pid) == ("ended", 0, None)
    assert _first_line(log, eventually) == f"{tmp_path} {sorted(environment.items())}"


def test_child_that_dies_is_started_again(supervisor: Supervisor, eventually: Eventually) -> None:
    """The first restart is immediate, and the state tells of it."""
    supervisor.start(ChildSpec("sleep", SLEEP))
    before = supervisor.state("sleep")
    assert (before.status, before.restarts, before.exit_code) == ("running", 0, None)
    os.kill(_pid(supervisor, "sleep"), signal.SIGKILL)
    assert eventually(lambda: supervisor.state("sleep").restarts == 1, 2.0)
    after = supervisor.state("sleep")
    assert (after.status, after.exit_code) == ("running", -signal.SIGKILL)
    assert after.since > before.since
    assert after.pid != before.pid


def test_child_that_dies_at_once_is_not_hammered(
    supervisor: Supervisor, tmp_path: Path, eventually: Eventually
) -> None:
    """Quick deaths are retried with growing pauses."""
    log = tmp_path / "log"
    supervisor.start(ChildSpec("broken", ("sh", "-c", "date +%s%N"), log=log))
    assert eventually(lambda: log.exists() and log.read_text().count("\n") == 4, 30.0)
    births = [int(line) / 1e9 for line in log.read_text().splitlines()]
    # At once, then after 0.5 s and 1 s more; a busy machine only makes the pauses longer.
    gaps = [later - earlier for earlier, later in pairwise(births)]
    assert all(gap > pause for gap, pause in zip(gaps, (0.0, 0.45, 0.95), strict=True))


def test_children_are_stopped_in_reverse_order(tmp_path: Path) -> None:
    """What was started last is stopped first; children of one group stop together."""
    log = tmp_path / "log"

    def spec(name: str, seconds: float, group: str | None = None) -> ChildSpec:
        code = f"trap 'echo {name} asked; sleep {seconds}; echo {name} gone; exit' TERM; echo up; while :; do sleep 0.01; done"
        return ChildSpec(name, ("sh", "-c", code), log=log, group=group)

    with Supervisor() as supervisor:
        for child in (spec("first", 0), spec("left", 0.3, "pair"), spec("right", 0.3, "pair")):
            supervisor.start(child)
        while log.read_text().count("up") < 3:
            time.sleep(0.01)
    lines = [line for line in log.read_text().splitlines() if line != "up"]
    assert set(lines[:2]) == {"left asked", "right asked"}
    assert set(lines[2:4]) == {"left gone", "right gone"}
    assert lines[4:] == ["first asked", "first gone"]


def test_stubborn_child_is_killed_after_its_grace(
    supervisor: Supervisor, tmp_path: Path, eventually: Eventually, alive: Alive
) -> None:
    """A child that ignores the stop signal gets its grace time, and no more."""
    log = tmp_path / "log"
    supervisor.start(ChildSpec("stubborn", STUBBORN, log=log, grace=0.3))
    _first_line(log, eventually)
    pid, began = _pid(supervisor, "stubborn"), time.monotonic()
    supervisor.stop("stubborn")
    assert 0.3 <= time.monotonic() - began < 10.0
    assert not alive(pid)
    assert supervisor.states() == ()


def test_grandchildren_go_with_their_parent(
    supervisor: Supervisor, tmp_path: Path, eventually: Eventually, alive: Alive
) -> None:
    """What a child that was killed had started itself does not stay behind."""
    log = tmp_path / "log"
    supervisor.start(ChildSpec("parent", PARENT, log=log, restart=False))
    grandchild = int(_first_line(log, eventually))
    os.kill(_pid(supervisor, "parent"), signal.SIGKILL)
    assert eventually(lambda: not alive(grandchild), 3.0)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ties children to their parent's life")
def test_children_die_with_a_killed_supervisor(eventually: Eventually, alive: Alive) -> None:
    """After kill -9 of the supervisor no child lives on, though the thread that asked for it ended long ago."""
    with subprocess.Popen([sys.executable, "-c", SUPERVISED], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        time.sleep(0.2)
        assert alive(child)
        process.kill()
        process.wait()
        assert eventually(lambda: not alive(child), 3.0)


def test_interrupt_of_the_terminal_reaches_no_child(supervisor: Supervisor) -> None:
    """Children are not in the terminal's group: Ctrl-C lets the supervisor end them in order."""
    supervisor.start(ChildSpec("sleep", SLEEP))
    assert os.getpgid(_pid(supervisor, "sleep")) != os.getpgid(0)


def test_start_that_cannot_work_is_refused(supervisor: Supervisor) -> None:
    """A program that does not exist, a folder that does not, and a name in use are refused at once."""
    with pytest.raises(ChildNotStarted, match="there is no program no-such-program"):
        supervisor.start(ChildSpec("none", ("no-such-program",)))
    with pytest.raises(ChildNotStarted, match="nowhere"):
        supervisor.start(ChildSpec("none", SLEEP, cwd=Path("/nowhere")))
    supervisor.start(ChildSpec("sleep", SLEEP))
    with pytest.raises(ChildNotStarted, match="runs already"):
        supervisor.start(ChildSpec("sleep", SLEEP))


def test_failing_preparation_is_tried_again(supervisor: Supervisor, eventually: Eventually) -> None:
    """What goes wrong before a restart is shown, and the restart is tried again."""
    tries: list[int] = []

    def prepare() -> None:
        tries.append(1)
        if len(tries) == 2:
            raise ValueError("not yet")

    supervisor.start(ChildSpec("sleep", SLEEP, before_start=prepare))
    os.kill(_pid(supervisor, "sleep"), signal.SIGKILL)
    assert eventually(lambda: supervisor.state("sleep").problem == "not yet", 2.0)
    assert eventually(lambda: supervisor.state("sleep").status == "running" and len(tries) == 3, 3.0)
    assert supervisor.state("sleep").problem is None


def test_supervisor_may_be_used_from_several_threads(supervisor: Supervisor) -> None:
    """Starts and stops from many threads leave exactly what was asked for."""

    def use(number: int) -> None:
        supervisor.start(ChildSpec(f"a{number}", SLEEP))
        supervisor.start(ChildSpec(f"b{number}", SLEEP))
        supervisor.stop(f"a{number}")

    threads = [threading.Thread(target=use, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(state.name for state in supervisor.states()) == ["b0", "b1", "b2", "b3"]


def test_stopped_supervisor_refuses_work() -> None:
    """After the end nothing can be started, and a second end is fine."""
    supervisor = Supervisor()
    supervisor.start(ChildSpec("sleep", SLEEP))
    pid = _pid(supervisor, "sleep")
    supervisor.stop_all()
    supervisor.stop_all()
    assert not psutil.pid_exists(pid)
    assert supervisor.state("sleep").status == "stopped"
    with pytest.raises(RuntimeError, match="has been stopped"):
        supervisor.start(ChildSpec("late", SLEEP))


def test_title_names_the_process() -> None:
    """People and tools find a process by its title."""
    code = "import os, infra.processes as p; p.set_title('api'); print(open('/proc/self/cmdline').read())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip("\0\n ") == "imagefleet: api"


def test_process_can_tie_itself_to_its_parent(eventually: Eventually, alive: Alive) -> None:
    """A child that was started by other means ends with its parent too, once it asked for it."""
    child = "from infra.processes import die_with_parent; import time; die_with_parent(); print('tied', flush=True); time.sleep(60)"
    code = f"import subprocess, sys, time; c = subprocess.Popen([sys.executable, '-c', {child!r}], stdout=subprocess.PIPE);"
    code += "c.stdout.readline(); print(c.pid, flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        process.kill()
        process.wait()
        assert eventually(lambda: not alive(pid), 3.0)
