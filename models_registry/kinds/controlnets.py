"""ControlNets: a diffusers folder; other layouts are recognised to be refused by name."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from models_registry.diffusers_classes import DIFFUSERS_WEIGHTS
from models_registry.diffusers_keys import (
    CONTROLNET_KEYS,
    FLUX_CONTROLNET_KEYS,
    QWENIMAGE_CONTROLNET_KEYS,
    SD3_CONTROLNET_KEYS,
)
from models_registry.entries import Kind
from models_registry.families import FAMILIES
from models_registry.findings import Findings, component
from models_registry.kinds.checkpoints import flux, sd3, sdxl
from models_registry.kinds.unets import REFINER_TEXT_WIDTH, family_of, refuse_extras
from models_registry.reading.bounded_files import Reads
from models_registry.reading.configs import Config
from models_registry.reading.safetensors_header import Header
from models_registry.reading.weights import Weights, check_shape, read_weights
from models_registry.refusals import Unrecognised

_ORIGINAL: Final = ("control_model.", "lllite_", "adapter.body.")
_DIFFUSERS: Final = "controlnet_cond_embedding."
_TRANSFORMER: Final = "controlnet_blocks."
#: Settings of networks that read more than a control picture → the family that has them.
_EXTRAS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "num_mode": "flux",
        "conditioning_embedding_channels": "flux",
        "extra_conditioning_channels": "sd3",
        "extra_condition_channels": "qwenimage",
    }
)


class _Read(NamedTuple):
    """What tells which checkpoints a ControlNet fits."""

    family: str
    latent_channels: int
    #: None for one that reads no text.
    text_width: int | None
    width: int


def from_unet_folder(config: Config, reads: Reads) -> Findings:
    """Read a folder of a `ControlNetModel`."""
    config.only(CONTROLNET_KEYS)
    family = family_of(config)
    if family.name == "sdxl":
        sdxl.check_added(config)
    refuse_extras(config, sdxl.ADDED if family.name == "sdxl" else ())
    channels = config.whole("in_channels", 4)
    if channels != family.latent_channels:
        raise Unrecognised(
            config.path, f"takes {channels} latent channels; {family.title} has {family.latent_channels}"
        )
    weights = read_weights(config.path.parent, DIFFUSERS_WEIGHTS, reads)
    width = config.wholes("block_out_channels")[0]
    check_shape(weights, ("conv_in.weight",), (width, channels))
    hints = config.values.get("conditioning_embedding_out_channels")
    first = config.wholes("conditioning_embedding_out_channels")[0] if hints is not None else 16
    check_shape(weights, (f"{_DIFFUSERS}conv_in.weight",), (first, config.whole("conditioning_channels", 3)))
    text_width = config.whole("cross_attention_dim", REFINER_TEXT_WIDTH)
    return _findings(config, weights, _Read(family.name, channels, text_width, width))


def from_sd3_folder(config: Config, reads: Reads) -> Findings:
    """Read a folder of a `SD3ControlNetModel`."""
    config.only(SD3_CONTROLNET_KEYS)
    _refuse_extras(config)
    channels, width = config.whole("in_channels", 16), sd3.inner_width(config)
    weights = read_weights(config.path.parent, DIFFUSERS_WEIGHTS, reads)
    check_shape(weights, ("pos_embed_input.proj.weight",), (width, channels))
    # Those of 3.5 Large read no text.
    text_width = config.maybe("joint_attention_dim")
    return _findings(config, weights, _Read("sd3", channels, text_width, width))


def from_flux_folder(config: Config, reads: Reads) -> Findings:
    """Read a folder of a `FluxControlNetModel`."""
    config.only(FLUX_CONTROLNET_KEYS)
    return _from_packed(config, reads, "flux", 4096)


def from_qwenimage_folder(config: Config, reads: Reads) -> Findings:
    """Read a folder of a `QwenImageControlNetModel`."""
    config.only(QWENIMAGE_CONTROLNET_KEYS)
    return _from_packed(config, reads, "qwenimage", 3584)


def from_file(header: Header, _: Reads) -> Findings | None:
    """Raise `Unrecognised` for a ControlNet that is one file; None for what is none."""
    if any(name.startswith(_ORIGINAL) for name in header.tensors):
        raise Unrecognised(
            header.path, "is a ControlNet or adapter in its original layout; only diffusers folders are supported yet"
        )
    if any(name.startswith((_DIFFUSERS, _TRANSFORMER)) for name in header.tensors):
        raise Unrecognised(
            header.path, f"is a ControlNet without its config.json; put both into a folder, as {DIFFUSERS_WEIGHTS}"
        )
    return None


def _from_packed(config: Config, reads: Reads, family: str, text_width: int) -> Findings:
    """Read a network that sees its latents in tokens of four; `text_width` is what its class has where nothing is said."""
    _refuse_extras(config)
    channels, width = config.whole("in_channels", 64), flux.inner_width(config)
    weights = read_weights(config.path.parent, DIFFUSERS_WEIGHTS, reads)
    check_shape(weights, ("controlnet_x_embedder.weight",), (width, channels))
    read = _Read(family, channels // flux.PACKED, config.whole("joint_attention_dim", text_width), width)
    return _findings(config, weights, read)


def _refuse_extras(config: Config) -> None:
    for key, family in _EXTRAS.items():
        if config.values.get(key) not in (None, 0):
            raise Unrecognised(
                config.path,
                f"is a ControlNet for {FAMILIES[family].title} that wants more than a picture ({key}), which is not supported yet",
            )


def _findings(config: Config, weights: Weights, read: _Read) -> Findings:
    tensors = weights.tensors.values()
    return Findings(
        kind=Kind.CONTROLNET,
        weights=weights.named(DIFFUSERS_WEIGHTS),
        components=(component("controlnet", tensors),),
        others={path.name: path for path in (config.path, weights.listing) if path is not None},
        **read._asdict(),
    )
