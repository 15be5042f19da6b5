"""Which shapes the tensors of a diffusers component have by its configuration: one telling layer of each."""

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from models_registry.kinds.checkpoints import flux, flux2, qwenimage, sd3, zimage
from models_registry.kinds.parts import Configs
from models_registry.reading.configs import Config


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


def _zimage(config: Config) -> tuple[int, int]:
    return zimage.inner_width(config), 4 * config.whole("in_channels", 16)


def _flux(config: Config) -> tuple[int, int]:
    return flux.inner_width(config), config.whole("in_channels", 64)


def _flux2(config: Config) -> tuple[int, int]:
    return flux2.inner_width(config), config.whole("in_channels", 128)


def _flux2_vae(config: Config) -> tuple[int, int]:
    key = "decoder_block_out_channels" if config.values.get("decoder_block_out_channels") else "block_out_channels"
    return config.wholes(key)[-1], config.whole("latent_channels", 32)


def _qwen3(config: Config) -> tuple[int, int]:
    return config.whole("vocab_size"), config.whole("hidden_size")


def _mistral3(config: Config) -> tuple[int, int]:
    return _qwen3(flux2.text_settings(config))


def _qwenimage(config: Config) -> tuple[int, int]:
    return qwenimage.inner_width(config), config.whole("in_channels", 64)


def _qwenimage_vae(config: Config) -> tuple[int, int]:
    return config.whole("base_dim", 96) * config.wholes("dim_mult")[-1], config.whole("z_dim", 16)


def _qwen25_vl(config: Config) -> tuple[int, int]:
    text = qwenimage.text_settings(config)
    return text.whole("vocab_size", 152064), text.whole("hidden_size")


_LAYERS: Final[Mapping[str, tuple[tuple[str, ...], Callable[[Config], tuple[int, int]]]]] = MappingProxyType(
    {
        "UNet2DConditionModel": (("conv_in.weight",), _unet),
        "SD3Transformer2DModel": (("pos_embed.proj.weight",), _sd3),
        "FluxTransformer2DModel": (("x_embedder.weight",), _flux),
        "Flux2Transformer2DModel": (("x_embedder.weight",), _flux2),
        "ZImageTransformer2DModel": (("all_x_embedder.2-1.weight",), _zimage),
        "AutoencoderKL": (("decoder.conv_in.weight",), _vae),
        "AutoencoderKLFlux2": (("decoder.conv_in.weight",), _flux2_vae),
        "CLIPTextModel": ((_WORDS, f"text_model.{_WORDS}"), _clip),
        "CLIPTextModelWithProjection": ((f"text_model.{_WORDS}", _WORDS), _clip),
        "T5EncoderModel": (("shared.weight", "encoder.embed_tokens.weight"), _t5),
        "Qwen3ForCausalLM": (("model.embed_tokens.weight",), _qwen3),
        # Newer versions of its library keep what reads text and what sees pictures apart; so for Qwen2.5-VL.
        "Mistral3ForConditionalGeneration": (
            ("model.language_model.embed_tokens.weight", "language_model.model.embed_tokens.weight"),
            _mistral3,
        ),
        "QwenImageTransformer2DModel": (("img_in.weight",), _qwenimage),
        "AutoencoderKLQwenImage": (("decoder.conv_in.weight",), _qwenimage_vae),
        "Qwen2_5_VLForConditionalGeneration": (
            ("model.embed_tokens.weight", "model.language_model.embed_tokens.weight"),
            _qwen25_vl,
        ),
        "Qwen3Model": (("model.embed_tokens.weight", "embed_tokens.weight"), _qwen3),
    }
)


def expected(named: Mapping[str, str], configs: Configs) -> Iterator[Expected]:
    """Return what to hold the weights of each component against; `named` gives the classes."""
    for component, config in configs.items():
        if named[component] in _LAYERS:
            tensors, shape = _LAYERS[named[component]]
            yield Expected(component, tensors, shape(config))


class FileShape(NamedTuple):
    """Say what tells the size of a component in a file of an original layout."""

    #: Names of the telling tensor, without what the component's names begin with.
    names: tuple[str, ...]
    #: The dimensions of it that are compared …
    dimensions: tuple[int, ...]
    #: … with what its configuration says.
    telling: Callable[[Config], tuple[int, ...]]
    #: In a diffusers folder: its names, and its first dimensions.
    folder_names: tuple[str, ...]
    whole: Callable[[Config], tuple[int, int]]
    #: Ends of the names of layers that read text features, and the setting that says how wide these are.
    text_inputs: tuple[tuple[str, str], ...] = ()
    text_default: int | None = None


def _second(of: Callable[[Config], tuple[int, int]]) -> Callable[[Config], tuple[int, ...]]:
    return lambda config: of(config)[1:]


#: By class: the original's names of the first layer, which of its dimensions tell, and who reads text.
_ORIGINAL: Final[Mapping[str, tuple[tuple[str, ...], tuple[tuple[str, str], ...], int | None]]] = MappingProxyType(
    {
        "UNet2DConditionModel": (("input_blocks.0.0.weight",), (("attn2.to_k.weight", "cross_attention_dim"),), 1280),
        "SD3Transformer2DModel": (
            ("x_embedder.proj.weight",),
            (("context_embedder.weight", "joint_attention_dim"),),
            4096,
        ),
        "FluxTransformer2DModel": (("img_in.weight",), (("txt_in.weight", "joint_attention_dim"),), 4096),
        "AutoencoderKL": (("decoder.conv_in.weight",), (), None),
        "CLIPTextModel": ((f"text_model.{_WORDS}", _WORDS, "token_embedding.weight"), (), None),
        "CLIPTextModelWithProjection": ((f"text_model.{_WORDS}", _WORDS, "token_embedding.weight"), (), None),
        "T5EncoderModel": (("shared.weight", "encoder.embed_tokens.weight"), (), None),
        "Flux2Transformer2DModel": (("img_in.weight",), (("txt_in.weight", "joint_attention_dim"),), 15360),
        "AutoencoderKLFlux2": (("decoder.conv_in.weight",), (), None),
        "Qwen3ForCausalLM": (("model.embed_tokens.weight",), (), None),
        "QwenImageTransformer2DModel": (("img_in.weight",), (("txt_in.weight", "joint_attention_dim"),), 3584),
        "ZImageTransformer2DModel": (
            ("x_embedder.weight", "all_x_embedder.2-1.weight"),
            (("cap_embedder.1.weight", "cap_feat_dim"),),
            2560,
        ),
        # These lie beside files, and never in them.
        "Qwen3Model": (("model.embed_tokens.weight",), (), None),
        "Mistral3ForConditionalGeneration": (("model.embed_tokens.weight",), (), None),
        "AutoencoderKLQwenImage": (("decoder.conv_in.weight",), (), None),
        "Qwen2_5_VLForConditionalGeneration": (("model.embed_tokens.weight",), (), None),
    }
)
#: A vocabulary may have grown: only the width of its words tells.
_OF_WORDS: Final = frozenset({"CLIPTextModel", "CLIPTextModelWithProjection", "T5EncoderModel"})


def file_shape(name: str) -> FileShape:
    """Return what tells the size of a component of a class."""
    folder_names, shape = _LAYERS[name]
    names, text_inputs, default = _ORIGINAL[name]
    if name in _OF_WORDS:
        return FileShape(names, (1,), _second(shape), folder_names, shape, text_inputs, default)
    return FileShape(names, (0, 1), shape, folder_names, shape, text_inputs, default)
