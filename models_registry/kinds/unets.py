"""What the first layers of a Stable Diffusion network tell about it, whatever file it lies in."""

from pathlib import Path
from typing import Final

from models_registry.families import INPAINT, FamilyFacts
from models_registry.refusals import Unrecognised

#: Latents, one channel of mask, and the latents of the masked picture.
INPAINT_CHANNELS: Final = 9
#: Latents, and those of the picture to be changed.
INSTRUCT_CHANNELS: Final = 8
#: Width of the text features of Stable Diffusion 2.x, which shares its classes with 1.x; and of SDXL.
SD2_TEXT_WIDTH: Final = 1024
SDXL_TEXT_WIDTH: Final = 2048


def variant_of(channels: int) -> str:
    """Return the variant of a checkpoint whose network reads so many channels."""
    return INPAINT if channels == INPAINT_CHANNELS else "base"


def refuse_channels(path: Path, channels: int, family: FamilyFacts) -> None:
    """Raise `Unrecognised` for a network that reads other channels than latents, or latents with a mask."""
    if channels in {family.latent_channels, INPAINT_CHANNELS}:
        return
    kind = "an instruct-pix2pix model" if channels == INSTRUCT_CHANNELS else "another kind of model"
    raise Unrecognised(path, f"takes {channels} channels: {kind}, which is not supported yet")


def refuse_text_width(path: Path, width: int | None, what: str) -> None:
    """Raise `Unrecognised` for text features as wide as another family's; `what` says what the file is (`a LoRA`)."""
    other = {SD2_TEXT_WIDTH: "Stable Diffusion 2.x", SDXL_TEXT_WIDTH: "SDXL"}.get(width or 0)
    if other is not None:
        raise Unrecognised(path, f"is {what} for {other} by the width of its text features, which is not supported yet")
