"""The torch engine holds what several checkpoints have in common once: more of them stay, and switching between those copies nothing."""

import shutil
from collections.abc import Iterable, Sequence
from uuid import uuid4

import pytest
import torch
from safetensors.torch import load_file, save_file

from jobs.contract import Txt2ImgParameters
from jobs.fleet import Ledger
from jobs.inputs import Inputs
from models_registry.bounded_files import Reads
from models_registry.detection import detect
from models_registry.entries import ModelEntry
from models_registry.families import FAMILIES
from pipelines.families.base import Family
from tests.contracts.pipelines.conftest import build_tiny_sd15
from tests.integration.workers.local_run import run
from tests.storages import storage_bytes
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


def item(entry: ModelEntry) -> Item:
    """Return an item of one picture in one step."""
    parameters = Txt2ImgParameters(
        model=entry.name, prompt="a red circle", width=SIDE, height=SIDE, steps=1, guidance_scale=5.0,
        scheduler="Euler", seed=7, preview_every=0,
    )  # fmt: skip
    return Item(uuid4(), 1, parameters, Inputs({entry.ref: entry}))


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
    setup = Setup(engine="local", label="cpu0", device="cpu", device_name="CPU", memory_bytes=10**9, threads=1)
    engine = LocalEngine(setup)
    link = MemoryLink([Draw(tuple(map(item, models))), Quit()])
    engine.run(link)
    families: Sequence[Family] = engine._families.models  # noqa: SLF001 - what is really there, not what is told
    ledger = ledgers(link)[-1]
    assert held(ledger) == storage_bytes(families)
    told = {(part.name, part.component): part.shared_with for part in ledger.components}
    assert told == {
        ("a", "unet"): ("b", "c"), ("a", "text_encoder"): ("b", "c"), ("a", "vae"): (), ("b", "vae"): (), ("c", "vae"): (),
        **{("d", part): () for part in ("unet", "text_encoder", "vae")},
    }  # fmt: skip


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
