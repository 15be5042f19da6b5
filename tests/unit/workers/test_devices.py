"""What a host can draw on, read from what its tools and files say."""

from pathlib import Path

import pytest

from workers.devices import MIB, DeviceUnknown, cpu, find_amd, find_device, parse_nvidia

LISTING = """\
0, GPU-11111111-aaaa, NVIDIA H200, 143771
1, GPU-22222222-bbbb, "NVIDIA RTX 6000, Ada", 49140
2, GPU-33333333-cccc, NVIDIA GB10, [N/A]
Unable to determine the device handle for GPU3: 0000:C1:00.0: GPU is lost
"""


def test_parse_nvidia_reads_name_memory_and_pin() -> None:
    """Each GPU is pinned by its UUID; a line about a lost GPU is left out."""
    first, second, shared = parse_nvidia(LISTING)
    assert (first.label, first.title, first.memory_bytes) == ("cuda0", "NVIDIA H200", 143771 * MIB)
    assert first.environment == {"CUDA_VISIBLE_DEVICES": "GPU-11111111-aaaa"}
    assert (second.index, second.title, second.torch_name) == (1, "NVIDIA RTX 6000, Ada", "cuda:0")
    assert shared.memory_bytes > 0


def add_card(root: Path, name: str, **files: str) -> None:
    """Make a graphics card in a copy of the kernel's folder."""
    folder = root / name / "device"
    folder.mkdir(parents=True)
    for file, text in files.items():
        (folder / file).write_text(text + "\n")


def test_find_amd_reads_the_kernels_files(tmp_path: Path) -> None:
    """AMD cards with memory of their own count, in the driver's order; outputs and other makers' cards do not."""
    add_card(tmp_path, "card10", vendor="0x1002", mem_info_vram_total=str(24 * 1024 * MIB), product_name="Instinct")
    add_card(tmp_path, "card2", vendor="0x1002", mem_info_vram_total=str(16 * 1024 * MIB))
    add_card(tmp_path, "card0", vendor="0x10de")
    add_card(tmp_path, "card2-HDMI-A-1", vendor="0x1002", mem_info_vram_total="1")
    first, second = find_amd(tmp_path)
    assert (first.label, first.title, first.memory_bytes) == ("rocm0", "AMD GPU", 16 * 1024 * MIB)
    assert (second.title, second.environment) == ("Instinct", {"ROCR_VISIBLE_DEVICES": "1", "HIP_VISIBLE_DEVICES": "0"})


def test_cpu_offers_half_of_its_memory() -> None:
    """A CPU draws at full precision, so what is counted at half precision takes twice the room."""
    device = cpu(3)
    assert device.label == "cpu3"
    assert device.memory_bytes > 0
    assert device.offered_bytes == device.memory_bytes // 2


def test_find_device_takes_numbers_and_another_memory() -> None:
    """CPU workers are numbered, and an operator may grant less memory than there is."""
    device = find_device("cpu:2", 1000)
    assert (device.label, device.memory_bytes, device.offered_bytes) == ("cpu2", 1000, 500)


@pytest.mark.parametrize("wanted", ["cuda:99", "tpu", "cpu:x", ""])
def test_find_device_refuses_what_is_not_there(wanted: str) -> None:
    """The message names what was found instead."""
    with pytest.raises(DeviceUnknown, match=r"found: .*cpu"):
        find_device(wanted)
