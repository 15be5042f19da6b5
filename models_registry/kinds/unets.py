"""What the settings and first layers of a Stable Diffusion UNet tell about it, whatever file it lies in."""

from collections.abc import Collection
from pathlib import Path
from typing import Final

from models_registry.families import FAMILIES, FamilyFacts
from models_registry.reading.configs import Config
from models_registry.refusals import Unrecognised

#: Latents, one channel of mask, and the latents of the masked picture.
INPAINT_CHANNELS: Final = 9
#: Latents, and those of the picture to be changed.
INSTRUCT_CHANNELS: Final = 8
#: Latents, and the picture that is to be enlarged; or its depths.
UPSCALE_CHANNELS: Final = 7
DEPTH_CHANNELS: Final = 5
#: Widths of the text features that the published models read: nobody else's have these.
SD15_TEXT_WIDTH: Final = 768
SD2_TEXT_WIDTH: Final = 1024
REFINER_TEXT_WIDTH: Final = 1280
SDXL_TEXT_WIDTH: Final = 2048
_OF_WIDTHS: Final = {
    SD15_TEXT_WIDTH: "sd15",
    SD2_TEXT_WIDTH: "sd2",
    REFINER_TEXT_WIDTH: "sdxl",
    SDXL_TEXT_WIDTH: "sdxl",
}
_KINDS: Final = {
    INSTRUCT_CHANNELS: "an instruct-pix2pix model",
    UPSCALE_CHANNELS: "an upscaling model",
    DEPTH_CHANNELS: "a model with depth",
}
#: What SDXL's network reads beside the prompt.
_ADDED: Final = "addition_embed_type"
#: Settings of a UNet that reads more than a prompt.
_EXTRAS: Final = (_ADDED, "class_embed_type", "encoder_hid_dim_type", "time_cond_proj_dim", "num_class_embeds")


def family_of_width(width: int | None) -> str | None:
    """Return the family whose published models read text features of this width; None where none does."""
    return None if width is None else _OF_WIDTHS.get(width)


def family_of(unet: Config) -> FamilyFacts:
    """Return the family whose network these settings make, of those that have a UNet."""
    width = unet.whole("cross_attention_dim", REFINER_TEXT_WIDTH)
    if unet.values.get(_ADDED) is not None or width == SDXL_TEXT_WIDTH:
        return FAMILIES["sdxl"]
    by_width = family_of_width(width)
    # Reduced ones have other widths; 2.x wrote the layers around its attention as matrices, 1.x as convolutions.
    is_sd2 = by_width == "sd2" or (by_width is None and unet.values.get("use_linear_projection") is True)
    return FAMILIES["sd2" if is_sd2 else "sd15"]


def refuse_channels(path: Path, channels: int, latents: int) -> None:
    """Raise `Unrecognised` for a network that reads other channels than latents, or latents with a mask."""
    if channels in {latents, INPAINT_CHANNELS}:
        return
    kind = _KINDS.get(channels, "another kind of model")
    raise Unrecognised(path, f"takes {channels} channels: {kind}, which is not supported yet")


def refuse_extras(unet: Config, allowed: Collection[str] = ()) -> None:
    """Raise `Unrecognised` for a network that wants more than a prompt, and than what its family hands over."""
    for key in _EXTRAS:
        if key not in allowed and unet.values.get(key) is not None:
            raise Unrecognised(unet.path, f"wants more than a prompt ({key}), which is not supported yet")
