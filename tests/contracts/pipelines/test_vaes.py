"""Another VAE in place of the model's own: in the picture, and nowhere else."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch

from jobs.contract import Txt2ImgParameters
from jobs.errors import ModelDamaged, ModelMissing
from jobs.inputs import Inputs
from models_registry.entries import Kind, Layout, ModelEntry
from pipelines.families.base import Family
from pipelines.pictures import Pixels

Make = Callable[..., Txt2ImgParameters]

#: The library ships no types for these classes.
_DIFFUSERS: Any = diffusers


def inputs_of(folder: Path) -> Inputs:
    """Hand a VAE's folder over."""
    entry = ModelEntry(
        name="other",
        kind=Kind.VAE,
        layout=Layout.DIFFUSERS,
        family="sd15",
        path=folder,
        fingerprint=f"{abs(hash(folder)):064d}",
        components=(),
    )
    return Inputs({entry.ref: entry})


def kl(blocks: int = 2, channels: int = 4) -> Any:
    """Make a small VAE of random weights."""
    return _DIFFUSERS.AutoencoderKL(
        block_out_channels=(4,) * blocks,
        down_block_types=("DownEncoderBlock2D",) * blocks,
        up_block_types=("UpDecoderBlock2D",) * blocks,
        latent_channels=channels,
        norm_num_groups=2,
        sample_size=64,
    )


def tiny() -> Any:
    """Make a distilled VAE of random weights."""
    return _DIFFUSERS.AutoencoderTiny(
        encoder_block_out_channels=(4, 4),
        decoder_block_out_channels=(4, 4),
        num_encoder_blocks=(1, 1),
        num_decoder_blocks=(1, 1),
    )


def save(vae: Any, folder: Path) -> Path:
    """Save a VAE."""
    vae.save_pretrained(folder)
    return folder


def draw(family: Family, parameters: Txt2ImgParameters, inputs: Inputs) -> tuple[Pixels, Pixels, Any]:
    """Return the picture, the last preview and the last latents."""
    state = family.prepare(parameters, 0, inputs)
    try:
        while state.phase == "denoise":
            assert not family.step([state]).errors
        preview = state.preview()
        latents = state._body.latents  # noqa: SLF001 - what the VAE is given
        assert preview is not None
        assert latents is not None
        return family.finish([state])[0].array, preview, latents.clone()
    finally:
        state.close()


@pytest.mark.parametrize("make", [kl, tiny])
def test_vae_decodes_in_place_of_the_models_own(
    family: Family, parameters: Make, tmp_path: Path, make: Callable[[], Any]
) -> None:
    """The same latents and previews, other pixels: those the VAE itself makes; the next job has the model's own again."""
    torch.manual_seed(3)
    folder = save(make(), tmp_path / "other")
    own, preview, latents = draw(family, parameters(), Inputs())
    loads = family.shelf._counters.component_loads  # noqa: SLF001 - the shelf is the session's
    other, same, kept = draw(family, parameters(vae="other"), inputs_of(folder))
    draw(family, parameters(vae="other", seed=8), inputs_of(folder))
    assert family.shelf._counters.component_loads == loads + 1  # noqa: SLF001
    assert np.array_equal(preview, same)
    assert torch.equal(latents, kept)
    vae = type(make()).from_pretrained(folder)
    with torch.no_grad():
        wanted = vae.decode(kept / vae.config.scaling_factor, return_dict=False)[0]
    pixels = ((wanted / 2 + 0.5).clamp(0, 1) * 255).round()[0].permute(1, 2, 0).numpy().astype(np.uint8)
    assert np.array_equal(other, pixels)
    assert not np.array_equal(other, own)
    assert np.array_equal(draw(family, parameters(), Inputs())[0], own)


def test_vae_and_own_take_turns(family: Family, parameters: Make, tmp_path: Path) -> None:
    """Two runs beside each other decode each with its own."""
    torch.manual_seed(3)
    handed = inputs_of(save(kl(), tmp_path / "other"))
    wanted = [parameters(), parameters(vae="other")]
    solo = [draw(family, each, handed)[0] for each in wanted]
    states = [family.prepare(each, 0, handed) for each in wanted]
    while states[0].phase == "denoise":
        assert not family.step(states).errors
    for picture, alone in zip(family.finish(states), solo, strict=True):
        assert np.array_equal(picture.array, alone)
    for state in states:
        state.close()


@pytest.mark.parametrize(("blocks", "channels"), [(3, 4), (2, 8)])
def test_vae_of_other_latents_is_refused(
    family: Family, parameters: Make, tmp_path: Path, blocks: int, channels: int
) -> None:
    """Latents of another size or depth are another model's."""
    handed = inputs_of(save(kl(blocks, channels), tmp_path / "other"))
    with pytest.raises(ModelDamaged, match="other was made for another model"):
        family.prepare(parameters(vae="other"), 0, handed)


@pytest.mark.parametrize(
    ("harm", "error"),
    [
        (lambda folder: (folder / "config.json").unlink(), ModelMissing),
        (lambda folder: (folder / "diffusion_pytorch_model.safetensors").unlink(), ModelMissing),
        (lambda folder: (folder / "config.json").write_text("{"), ModelDamaged),
        (lambda folder: (folder / "config.json").write_text('{"_class_name": "UNet2DModel"}'), ModelDamaged),
        (lambda folder: (folder / "diffusion_pytorch_model.safetensors").write_bytes(b"{}"), ModelDamaged),
        (shutil.rmtree, ModelMissing),
    ],
)
def test_broken_vae_is_named(
    family: Family, parameters: Make, tmp_path: Path, harm: Callable[[Path], object], error: type[Exception]
) -> None:
    """Whatever is wrong with the folder, the message says which it is."""
    folder = save(kl(), tmp_path / "other")
    harm(folder)
    with pytest.raises(error, match="other"):
        family.prepare(parameters(vae="other"), 0, inputs_of(folder))
