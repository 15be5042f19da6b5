"""One fleet with a tiny checkpoint of every family's every variant, in the real architecture, for the tests of families."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import diffusers
import pytest
import torch
import transformers
from safetensors.torch import save_file

from models_registry.families import FAMILIES, VariantFacts
from tests.acceptance.tasks.conftest import Studio
from tests.fleet_process import FleetProcess
from tests.lora_layouts import make, write_kohya
from tests.original_files import write_file
from tests.tiny import flux2, qwenimage, unets, zimage
from tests.tiny import transformers as flows
from tests.tiny.families import BUILDERS

#: The libraries ship no types for these calls.
_DIFFUSERS: Any = diffusers
_TRANSFORMERS: Any = transformers

#: By name: the family and the variant.
VARIANTS: Final[Mapping[str, tuple[str, str]]] = {
    f"tiny-{family}-{variant}": (family, variant) for family, variant in BUILDERS
}


#: Which of them lie there as a single file too.
FILES: Final = ("tiny-sd2-v", "tiny-sdxl-base", "tiny-sdxl-refiner", "tiny-sd3-medium", "tiny-flux-dev")


def facts_of(name: str) -> VariantFacts:
    """Return what is known of a tiny checkpoint's variant."""
    family, variant = VARIANTS[name]
    return FAMILIES[family].variants[variant]


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with every variant's checkpoint."""
    folder = tmp_path_factory.mktemp("models")
    for name, key in VARIANTS.items():
        BUILDERS[key](folder / name)
    unets.build_sd2_controlnet(folder / "tiny-sd2-control")
    unets.build_sdxl_controlnet(folder / "tiny-sdxl-control")
    flows.build_sd3_controlnet(folder / "tiny-sd3-control")
    flows.build_flux_controlnet(folder / "tiny-flux-control")
    qwenimage.build_controlnet(folder / "tiny-qwenimage-control")
    for name in ("tiny-sd3-medium", "tiny-flux-dev"):
        flows.build_lora(folder / name, folder / f"{name}-lora.safetensors")
    for name in ("tiny-flux2-klein", "tiny-flux2-dev"):
        flux2.build_lora(folder / f"{name}-lora.safetensors")
    qwenimage.build_lora(folder / "tiny-qwenimage-base-lora.safetensors")
    zimage.build_lora(folder / "tiny-zimage-turbo-lora.safetensors")
    for name in FILES:
        write_file(folder / name, folder / f"{name}-file.safetensors")
    _write_additions(folder)
    return folder


def _write_additions(folder: Path) -> None:
    """Write a LoRA of all three components of SDXL, and an embedding for both of its text encoders."""
    base = folder / "tiny-sdxl-base"
    unet = _DIFFUSERS.UNet2DConditionModel.from_pretrained(base / "unet")
    first = _TRANSFORMERS.CLIPTextModel.from_pretrained(base / "text_encoder")
    second = _TRANSFORMERS.CLIPTextModelWithProjection.from_pretrained(base / "text_encoder_2")
    write_kohya(make("lora", unet, first, text_encoder_2=second), folder / "tiny-sdxl-lora.safetensors", original=True)
    vectors = {"clip_l": first, "clip_g": second}
    save_file(
        {name: torch.randn(2, encoder.config.hidden_size) for name, encoder in vectors.items()},
        folder / "tiny-dusk.safetensors",
    )


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
