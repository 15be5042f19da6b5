"""What tests of the torch engine share: entries of tiny folders, and an engine that serves commands to the end."""

from collections.abc import Callable
from pathlib import Path

from models_registry.entries import Component, Kind, Layout, ModelEntry
from tests.unit.workers.memory_link import MemoryLink
from workers.engines.interface import Command, Quit, Report, Setup
from workers.engines.local import LocalEngine

MB = 10**6
#: Half precision; the CPU draws at twice that.
WEIGHTS = 10 * MB


def entry(folder: Path, name: str = "tiny", kind: Kind = Kind.CHECKPOINT) -> ModelEntry:
    """Describe the folder; several names may stand for the same files."""
    return ModelEntry(
        name=name,
        kind=kind,
        layout=Layout.DIFFUSERS,
        family="sd15",
        path=folder,
        fingerprint="0" * 64,
        components=(Component(name="unet", bytes=WEIGHTS, parameters=WEIGHTS // 2, dtype="F16"),),
        native_size=64,
        latent_factor=2,
        latent_channels=4,
    )


def run(
    *commands: Command, answer: Callable[[Report], Command | None] = lambda _: None, memory: int = 1000 * MB
) -> MemoryLink:
    """Let an engine on the CPU serve commands to the end."""
    link = MemoryLink([*commands, Quit()], answer)
    setup = Setup(engine="local", label="cpu0", device="cpu", device_name="CPU", memory_bytes=memory, threads=1)
    LocalEngine(setup).run(link)
    return link
