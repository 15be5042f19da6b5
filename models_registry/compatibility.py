"""Say why an adapter does not fit a checkpoint; pure."""

from collections.abc import Mapping
from types import MappingProxyType

from models_registry.entries import ANY_FAMILY, Kind, ModelEntry
from models_registry.families import FAMILIES

#: What people call each kind, with its article.
TITLES: Mapping[Kind, str] = MappingProxyType(
    {
        Kind.CHECKPOINT: "a checkpoint",
        Kind.LORA: "a LoRA",
        Kind.CONTROLNET: "a ControlNet",
        Kind.EMBEDDING: "an embedding",
        Kind.VAE: "a VAE",
        Kind.UPSCALER: "an upscaler",
        Kind.PREPROCESSOR: "a preprocessor",
    }
)
#: Families whose VAEs make the same latents, by twos.
_SAME_LATENTS: tuple[frozenset[str], ...] = (frozenset({"sd15", "sd2"}), frozenset({"flux", "zimage"}))


def mismatch(adapter: ModelEntry, checkpoint: ModelEntry) -> str | None:
    """Return the sentence that says why `adapter` cannot be used with `checkpoint`; None when it can."""
    if adapter.family == ANY_FAMILY:
        return None
    own, other = FAMILIES.get(adapter.family), FAMILIES[checkpoint.family]
    kind = TITLES[adapter.kind]
    if own is None:
        # Another version may have added it.
        return f"{adapter.name} is {kind} for {adapter.family}, which this version does not know."
    if own is not other and not (adapter.kind is Kind.VAE and {own.name, other.name} in _SAME_LATENTS):
        return f"{adapter.name} is {kind} for {own.title}; {checkpoint.name} is {other.title}."
    if adapter.kind not in other.adapters:
        return f"{adapter.name} is {kind}, which {other.title} does not take."
    for ours, theirs, told in (
        (adapter.text_width, checkpoint.text_width, "text features of width {}"),
        (adapter.width, checkpoint.width, "a network of width {}"),
        (adapter.latent_channels, checkpoint.latent_channels, "latents of {} channels"),
        (adapter.latent_factor, checkpoint.latent_factor, "latents of {} pixels a cell"),
    ):
        # What is 0 or None is not known, or does not matter.
        if ours and theirs and ours != theirs:
            return f"{adapter.name} is {kind} for {told.format(ours)}; {checkpoint.name} has {theirs}."
    return None
