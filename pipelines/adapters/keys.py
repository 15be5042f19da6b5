"""How the tensors of LoRA files are named: which layer of which component, and which part of what is added to it.

Layers are told by their module path with underscores for dots, as kohya writes it, because every layout can be brought to that. Known are
diffusers' layout in its three ages, peft's with its own prefix or a component's, kohya's, that of the original code of transformers, and
LyCORIS' names for LoCon, LoHa and LoKr. It does not look at the tensors.
"""

from typing import Final, Literal, NamedTuple

from models_registry.lora_parts import read_part

Component = Literal["unet", "transformer", "text_encoder", "text_encoder_2", "text_encoder_3"]
#: The text encoders, in the order that model_index.json names them.
TEXT_COMPONENTS: tuple[Component, ...] = ("text_encoder", "text_encoder_2", "text_encoder_3")

#: Blocks of transformers and what lies around them, by their names in diffusers and in the original code.
_BLOCKS: Final = (
    *("transformer_blocks", "single_transformer_blocks", "double_blocks", "single_blocks", "joint_blocks"),
    *("layers", "noise_refiner", "context_refiner"),
)
_AROUND: Final = (
    *("img_in", "txt_in", "time_in", "vector_in", "guidance_in", "final_layer"),
    *(
        "x_embedder",
        "t_embedder",
        "y_embedder",
        "context_embedder",
        "pos_embed",
        "time_text_embed",
        "time_guidance_embed",
        "double_stream_modulation_img",
        "double_stream_modulation_txt",
        "single_stream_modulation",
        "norm_out",
        "proj_out",
    ),
    *("all_x_embedder", "all_final_layer", "cap_embedder"),
)
#: Beginning of a tensor's name -> component, and how much of it is no part of the layer's; the last ones are files of a denoiser alone.
_COMPONENTS: Final[tuple[tuple[str, Component, str], ...]] = (
    # kohya calls every denoiser a UNet; no UNet has layers of these names.
    *((f"lora_unet_{block}", "transformer", "lora_unet_") for block in (*_BLOCKS, *_AROUND)),
    ("lora_unet_", "unet", "lora_unet_"),
    ("lora_transformer_", "transformer", "lora_transformer_"),
    ("lora_te_", "text_encoder", "lora_te_"),
    # Where a model has several, kohya counts them from 1.
    ("lora_te1_", "text_encoder", "lora_te1_"),
    ("lora_te2_", "text_encoder_2", "lora_te2_"),
    ("lora_te3_", "text_encoder_3", "lora_te3_"),
    ("unet.", "unet", "unet."),
    ("transformer.", "transformer", "transformer."),
    ("text_encoder.", "text_encoder", "text_encoder."),
    ("text_encoder_2.", "text_encoder_2", "text_encoder_2."),
    ("text_encoder_3.", "text_encoder_3", "text_encoder_3."),
    # As ComfyUI and the trainers of FLUX.1 write it.
    ("model.diffusion_model.", "transformer", "model.diffusion_model."),
    ("diffusion_model.", "transformer", "diffusion_model."),
    ("down_blocks.", "unet", ""),
    ("mid_block.", "unet", ""),
    ("up_blocks.", "unet", ""),
    *((f"{layer}.", "unet", "") for layer in ("conv_in", "conv_out", "time_embedding", "add_embedding")),
    *((f"{block}.", "transformer", "") for block in (*_BLOCKS, *_AROUND)),
)
#: What peft puts before all of them when it saves by itself.
_WRAPPED: Final = "base_model.model."


class Key(NamedTuple):
    """Say what one tensor belongs to."""

    component: Component
    #: The layer's module path with underscores for dots.
    layer: str
    #: `down`, `up`, `alpha`, `hada_w1_a` …
    role: str


def parse_key(name: str) -> Key | None:
    """Return what a tensor's name says; None when it says nothing known."""
    read = read_part(name.removeprefix(_WRAPPED))
    if read is None:
        return None
    for start, component, prefix in _COMPONENTS:
        # With its dot, which ends the name of a layer that lies in no block.
        if f"{read.layer}.".startswith(start):
            return Key(component, layer_name(component, _plain(read.layer[len(prefix) :])), read.part)
    return None


def layer_name(component: Component, path: str) -> str:
    """Return how a module path is told here: underscores for dots, and without the outermost module of old text encoders."""
    name = path.replace(".", "_")
    return name.removeprefix("text_model_") if component in TEXT_COMPONENTS else name


def _plain(path: str) -> str:
    """Take the attention processors of diffusers' first layout out of a path: `attn1.processor.to_out` is `attn1.to_out.0`."""
    if ".processor." not in path:
        return path
    path = path.replace(".processor.", ".")
    return f"{path}.0" if path.endswith(".to_out") else path
