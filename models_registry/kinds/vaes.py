"""VAEs by themselves: a diffusers folder, or one file in the original's names or in diffusers'."""

from pathlib import Path
from typing import Final

from models_registry.bounded_files import Reads
from models_registry.configs import Config, read_config
from models_registry.diffusers_classes import TINY_VAE_KEYS, VAE_KEYS
from models_registry.entries import Kind
from models_registry.families import FAMILIES, FamilyFacts
from models_registry.findings import Findings, component, of_one_file
from models_registry.kinds.parts import check_factor, latent_factor
from models_registry.kinds.single_files import config_folder, latent_facts
from models_registry.refusals import ConfigInvalid, Unrecognised, WeightsMismatch
from models_registry.safetensors_header import Header
from models_registry.weights import DIFFUSERS_WEIGHTS, check_shape, dimension, read_weights

_PREFIX: Final = "first_stage_model."
_LAYERS: Final = (
    "encoder.conv_in.weight",
    "encoder.conv_out.weight",
    "decoder.conv_in.weight",
    "decoder.conv_out.weight",
)
#: Of SDXL's, which has the layers and sizes of Stable Diffusion 1.x's and other latents.
_SDXL_SCALING: Final = 0.13025
#: Rows of the decoder's first layer in the published model.
_ORDINARY: Final = 512


def from_folder(config: Config, reads: Reads) -> Findings:
    """Read a folder of an `AutoencoderKL`."""
    family = FAMILIES["sd15"]
    config.only(VAE_KEYS)
    _refuse_others(config, family)
    header = read_weights(config.path.parent, DIFFUSERS_WEIGHTS, reads)
    channels = config.whole("latent_channels")
    check_shape(header, ("decoder.conv_in.weight",), (config.wholes("block_out_channels")[-1], channels))
    return _findings(config, header, family, "base", latent_factor(config, family))


def tiny_from_folder(config: Config, reads: Reads) -> Findings:
    """Read a folder of an `AutoencoderTiny`."""
    family = FAMILIES["sd15"]
    config.only(TINY_VAE_KEYS)
    _refuse_others(config, family)
    header = read_weights(config.path.parent, DIFFUSERS_WEIGHTS, reads)
    channels, widths = config.whole("latent_channels"), config.wholes("decoder_block_out_channels")
    check_shape(header, ("decoder.layers.0.weight",), (widths[0], channels))
    factor = config.whole("upsampling_scaling_factor", 2) ** (len(widths) - 1)
    check_factor(config.path, factor, family)
    return _findings(config, header, family, "tiny", factor)


def from_file(header: Header, reads: Reads) -> Findings | None:
    """Read a VAE that is one file; None for what is none."""
    start = _PREFIX if any(name.startswith(_PREFIX) for name in header.tensors) else ""
    if not all(f"{start}{layer}" in header.tensors for layer in _LAYERS):
        return None
    family = FAMILIES["sd15"]
    latents = latent_facts(header, start)
    if latents.channels != family.latent_channels:
        raise Unrecognised(
            header.path, f"is a VAE of {latents.channels} latent channels; {family.title} has {family.latent_channels}"
        )
    check_factor(header.path, latents.factor, family)
    _refuse_by_name(header.path)
    config = _config_beside(header, start, reads)
    if config is None and dimension(header, f"{start}decoder.conv_in.weight", 0) != _ORDINARY:
        raise ConfigInvalid(
            header.path,
            "is a VAE of another size than Stable Diffusion 1.x's; its configuration must lie beside it as"
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


def _findings(config: Config, header: Header, family: FamilyFacts, variant: str, factor: int) -> Findings:
    return Findings(
        kind=Kind.VAE,
        family=family.name,
        weights={DIFFUSERS_WEIGHTS: header},
        components=(component("vae", header.tensors.values()),),
        others={"config.json": config.path},
        variant=variant,
        latent_factor=factor,
        latent_channels=config.whole("latent_channels"),
    )


def _refuse_others(config: Config, family: FamilyFacts) -> None:
    channels = config.whole("latent_channels", 4)
    if channels != family.latent_channels:
        raise Unrecognised(
            config.path, f"is a VAE of {channels} latent channels; {family.title} has {family.latent_channels}"
        )
    if config.values.get("scaling_factor") == _SDXL_SCALING:
        raise Unrecognised(config.path, "is a VAE of SDXL by its scaling factor, which is not supported yet")
    _refuse_by_name(config.path.parent)


def _refuse_by_name(place: Path) -> None:
    # Nothing in the tensors tells SDXL's from the others, and their latents mean other colours.
    if "sdxl" in place.name.casefold():
        raise Unrecognised(place, "is a VAE of SDXL by its name, which is not supported yet")


def _config_beside(header: Header, start: str, reads: Reads) -> Config | None:
    """Return the configuration beside a file, raising `WeightsMismatch` unless it describes it."""
    path = next(
        (each for name in ("vae/config.json", "config.json") if (each := config_folder(header.path) / name).is_file()),
        None,
    )
    if path is None:
        return None
    config = read_config(path, reads).of_class("AutoencoderKL").only(VAE_KEYS)
    _refuse_others(config, FAMILIES["sd15"])
    rows = dimension(header, f"{start}decoder.conv_in.weight", 0)
    if config.wholes("block_out_channels")[-1] != rows:
        raise WeightsMismatch(header.path, f"has {rows} channels in its widest layer, which {path.name} does not say")
    return config
