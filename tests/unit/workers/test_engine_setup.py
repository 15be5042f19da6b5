"""What an engine is told by its environment and its set-up."""

import os

from infra.settings import Settings
from workers.celery_worker import engine_environment, engine_threads
from workers.devices import Device, cpu

GPU = Device("cuda", 0, "GPU", 10**9, "cuda:0", {"CUDA_VISIBLE_DEVICES": "GPU-1"})


def test_engine_environment_pins_and_holds_no_secrets() -> None:
    """An engine sees its own device and nothing of the fleet's servers, and downloads nothing."""
    inherited = {
        "PATH": "/bin",
        "CUDA_VISIBLE_DEVICES": "0,1",
        "IMAGEFLEET_DATABASE_URL": "secret",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "PGPASSWORD": "secret",
        "HF_TOKEN": "secret",
        "HUGGING_FACE_HUB_TOKEN": "secret",
        "AZURE_STORAGE_ACCOUNT_KEY": "secret",
        "GOOGLE_APPLICATION_CREDENTIALS": "secret",
    }
    environment = engine_environment(inherited, GPU)
    assert environment["CUDA_VISIBLE_DEVICES"] == "GPU-1"
    assert environment["PATH"] == "/bin"
    assert environment["HF_HUB_OFFLINE"] == "1"
    assert "secret" not in environment.values()


def test_engine_threads_share_the_cores_of_a_host() -> None:
    """CPU workers divide the cores, at least one each; a GPU's engine keeps torch's choice; a setting decides."""
    cores = os.cpu_count() or 1
    assert engine_threads(Settings(cpu_workers=1), cpu(0)) == cores
    assert engine_threads(Settings(cpu_workers=64), cpu(0)) == max(1, cores // 64)
    assert engine_threads(Settings(), GPU) is None
    assert engine_threads(Settings(threads=3), GPU) == 3
