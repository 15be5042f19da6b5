"""Find what a host can draw on, without importing torch: the system's own tools and files know it as well."""

import csv
import platform
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Literal

import psutil

DeviceKind = Literal["cuda", "rocm", "mps", "cpu"]

MIB: Final = 1024**2
#: A driver that does not answer within this time does not count, seconds.
PROBE_SECONDS: Final = 20.0
#: AMD's kernel driver shows each GPU here.
DRM: Final = Path("/sys/class/drm")
#: Where a container's memory limit stands: cgroup v2, then v1.
MEMORY_LIMITS: Final = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
AMD_VENDOR: Final = "0x1002"


class DeviceUnknown(ValueError):
    """The setting `device` names a device this host does not have."""


@dataclass(frozen=True)
class Device:
    """One thing a worker owns alone, and how a child process is pinned to it."""

    kind: DeviceKind
    index: int
    #: As its maker calls it.
    title: str
    memory_bytes: int
    #: What torch calls it inside the pinned process.
    torch_name: str
    #: Set in the engine's environment, so that it sees no other device.
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """Return the short name used in worker names and process titles: `cuda0`, `cpu1`."""
        return f"{self.kind}{self.index}"

    @property
    def offered_bytes(self) -> int:
        """Return the memory it offers, counted at half precision: the CPU draws at full precision, so half of its memory."""
        return self.memory_bytes // 2 if self.kind == "cpu" else self.memory_bytes


def find_gpus() -> list[Device]:
    """Return every GPU of this host, in the order their drivers number them; none where there is none."""
    return _cuda() or _rocm() or _mps()


def find_device(wanted: str, memory_bytes: int | None = None) -> Device:
    """Return the device a worker was told to own: `auto`, `cpu`, `cpu:1`, `cuda:0`, `rocm:0`, `mps`.

    `memory_bytes` replaces what was found. Raises DeviceUnknown.
    """
    device = _find(wanted.strip().lower())
    return device if memory_bytes is None else replace(device, memory_bytes=memory_bytes)


def _find(wanted: str) -> Device:
    kind, _, number = wanted.partition(":")
    index = int(number) if number.isdecimal() else 0
    if kind == "cpu" and (not number or number.isdecimal()):
        return cpu(index)
    gpus = find_gpus()
    if wanted == "auto":
        return gpus[0] if gpus else cpu(0)
    for gpu in gpus:
        # ROCm builds of torch call their devices `cuda` as well.
        if gpu.index == index and (kind == gpu.kind or (kind == "cuda" and gpu.kind == "rocm")):
            return gpu
    found = ", ".join(f"{gpu.kind}:{gpu.index}" for gpu in gpus) or "no GPU"
    raise DeviceUnknown(f"there is no device '{wanted}' here; found: {found}, cpu")


def cpu(index: int) -> Device:
    """Return the CPU as a device; several workers may share it under different numbers."""
    return Device(
        "cpu", index, _cpu_title(), _host_memory(), "cpu", {"CUDA_VISIBLE_DEVICES": "", "HIP_VISIBLE_DEVICES": ""}
    )


def _ask(*argv: str) -> str | None:
    """Return what a tool prints, or None when it is missing, slow or fails."""
    program = shutil.which(argv[0])
    if program is None:
        return None
    try:
        answer = subprocess.run(  # noqa: S603 - a fixed command line
            [program, *argv[1:]], capture_output=True, text=True, timeout=PROBE_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout if answer.returncode == 0 else None


def _cuda() -> list[Device]:
    answer = _ask("nvidia-smi", "--query-gpu=index,uuid,name,memory.total", "--format=csv,noheader,nounits")
    return [] if answer is None else parse_nvidia(answer)


def parse_nvidia(listing: str) -> list[Device]:
    """Read `index, uuid, name, MiB` lines of nvidia-smi; lines of GPUs that fell off the bus are left out."""
    devices = []
    for row in csv.reader(listing.splitlines(), skipinitialspace=True):
        if len(row) != 4 or not row[0].isdecimal() or not row[1].startswith("GPU-"):  # noqa: PLR2004 - as many as asked for
            continue
        index, uuid, title, memory = row
        # A GPU that shares the host's memory reports none of its own.
        held = int(memory) * MIB if memory.isdecimal() else _host_memory()
        # By UUID, because CUDA's own numbering differs from nvidia-smi's unless told otherwise.
        devices.append(Device("cuda", int(index), title, held, "cuda:0", {"CUDA_VISIBLE_DEVICES": uuid}))
    return devices


def _rocm() -> list[Device]:
    return find_amd(DRM) if sys.platform == "linux" else []


def find_amd(root: Path) -> list[Device]:
    """Read AMD GPUs with memory of their own from the kernel's files."""
    devices: list[Device] = []
    for card in sorted(root.glob("card[0-9]*"), key=lambda path: (len(path.name), path.name)):
        folder = card / "device"
        memory = _read(folder / "mem_info_vram_total")
        if "-" in card.name or _read(folder / "vendor") != AMD_VENDOR or not (memory or "").isdecimal():
            continue
        index = len(devices)
        # Once ROCr hides the others, HIP numbers what is left from 0.
        pinned = {"ROCR_VISIBLE_DEVICES": str(index), "HIP_VISIBLE_DEVICES": "0"}
        title = _read(folder / "product_name") or "AMD GPU"
        devices.append(Device("rocm", index, title, int(memory or 0), "cuda:0", pinned))
    return devices


def _mps() -> list[Device]:
    if sys.platform != "darwin" or platform.machine() != "arm64":
        return []
    # Memory is shared with the system; Metal recommends to use about two thirds of it.
    return [Device("mps", 0, _cpu_title(), psutil.virtual_memory().total * 2 // 3, "mps")]


def _cpu_title() -> str:
    if sys.platform == "darwin":
        return (_ask("sysctl", "-n", "machdep.cpu.brand_string") or platform.processor() or "CPU").strip()
    for line in (_read(Path("/proc/cpuinfo")) or "").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine() or "CPU"


def _host_memory() -> int:
    total = psutil.virtual_memory().total
    for path in MEMORY_LIMITS:
        limit = _read(path)
        if limit is not None and limit.isdecimal():
            return min(total, int(limit))
    return total


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None
