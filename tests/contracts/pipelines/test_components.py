"""Equal components of several checkpoints are one copy, in bytes of storage; what differs is told apart, and stays as it is for others."""

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import reference_models
from jobs.contract import Txt2ImgParameters
from models_registry.detection import detect
from models_registry.entries import Layout
from models_registry.reading.bounded_files import Reads
from pipelines.components import Numbers, storages, weigh
from pipelines.engine.engine import Counters
from pipelines.families.base import Family
from pipelines.loaders import LOADERS
from pipelines.loading import load
from pipelines.shelf import Shelf
from tests.contracts.pipelines.conftest import entry_for
from tests.contracts.pipelines.lora_jobs import draw, finish, inputs_of, loras
from tests.lora_layouts import make, write_kohya
from tests.original_layout import write_original
from tests.storages import common, storage_bytes

Make = Callable[..., Txt2ImgParameters]
Change = Callable[[Path], None]

CPU = torch.device("cpu")
EVERY = frozenset({"unet", "vae", "text_encoder"})


def change_number(folder: Path, component: str) -> None:
    """Change one number of a component by a little."""
    [path] = (folder / component).glob("*.safetensors")
    weights = load_file(path)
    weights[max(weights)].view(-1)[-1] += 0.25
    save_file(weights, path, {"format": "pt"})


def configure(folder: Path, component: str, **values: object) -> None:
    """Change a component's configuration."""
    path = folder / component / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


@pytest.fixture
def counters() -> Counters:
    """Return an engine's counters, all nought."""
    return Counters()


@pytest.fixture
def shelf(counters: Counters) -> Shelf:
    """Return the shelf of an engine that has loaded nothing yet."""
    return Shelf(LOADERS, CPU, torch.float32, counters)


@pytest.fixture
def twins(tiny_sd15_folder: Path, tmp_path: Path, shelf: Shelf, counters: Counters) -> Sequence[Family]:
    """Return two loaded models that differ in their VAEs alone."""
    shutil.copytree(tiny_sd15_folder, tmp_path / "twin")
    change_number(tmp_path / "twin", "vae")
    entries = [detect(folder, Reads()) for folder in (tiny_sd15_folder, tmp_path / "twin")]
    return [load(entry, CPU, counters=counters, shelf=shelf) for entry in entries]


def test_trained_checkpoints_share_what_they_have_in_common(counters: Counters, shelf: Shelf) -> None:
    """Text encoder and VAE of the two models are there once, in bytes of storage; only the second's own UNet is read."""
    folder = Path(next(iter(reference_models.__path__)))
    one = load(detect(folder / "shapes-sd15", Reads()), CPU, counters=counters, shelf=shelf)
    alone, read = storage_bytes([one]), counters.bytes_read
    assert alone == read
    other = load(detect(folder / "shapes-sd15-inpaint", Reads()), CPU, counters=counters, shelf=shelf)
    assert common(one, other) == {"vae", "text_encoder"}
    assert (counters.components_read, counters.components_shared) == (4, 2)
    own, others = weigh(other.parts["unet"]), weigh(one.parts["unet"])
    assert counters.bytes_read == read + own
    assert storage_bytes([one, other]) == alone + own
    one.close()
    assert storage_bytes([other]) == alone - others + own


def test_equal_components_are_one_copy_without_a_digest(
    tiny_sd15_folder: Path, tmp_path: Path, counters: Counters, shelf: Shelf
) -> None:
    """What nobody hashed is compared once it was read: a folder, its copy, and the same weights in the original layout."""
    copy = shutil.copytree(tiny_sd15_folder, tmp_path / "copy")
    file = write_original(tiny_sd15_folder, tmp_path / "tiny.safetensors")
    single = entry_for(file).model_copy(update={"layout": Layout.SINGLE_FILE})
    entries = [entry_for(tiny_sd15_folder), entry_for(copy), single]
    families = [load(entry, CPU, counters=counters, shelf=shelf) for entry in entries]
    assert (counters.components_read, counters.components_shared) == (9, 6)
    assert storage_bytes(families) == storage_bytes(families[:1])


@pytest.mark.parametrize(
    ("change", "read", "shared"),
    [
        (lambda folder: change_number(folder, "vae"), 1, EVERY - {"vae"}),
        (lambda folder: configure(folder, "vae", scaling_factor=0.5), 1, EVERY),
        (lambda folder: configure(folder, "text_encoder", hidden_act="gelu"), 1, EVERY),
        (lambda folder: configure(folder, "unet", _name_or_path="elsewhere"), 0, EVERY),
    ],
)
@pytest.mark.parametrize("hashed", [True, False])
def test_components_that_differ_are_told_apart(
    tiny_sd15_folder: Path,
    tmp_path: Path,
    shelf: Shelf,
    counters: Counters,
    parameters: Make,
    change: Change,
    read: int,
    shared: set[str],
    *,
    hashed: bool,
) -> None:
    """A number makes a component of its own; a setting is each model's own, over the same numbers; where it came from is nothing."""
    changed = shutil.copytree(tiny_sd15_folder, tmp_path / "changed")
    change(changed)
    describe = (lambda folder: detect(folder, Reads())) if hashed else entry_for
    folders = (tiny_sd15_folder, changed)
    one, other = (load(describe(folder), CPU, counters=counters, shelf=shelf) for folder in folders)
    assert common(one, other) == shared
    assert counters.components_read == (3 + read if hashed else 6)
    job = parameters(steps=2)
    assert [draw(family, job) for family in (one, other)] == [
        draw(load(entry_for(folder), CPU), job) for folder in folders
    ]


def test_digest_is_of_the_bytes_alone(tiny_sd15_folder: Path, tmp_path: Path) -> None:
    """Where they lie changes no digest; a number does, and what a header claims of itself is believed by nobody."""
    folder = shutil.copytree(tiny_sd15_folder, tmp_path / "other")
    digests = [
        {each.name: each.digest for each in detect(place, Reads()).components} for place in (tiny_sd15_folder, folder)
    ]
    assert digests[0] == digests[1]
    assert all(len(digest) == 64 for digest in digests[0].values())
    [path] = (folder / "vae").glob("*.safetensors")
    weights = load_file(path)
    weights[max(weights)].view(-1)[-1] += 0.25
    save_file(weights, path, {"format": "pt", "modelspec.hash_sha256": f"0x{digests[0]['vae']}"})
    now = {each.name: each.digest for each in detect(folder, Reads()).components}
    assert {name for name in now if now[name] == digests[0][name]} == {"unet", "text_encoder"}


def test_models_that_share_draw_as_they_do_alone(twins: Sequence[Family], parameters: Make, tmp_path: Path) -> None:
    """With stacks of LoRAs of their own, step by step in turn over one UNet and one text encoder: each model's own bits."""
    one, other = twins
    assert common(one, other) == {"unet", "text_encoder"}
    paths = [
        write_kohya(make("lora", one.pipe.unet, one.pipe.text_encoder, seed=seed), tmp_path / f"{seed}.safetensors")
        for seed in (1, 2)
    ]
    jobs = [parameters(steps=3, loras=loras((path, 0.5)), seed=seed) for seed, path in enumerate(paths)]
    jobs.append(parameters(steps=3, seed=2))
    inputs = inputs_of(*paths)
    alone = [draw(load(each.entry, CPU), job, inputs) for each, job in zip((one, other, one), jobs, strict=True)]

    drawing = [(each, each.prepare(job, 0, inputs)) for each, job in zip((one, other, one), jobs, strict=True)]
    for _ in range(2):
        for family, state in drawing:
            assert not family.step([state]).errors
    assert [finish(family, state) for family, state in drawing] == alone


def test_closing_a_model_leaves_the_others_as_they_were(
    twins: Sequence[Family], shelf: Shelf, parameters: Make, tmp_path: Path
) -> None:
    """While another's run is between two steps; what nobody has any more is gone, and nothing else."""
    one, other = twins
    style = write_kohya(make("lora", one.pipe.unet, one.pipe.text_encoder, seed=1), tmp_path / "style.safetensors")
    job, inputs = parameters(steps=3, loras=loras((style, 0.5))), inputs_of(style)
    alone = draw(load(other.entry, CPU), job, inputs)
    state = other.prepare(job, 0, inputs)
    assert not other.step([state]).errors
    draw(one, job, inputs)
    parts = {each.name: Numbers(each.digest, torch.float32) for each in one.entry.components}
    one.close()
    assert shelf.components.held(parts.values()).keys() == {parts["unet"], parts["text_encoder"]}
    assert finish(other, state) == alone
    other.close()
    assert not shelf.components.held(parts.values())


def test_precisions_are_told_apart(tiny_sd15_folder: Path, shelf: Shelf) -> None:
    """One model at two precisions has nothing in common with itself, and each is found by its own."""
    entry = detect(tiny_sd15_folder, Reads())
    one, other = (load(entry, CPU, dtype, shelf=shelf) for dtype in (torch.float32, torch.bfloat16))
    assert common(one, other) == set()
    digest = next(each.digest for each in entry.components if each.name == "vae")
    for family, dtype in ((one, torch.float32), (other, torch.bfloat16)):
        [found] = shelf.components.held({Numbers(digest, dtype)}).values()
        assert storages(found) == storages(family.parts["vae"])


def test_what_one_user_does_to_its_modules_is_nothing_to_another(twins: Sequence[Family], parameters: Make) -> None:
    """Precision, flags and hooks, as pipelines and libraries set them for the time of a call and sometimes for good."""
    one, other = twins
    before = draw(other, parameters())
    one.parts["unet"].to(torch.float16)
    one.pipe.unet.fuse_qkv_projections()
    one.parts["text_encoder"].register_forward_hook(lambda *_: torch.zeros(1))
    one.pipe.text_encoder.config.hidden_act = "relu"
    assert draw(other, parameters()) == before
    assert common(one, other) == {"text_encoder"}


def test_equal_components_of_one_model_are_two_users(twins: Sequence[Family], shelf: Shelf) -> None:
    """So that each of two text encoders gets the LoRAs that are its own."""
    entry = twins[0].entry
    digest = next(each.digest for each in entry.components if each.name == "text_encoder")
    config = json.loads((entry.path / "text_encoder/config.json").read_text())
    cls = type(twins[0].parts["text_encoder"])
    one, other = (shelf.components.take(digest, cls, config, torch.float32, _unread) for _ in range(2))
    assert one is not other
    assert storages(one) == storages(other) == storages(twins[0].parts["text_encoder"])


def _unread() -> None:
    raise AssertionError("it is here already")
