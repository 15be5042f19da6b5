"""The doctor sees the GPUs that workers would use."""

from pathlib import Path

import pytest

from cli.doctor import check_gpus


def _driver(folder: Path, script: str) -> None:
    tool = folder / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\n{script}\n")
    tool.chmod(0o755)


def test_gpus_are_read_from_the_drivers_tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names and memory come from nvidia-smi, run as a real program."""
    _driver(tmp_path, "printf '0, GPU-a, NVIDIA H200, 143771\\n1, GPU-b, NVIDIA RTX A4000, 16376\\n'")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert check_gpus().why == "NVIDIA H200 (140 GiB), NVIDIA RTX A4000 (16 GiB)"


def test_failing_driver_is_no_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A driver's tool that fails does not stop the doctor."""
    _driver(tmp_path, "exit 9")
    monkeypatch.setenv("PATH", str(tmp_path))
    found = check_gpus()
    assert found.ok
    assert "no GPU found" in found.why
