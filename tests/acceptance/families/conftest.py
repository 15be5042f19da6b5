"""One fleet with a tiny checkpoint of every family's every variant, in the real architecture, for the tests of families."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import pytest

from models_registry.families import FAMILIES, VariantFacts
from tests.acceptance.tasks.conftest import Studio
from tests.fleet_process import FleetProcess
from tests.tiny import transformers, unets

#: By name: the family and the variant.
VARIANTS: Final[Mapping[str, tuple[str, str]]] = {
    f"tiny-{family}-{variant}": (family, variant) for family, variant in (*unets.CHECKPOINTS, *transformers.BUILDERS)
}


def facts_of(name: str) -> VariantFacts:
    """Return what is known of a tiny checkpoint's variant."""
    family, variant = VARIANTS[name]
    return FAMILIES[family].variants[variant]


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with every variant's checkpoint."""
    folder = tmp_path_factory.mktemp("models")
    builders = {**unets.CHECKPOINTS, **transformers.BUILDERS}
    for name, key in VARIANTS.items():
        builders[key](folder / name)
    unets.build_sd2_controlnet(folder / "tiny-sd2-control")
    unets.build_sdxl_controlnet(folder / "tiny-sdxl-control")
    return folder


@pytest.fixture(scope="session")
def fleet(tmp_path_factory: pytest.TempPathFactory, models: Path) -> Iterator[FleetProcess]:
    """Start a fleet of one CPU worker, which has to draw with all of them, and stop it at the end."""
    running = FleetProcess(tmp_path_factory.mktemp("families") / "home", workers=1, threads=1, models=models)
    running.start()
    try:
        yield running
    finally:
        running.stop()


@pytest.fixture(scope="session")
def studio(fleet: FleetProcess) -> Iterator[Studio]:
    """Return something to draw with."""
    with fleet.client() as http:
        yield Studio(fleet, http)
