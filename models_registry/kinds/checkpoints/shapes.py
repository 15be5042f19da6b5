"""Which shapes the tensors of a diffusers component have by its configuration: one telling layer of each."""

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from models_registry.configs import Config
from models_registry.kinds.checkpoints import flux, sd3
from models_registry.kinds.parts import Configs


class Expected(NamedTuple):
    """Say which shape the first dimensions of a tensor must have."""

    component: str
    #: Names that the tensor may have.
    tensors: tuple[str, ...]
    shape: tuple[int, int]


_WORDS: Final = "embeddings.token_embedding.weight"


def _unet(config: Config) -> tuple[int, int]:
    return config.wholes("block_out_channels")[0], config.whole("in_channels", 4)


def _vae(config: Config) -> tuple[int, int]:
    return config.wholes("block_out_channels")[-1], config.whole("latent_channels", 4)


def _clip(config: Config) -> tuple[int, int]:
    return config.whole("vocab_size", 49408), config.whole("hidden_size")


def _t5(config: Config) -> tuple[int, int]:
    return config.whole("vocab_size", 32128), config.whole("d_model")


def _sd3(config: Config) -> tuple[int, int]:
    return sd3.inner_width(config), config.whole("in_channels", 16)


def _flux(config: Config) -> tuple[int, int]:
    return flux.inner_width(config), config.whole("in_channels", 64)


_LAYERS: Final[Mapping[str, tuple[tuple[str, ...], Callable[[Config], tuple[int, int]]]]] = MappingProxyType(
    {
        "UNet2DConditionModel": (("conv_in.weight",), _unet),
        "SD3Transformer2DModel": (("pos_embed.proj.weight",), _sd3),
        "FluxTransformer2DModel": (("x_embedder.weight",), _flux),
        "AutoencoderKL": (("decoder.conv_in.weight",), _vae),
        "CLIPTextModel": ((_WORDS, f"text_model.{_WORDS}"), _clip),
        "CLIPTextModelWithProjection": ((f"text_model.{_WORDS}", _WORDS), _clip),
        "T5EncoderModel": (("shared.weight", "encoder.embed_tokens.weight"), _t5),
    }
)


def expected(named: Mapping[str, str], configs: Configs) -> Iterator[Expected]:
    """Return what to hold the weights of each component against; `named` gives the classes."""
    for component, config in configs.items():
        if named[component] in _LAYERS:
            tensors, shape = _LAYERS[named[component]]
            yield Expected(component, tensors, shape(config))
