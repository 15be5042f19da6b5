"""ControlNets: a diffusers folder; other layouts are recognised to be refused by name."""

from typing import Final

from models_registry.bounded_files import Reads
from models_registry.configs import Config
from models_registry.diffusers_classes import CONTROLNET_KEYS
from models_registry.entries import Kind
from models_registry.families import FAMILIES
from models_registry.findings import Findings, component
from models_registry.kinds.parts import refuse_extras
from models_registry.kinds.unets import refuse_text_width
from models_registry.refusals import Unrecognised
from models_registry.safetensors_header import Header
from models_registry.weights import DIFFUSERS_WEIGHTS, check_shape, read_weights

_ORIGINAL: Final = ("control_model.", "lllite_", "adapter.body.")
_DIFFUSERS: Final = "controlnet_cond_embedding."


def from_folder(config: Config, reads: Reads) -> Findings:
    """Read a folder of a `ControlNetModel`."""
    family = FAMILIES["sd15"]
    config.only(CONTROLNET_KEYS)
    refuse_extras(config)
    text_width = config.whole("cross_attention_dim", 1280)
    refuse_text_width(config.path, text_width, "a ControlNet")
    channels = config.whole("in_channels", 4)
    if channels != family.latent_channels:
        raise Unrecognised(
            config.path, f"takes {channels} latent channels; {family.title} has {family.latent_channels}"
        )
    header = read_weights(config.path.parent, DIFFUSERS_WEIGHTS, reads)
    widths = config.wholes("block_out_channels")
    check_shape(header, ("conv_in.weight",), (widths[0], channels))
    hints = config.values.get("conditioning_embedding_out_channels")
    first = config.wholes("conditioning_embedding_out_channels")[0] if hints is not None else 16
    check_shape(header, (f"{_DIFFUSERS}conv_in.weight",), (first, config.whole("conditioning_channels", 3)))
    return Findings(
        kind=Kind.CONTROLNET,
        family=family.name,
        weights={DIFFUSERS_WEIGHTS: header},
        components=(component("controlnet", header.tensors.values()),),
        others={"config.json": config.path},
        latent_channels=channels,
        text_width=text_width,
    )


def from_file(header: Header, _: Reads) -> Findings | None:
    """Raise `Unrecognised` for a ControlNet that is one file; None for what is none."""
    if any(name.startswith(_ORIGINAL) for name in header.tensors):
        raise Unrecognised(
            header.path, "is a ControlNet or adapter in its original layout; only diffusers folders are supported yet"
        )
    if any(name.startswith(_DIFFUSERS) for name in header.tensors):
        raise Unrecognised(
            header.path, f"is a ControlNet without its config.json; put both into a folder, as {DIFFUSERS_WEIGHTS}"
        )
    return None
