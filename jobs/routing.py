"""Which queue a job waits in and which queues a worker serves; pure.

A queue is `<task>.<hardware>`; hardware is a class by memory or a tag that an operator gave a worker.
"""

from collections.abc import Iterable, Sequence
from typing import Final, Literal, NamedTuple

from jobs.errors import HardwareUnknown, TooLargeForFleet
from jobs.fleet import Fleet, WorkerView

GIB: Final = 1024**3


class HardwareClass(NamedTuple):
    """A class of GPU workers by the memory their device is sold with."""

    name: str
    memory_bytes: int


#: Smallest first. A device counts as its class from 90 % of the nominal size: drivers and error correction keep some for themselves.
GPU_CLASSES: Final = tuple(HardwareClass(f"gpu-{size}g", size * GIB) for size in (8, 12, 16, 24, 48, 80, 141))
CPU: Final = "cpu"
CLASSES: Final = (CPU, *(entry.name for entry in GPU_CLASSES))
_NOMINAL: Final = 0.9


def hardware_class(kind: Literal["cpu", "gpu"], memory_bytes: int) -> str:
    """Return the class of a device; a GPU below the smallest class counts as the smallest (claims check real memory)."""
    if kind == "cpu":
        return CPU
    held = [entry.name for entry in GPU_CLASSES if memory_bytes >= entry.memory_bytes * _NOMINAL]
    return held[-1] if held else GPU_CLASSES[0].name


def served_by(hardware: str, tags: Sequence[str]) -> tuple[str, ...]:
    """Return every class and tag a worker of this class serves, its own class first."""
    if hardware == CPU:
        classes: tuple[str, ...] = (CPU,)
    else:
        names = [entry.name for entry in GPU_CLASSES]
        classes = tuple(reversed(names[: names.index(hardware) + 1]))
    return (*classes, *(tag for tag in tags if tag not in classes))


def queue_name(task: str, hardware: str) -> str:
    """Return the queue of a task on a class or tag."""
    return f"{task}.{hardware}"


def queues_of(tasks: Iterable[str], serves: Iterable[str]) -> list[str]:
    """Return every queue a worker listens to."""
    served = list(serves)
    return [queue_name(task, hardware) for task in tasks for hardware in served]


def _smallest_class(workers: Iterable[WorkerView], needs_memory: int) -> str | None:
    """Return the smallest class among workers that hold the job."""
    ranks = {name: rank for rank, name in enumerate(CLASSES)}
    fitting = [worker.hardware for worker in workers if worker.memory_bytes >= needs_memory]
    return min(fitting, key=lambda name: ranks[name], default=None)


def route(task: str, needs_memory: int, hardware: str | None, fleet: Fleet) -> str:
    """Return the class or tag a job goes to, raising `HardwareUnknown` or `TooLargeForFleet`.

    `needs_memory` counts bytes at half precision, as `WorkerView.memory_bytes` does. With no worker known at all a job waits on `cpu`; the
    keeper moves it once workers have come.
    """
    if hardware is not None:
        return _asked_for(task, needs_memory, hardware, fleet)
    able = [worker for worker in fleet.workers if task in worker.tasks]
    if not able:
        return CPU
    online = [worker for worker in able if worker.online and worker.state != "draining"]
    gpus = [worker for worker in online if worker.hardware != CPU]
    chosen = (
        _smallest_class(gpus, needs_memory)
        or _smallest_class(online, needs_memory)
        or _smallest_class(able, needs_memory)
    )
    if chosen is None:
        raise TooLargeForFleet(_too_large(needs_memory, able))
    return chosen


def _asked_for(task: str, needs_memory: int, hardware: str, fleet: Fleet) -> str:
    if hardware not in CLASSES and hardware not in fleet.known_tags():
        known = ", ".join([*CLASSES, *sorted(fleet.known_tags())])
        raise HardwareUnknown(f"No worker has the tag '{hardware}'. Known: {known}.", field="hardware")
    serving = [worker for worker in fleet.workers if hardware in worker.serves and task in worker.tasks]
    if serving and not any(worker.memory_bytes >= needs_memory for worker in serving):
        raise TooLargeForFleet(_too_large(needs_memory, serving), field="hardware")
    return hardware


def _too_large(needs_memory: int, workers: Sequence[WorkerView]) -> str:
    largest = max(worker.memory_bytes for worker in workers)
    return f"The job needs about {needs_memory / GIB:.1f} GiB; the largest worker that could take it offers {largest / GIB:.1f} GiB."
