"""VAEs by themselves: a diffusers folder, or one file in the original's names or in diffusers'.

The tensors of different families' VAEs may have the same names and shapes; how their latents are scaled tells them apart, else the name.
"""

import re
from pathlib import Path
from typing import Final

from models_registry.diffusers_classes import DIFFUSERS_WEIGHTS
from models_registry.diffusers_keys import TINY_VAE_KEYS, VAE_KEYS
from models_registry.entries import Kind
from models_registry.families import FAMILIES, FamilyFacts
from models_registry.findings import Findings, component, of_one_file
from models_registry.kinds.parts import check_factor, latent_factor
from models_registry.kinds.single_files import config_folder, latent_facts
from models_registry.reading.bounded_files import Reads
from models_registry.reading.configs import Config, read_config
from models_registry.reading.safetensors_header import Header
from models_registry.reading.weights import Weights, check_shape, dimension, read_weights
from models_registry.refusals import ConfigInvalid, Unrecognised, WeightsMismatch

_PREFIX: Final = "first_stage_model."
_LAYERS: Final = (
    "encoder.conv_in.weight",
    "encoder.conv_out.weight",
    "decoder.conv_in.weight",
    "decoder.conv_out.weight",
)
#: Latent channels → the published `scaling_factor` → whose VAE it is. Those of 1.x and 2.x are one.
_SCALES: Final = {
    4: {0.18215: "sd15", 0.13025: "sdxl"},
    16: {1.5305: "sd3", 0.3611: "flux"},
}
#: Words in names; `ae` is what FLUX.1's is published as.
_NAMES: Final = {
    4: (("sdxl", re.compile(r"(?:sd|^|[^a-z])xl", re.IGNORECASE)),),
    16: (
        ("sd3", re.compile(r"sd[-_ ]?3", re.IGNORECASE)),
        ("flux", re.compile(r"flux|^ae$|taef1", re.IGNORECASE)),
    ),
}
#: Of VAEs about which nothing is said.
_USUAL: Final = {4: "sd15"}
#: Rows of the decoder's first layer in the published models.
_ORDINARY: Final = 512


def from_folder(config: Config, reads: Reads) -> Findings:
    """Read a folder of an `AutoencoderKL`."""
    config.only(VAE_KEYS)
    family = _family(config.path.parent, config.whole("latent_channels", 4), config)
    weights = read_weights(config.path.parent, DIFFUSERS_WEIGHTS, reads)
    channels = config.whole("latent_channels")
    check_shape(weights, ("decoder.conv_in.weight",), (config.wholes("block_out_channels")[-1], channels))
    return _findings(config, weights, family, "base", latent_factor(config, family))


def tiny_from_folder(config: Config, reads: Reads) -> Findings:
    """Read a folder of an `AutoencoderTiny`, whose latents are another VAE's as they are drawn: only its name tells whose."""
    config.only(TINY_VAE_KEYS)
    family = _family(config.path.parent, config.whole("latent_channels", 4), None)
    weights = read_weights(config.path.parent, DIFFUSERS_WEIGHTS, reads)
    channels, widths = config.whole("latent_channels"), config.wholes("decoder_block_out_channels")
    check_shape(weights, ("decoder.layers.0.weight",), (widths[0], channels))
    factor = config.whole("upsampling_scaling_factor", 2) ** (len(widths) - 1)
    check_factor(config.path, factor, family)
    return _findings(config, weights, family, "tiny", factor)


def from_file(header: Header, reads: Reads) -> Findings | None:
    """Read a VAE that is one file; None for what is none."""
    start = _PREFIX if any(name.startswith(_PREFIX) for name in header.tensors) else ""
    if not all(f"{start}{layer}" in header.tensors for layer in _LAYERS):
        return None
    latents = latent_facts(header, start)
    config = _config_beside(header, start, reads)
    family = _family(header.path, latents.channels, config)
    check_factor(header.path, latents.factor, family)
    if config is None and dimension(header, f"{start}decoder.conv_in.weight", 0) != _ORDINARY:
        raise ConfigInvalid(
            header.path,
            f"is a VAE of another size than {family.title}'s; its configuration must lie beside it as"
            f" {config_folder(header.path).name}/config.json",
        )
    return Findings(
        kind=Kind.VAE,
        family=family.name,
        weights=of_one_file(header),
        components=(component("vae", header.tensors.values()),),
        others={} if config is None else {"config.json": config.path},
        latent_factor=latents.factor,
        latent_channels=latents.channels,
    )


def _findings(config: Config, weights: Weights, family: FamilyFacts, variant: str, factor: int) -> Findings:
    return Findings(
        kind=Kind.VAE,
        family=family.name,
        weights=weights.named(DIFFUSERS_WEIGHTS),
        components=(component("vae", weights.tensors.values()),),
        others={path.name: path for path in (config.path, weights.listing) if path is not None},
        variant=variant,
        latent_factor=factor,
        latent_channels=config.whole("latent_channels"),
    )


def _family(place: Path, channels: int, config: Config | None) -> FamilyFacts:
    """Return whose latents these are, raising `Unrecognised` where nothing tells."""
    if channels not in _SCALES:
        known = " or ".join(map(str, _SCALES))
        raise Unrecognised(place, f"is a VAE of {channels} latent channels; those of the families here have {known}")
    scale = None if config is None else config.values.get("scaling_factor")
    name = place.name if place.is_dir() else place.stem
    by_name = next((family for family, found in _NAMES[channels] if found.search(name)), None)
    by_scale = _SCALES[channels].get(scale) if isinstance(scale, float) else None
    family = by_scale or by_name or _USUAL.get(channels)
    if family is None:
        raise Unrecognised(
            place,
            f"is a VAE of {channels} latent channels, as Stable Diffusion 3 and FLUX.1 have; `sd3` or `flux` in its name, or the"
            " scaling_factor of its configuration, would tell whose",
        )
    return FAMILIES[family]


def _config_beside(header: Header, start: str, reads: Reads) -> Config | None:
    """Return the configuration beside a file, raising `WeightsMismatch` unless it describes it."""
    path = next(
        (each for name in ("vae/config.json", "config.json") if (each := config_folder(header.path) / name).is_file()),
        None,
    )
    if path is None:
        return None
    config = read_config(path, reads).of_class("AutoencoderKL").only(VAE_KEYS)
    rows = dimension(header, f"{start}decoder.conv_in.weight", 0)
    if config.wholes("block_out_channels")[-1] != rows:
        raise WeightsMismatch(header.path, f"has {rows} channels in its widest layer, which {path.name} does not say")
    channels = dimension(header, f"{start}decoder.conv_in.weight", 1)
    if config.whole("latent_channels", 4) != channels:
        raise WeightsMismatch(header.path, f"has {channels} latent channels, which {path.name} does not say")
    return config
