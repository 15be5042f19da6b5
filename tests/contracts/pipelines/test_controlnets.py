"""ControlNets from their files: loaded once for all jobs, and refused by name when something is wrong with them."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from jobs.errors import ModelDamaged, ModelMissing
from models_registry.entries import Kind, Layout, ModelEntry
from pipelines.controlnets import load_controlnet
from pipelines.engine.engine import Counters
from pipelines.loaders import LOADERS
from pipelines.shelf import Shelf
from tests.contracts.pipelines.conftest import build_tiny_controlnet, entry_for

_CPU = torch.device("cpu")
_WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture
def entry(tmp_path: Path) -> ModelEntry:
    """Return a tiny ControlNet."""
    return entry_for(build_tiny_controlnet(tmp_path / "control", seed=0), Kind.CONTROLNET)


def test_shelf_loads_it_once(entry: ModelEntry) -> None:
    """In the precision that was asked for, ready to draw, and weighed."""
    counters = Counters()
    shelf = Shelf(LOADERS, _CPU, torch.float16, counters)
    network = shelf.take(entry)
    assert shelf.take(entry.model_copy(update={"name": "renamed"})) is network
    assert counters.component_loads == 1
    assert network.dtype == torch.float16
    assert not network.training
    assert shelf.bytes == sum(weights.nbytes for weights in network.parameters())


def _without(path: Path) -> None:
    path.unlink()


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-10])


def _widened(path: Path) -> None:
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "layers_per_block": 2}))


@pytest.mark.parametrize(
    ("name", "harm", "failure"),
    [
        ("config.json", _without, ModelMissing),
        ("config.json", _cut, ModelDamaged),
        (_WEIGHTS, _without, ModelMissing),
        (_WEIGHTS, _cut, ModelDamaged),
        ("config.json", _widened, ModelDamaged),
    ],
)
def test_what_is_wrong_is_named(
    entry: ModelEntry, name: str, harm: Callable[[Path], None], failure: type[Exception]
) -> None:
    """Missing, cut and mismatched files fail with the path in the sentence."""
    harm(entry.path / name)
    with pytest.raises(failure, match=entry.path.name):
        load_controlnet(entry, _CPU, torch.float32)


@pytest.mark.parametrize("setting", ["extra_conditioning_channels", "extra_condition_channels"])
def test_one_that_reads_a_mask_is_refused(entry: ModelEntry, setting: str) -> None:
    """By whatever name its class has for it."""
    path = entry.path / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), setting: 1}))
    with pytest.raises(ModelDamaged, match="reads a mask"):
        load_controlnet(entry, _CPU, torch.float32)


def test_pickled_weights_are_not_read(entry: ModelEntry) -> None:
    """A folder that holds a pickle alone counts as one without weights."""
    (entry.path / _WEIGHTS).rename(entry.path / "diffusion_pytorch_model.bin")
    with pytest.raises(ModelMissing, match="safetensors"):
        load_controlnet(entry, _CPU, torch.float32)


def test_single_file_is_refused_in_words(entry: ModelEntry) -> None:
    """It says which form is read."""
    with pytest.raises(ModelDamaged, match="folder"):
        load_controlnet(entry.model_copy(update={"layout": Layout.SINGLE_FILE}), _CPU, torch.float32)
