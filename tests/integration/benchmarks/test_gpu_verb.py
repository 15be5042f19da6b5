"""What `make bench-gpu` measures, with tiny models on a CPU: the code runs before a GPU is paid for."""

import json
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch

from benchmarks.gpu.full_size import PIPELINES, build
from benchmarks.gpu.run import CASES, measure
from models_registry.published import PUBLISHED
from tests.tiny.transformers import build_flux_dev, build_sd35_large
from tests.tiny.unets import build_sd15, build_sdxl

_TINY = {"sd15": build_sd15, "sdxl": build_sdxl, "sd35": build_sd35_large, "flux": build_flux_dev}


@pytest.mark.parametrize("name", _TINY)
def test_both_ways_are_measured(tmp_path: Path, name: str) -> None:
    """One round of few steps gives seconds of both and their ratio."""
    case = CASES[name]._replace(side=64, steps=2)
    found = measure(case, _TINY[name](tmp_path / "tiny"), "cpu", rounds=1)
    assert found["case"]["steps"] == 2
    for figure in ("engine_seconds_per_image", "stock_seconds_per_image", "engine_over_stock"):
        assert found[figure]["min"] > 0


@pytest.mark.parametrize("name", ["sd35", "flux"])
def test_models_are_built_of_their_settings(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What builds the large ones, given the settings of small ones, makes a folder that is detected and drawn with."""
    tiny = _TINY[name](tmp_path / "tiny")
    settings = {
        path.parent.name: json.loads(path.read_text())
        for path in (*tiny.glob("*/config.json"), *tiny.glob("*/scheduler_config.json"))
    }
    monkeypatch.setattr("benchmarks.gpu.full_size.PUBLISHED", {CASES[name].model: settings})
    found = measure(
        CASES[name]._replace(side=64, steps=1), build(CASES[name].model, tmp_path / "built"), "cpu", rounds=1
    )
    assert found["engine_over_stock"]["min"] > 0


@pytest.mark.parametrize("name", PIPELINES)
def test_published_sizes_make_the_classes_that_the_pipelines_want(name: str) -> None:
    """By shapes alone: each component is built of its published settings, none is unknown to its class."""
    for settings in PUBLISHED[name].values():
        cls: Any = getattr(diffusers, str(settings.get("_class_name", "")), None)
        if cls is None or not issubclass(cls, torch.nn.Module):
            continue
        with torch.device("meta"):
            model = cls.from_config(dict(settings))
        assert sum(each.numel() for each in model.parameters()) > 80_000_000
