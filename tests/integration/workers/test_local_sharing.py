"""The torch engine holds what several checkpoints have in common once: more of them stay, and switching between those copies nothing."""

import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import torch
from safetensors.torch import load_file, save_file

from jobs.contract import Txt2ImgParameters
from jobs.fleet import Ledger
from jobs.inputs import Inputs
from models_registry.detection import detect
from models_registry.entries import ModelEntry
from models_registry.families import FAMILIES
from models_registry.reading.bounded_files import Reads
from pipelines.families.base import Family
from tests.contracts.pipelines.conftest import build_tiny_sd15
from tests.integration.workers.local_run import run
from tests.storages import storage_bytes
from tests.tiny import unets
from tests.unit.workers.memory_link import MemoryLink
from workers.engines.interface import Draw, Drawn, Failed, Item, Pictured, Quit, Resident, Setup
from workers.engines.local import BUDGET, LocalEngine

SIDE = 64
#: What a picture needs beside the weights, on a CPU.
ACTIVATIONS = SIDE * SIDE * FAMILIES["sd15"].activation_bytes_per_pixel * 2
#: Computed buffers and rounding.
SLACK = 10_000


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Sequence[ModelEntry]:
    """Return three checkpoints that differ in their VAEs alone, and a fourth that has nothing in common with them."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("models")
    build_tiny_sd15(folder / "a")
    for place, name in enumerate("bc", start=1):
        shutil.copytree(folder / "a", folder / name)
        [path] = (folder / name / "vae").glob("*.safetensors")
        weights = load_file(path)
        weights["decoder.conv_out.bias"] += place
        save_file(weights, path, {"format": "pt"})
    build_tiny_sd15(folder / "d", seed=1)
    return [detect(folder / name, Reads()) for name in "abcd"]


def size(entry: ModelEntry, *names: str) -> int:
    """Return what components weigh on a CPU; all, where none is named."""
    return 4 * sum(each.parameters for each in entry.components if not names or each.name in names)


def item(entry: ModelEntry, *others: ModelEntry, **changes: Any) -> Item:
    """Return an item of one picture in one step."""
    parameters = Txt2ImgParameters(
        model=entry.name, prompt="a red circle", width=SIDE, height=SIDE, steps=1, guidance_scale=5.0,
        scheduler="Euler", seed=7, preview_every=0, **changes,
    )  # fmt: skip
    return Item(uuid4(), 1, parameters, Inputs({each.ref: each for each in (entry, *others)}))


def engine_after(*items: Item) -> tuple[LocalEngine, MemoryLink]:
    """Return an engine with ample memory that has drawn these items, and what it told."""
    setup = Setup(engine="local", label="cpu0", device="cpu", device_name="CPU", memory_bytes=10**9, threads=1)
    engine, link = LocalEngine(setup), MemoryLink([Draw(items), Quit()])
    engine.run(link)
    assert link.of(Failed) == []
    return engine, link


def drawn(entries: Iterable[ModelEntry], weights: int) -> MemoryLink:
    """Draw with these models one after another, on a device that has room for a picture and so many bytes of weights."""
    link = run(*(Draw((item(entry),)) for entry in entries), memory=int((ACTIVATIONS + weights + SLACK) / BUDGET))
    assert link.of(Failed) == []
    return link


def ledgers(link: MemoryLink) -> list[Ledger]:
    """Return the ledgers, in their order."""
    return [report.ledger for report in link.of(Resident)]


def held(ledger: Ledger) -> int:
    """Return the bytes that a ledger counts."""
    return sum(part.bytes for part in ledger.components)


def test_switching_between_resident_models_reads_and_copies_nothing(models: Sequence[ModelEntry]) -> None:
    """A, B, A, B, A: each is loaded once, only B's own VAE beside A, and after that nothing moves: there is nothing to report."""
    a, b = models[:2]
    link = drawn([a, b, a, b, a], size(a) + size(b, "vae"))
    assert len(link.of(Drawn)) == 5
    first, second = link.of(Resident)
    assert [report.loads for report in (first, second)] == [1, 2]
    assert [key.partition("@")[0] for key in second.models] == ["a", "b"]
    one, two = ledgers(link)
    assert (one.components_read, one.components_shared) == (3, 0)
    assert (two.components_read, two.components_shared) == (4, 2)
    assert two.bytes_read - one.bytes_read == held(two) - held(one) == second.bytes - first.bytes == size(b, "vae")
    assert two.bytes_copied == 0
    pictures = [report.rgb for report in link.of(Pictured)]
    assert pictures[0] == pictures[2] == pictures[4] != pictures[1] == pictures[3]


def test_ledger_counts_each_storage_once(models: Sequence[ModelEntry]) -> None:
    """What it adds up to are the bytes of all storages of all tensors that are held; what is shared says who else has it."""
    engine, link = engine_after(*map(item, models))
    families: Sequence[Family] = engine._families.models  # noqa: SLF001 - what is really there, not what is told
    ledger = ledgers(link)[-1]
    assert held(ledger) == storage_bytes(families)
    told = {(part.name, part.component): part.shared_with for part in ledger.components}
    assert told == {
        ("a", "unet"): ("b", "c"), ("a", "text_encoder"): ("b", "c"), ("a", "vae"): (), ("b", "vae"): (), ("c", "vae"): (),
        **{("d", part): () for part in ("unet", "text_encoder", "vae")},
    }  # fmt: skip


def test_refiner_shares_with_the_model_that_it_refines(tmp_path: Path) -> None:
    """What the two have in common is read and counted once, also when the refiner draws by itself afterwards."""
    base, refiner = unets.build_sdxl(tmp_path / "base"), unets.build_sdxl_refiner(tmp_path / "refiner")
    for name in ("text_encoder_2", "vae"):
        shutil.copytree(base / name, refiner / name, dirs_exist_ok=True)
    one, two = (detect(folder, Reads()) for folder in (base, refiner))
    engine, link = engine_after(item(one, two, refiner={"model": two.name, "switch_at": 0.5}))
    [refining] = (each.value for each in engine._shelf.held)  # noqa: SLF001 - what is really there, not what is told
    ledger = ledgers(link)[-1]
    assert held(ledger) == link.of(Resident)[-1].bytes == storage_bytes([*engine._families.models, refining])  # noqa: SLF001
    told = {(part.name, part.component): part.shared_with for part in ledger.components}
    assert told == {
        **{("base", part): () for part in ("unet", "text_encoder", "vae")},
        ("base", "text_encoder_2"): ("refiner",),
        ("refiner", "unet"): (),
    }
    assert (ledger.components_read, ledger.components_shared, ledger.bytes_read) == (5, 2, held(ledger))


def test_model_that_needs_room_takes_over_what_it_has_in_common(models: Sequence[ModelEntry]) -> None:
    """The other one leaves for it, and only what differs is read: the rest never left the device."""
    a, b = models[:2]
    link = drawn([a, b], size(a) + size(b, "vae") // 2)
    assert [[key.partition("@")[0] for key in report.models] for report in link.of(Resident)] == [["a"], ["b"]]
    one, two = ledgers(link)
    assert (two.components_read - one.components_read, two.components_shared) == (1, 2)
    assert held(two) == held(one)


def test_models_leave_until_enough_is_free(models: Sequence[ModelEntry]) -> None:
    """One of two that share nearly everything frees its own VAE and no more: where that is not enough, both leave."""
    a, b, _, d = models
    last = drawn([a, b, d], size(a) + size(d) + size(b, "vae") // 2).of(Resident)[-1]
    assert [key.partition("@")[0] for key in last.models] == ["b", "d"]
    last = drawn([a, b, d], size(a) + size(b, "vae") + size(d) // 2).of(Resident)[-1]
    assert [key.partition("@")[0] for key in last.models] == ["d"]
