"""The configurations that the families were published with, in diffusers' terms; pure.

A file in an original layout says nothing of them: its tensors give sizes, and not how many heads attend or how channels are grouped.
What is left out is the default of the class.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

#: Settings of one component.
Settings = Mapping[str, Any]

#: What tells the larger FLUX.2 klein.
FLUX2_9B_WIDTH: Final = 4096


def _settings(*before: Settings, **settings: Any) -> Settings:
    return MappingProxyType({name: value for part in (*before, settings) for name, value in part.items()})


_UNET: Final = _settings(_class_name="UNet2DConditionModel", in_channels=4, out_channels=4, layers_per_block=2)
_SD15_UNET: Final = _settings(
    _UNET,
    block_out_channels=[320, 640, 1280, 1280],
    cross_attention_dim=768,
    attention_head_dim=8,
    sample_size=64,
)
_SD2_UNET: Final = _settings(
    _SD15_UNET,
    cross_attention_dim=1024,
    attention_head_dim=[5, 10, 20, 20],
    use_linear_projection=True,
)
_SDXL_UNET: Final = _settings(
    _UNET,
    block_out_channels=[320, 640, 1280],
    down_block_types=["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    up_block_types=["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
    transformer_layers_per_block=[1, 2, 10],
    attention_head_dim=[5, 10, 20],
    cross_attention_dim=2048,
    use_linear_projection=True,
    addition_embed_type="text_time",
    addition_time_embed_dim=256,
    projection_class_embeddings_input_dim=2816,
    sample_size=128,
)
_REFINER_UNET: Final = _settings(
    _SDXL_UNET,
    block_out_channels=[384, 768, 1536, 1536],
    down_block_types=["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
    up_block_types=["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
    transformer_layers_per_block=4,
    attention_head_dim=[6, 12, 24, 24],
    cross_attention_dim=1280,
    projection_class_embeddings_input_dim=2560,
)
_SD3_TRANSFORMER: Final = _settings(
    _class_name="SD3Transformer2DModel",
    sample_size=128,
    patch_size=2,
    in_channels=16,
    out_channels=16,
    num_layers=24,
    attention_head_dim=64,
    num_attention_heads=24,
    joint_attention_dim=4096,
    caption_projection_dim=1536,
    pooled_projection_dim=2048,
    pos_embed_max_size=192,
)
_SD35_MEDIUM_TRANSFORMER: Final = _settings(
    _SD3_TRANSFORMER, dual_attention_layers=list(range(13)), qk_norm="rms_norm", pos_embed_max_size=384
)
_SD35_LARGE_TRANSFORMER: Final = _settings(
    _SD3_TRANSFORMER, num_layers=38, num_attention_heads=38, caption_projection_dim=2432, qk_norm="rms_norm"
)
_FLUX_TRANSFORMER: Final = _settings(
    _class_name="FluxTransformer2DModel",
    patch_size=1,
    in_channels=64,
    out_channels=64,
    num_layers=19,
    num_single_layers=38,
    attention_head_dim=128,
    num_attention_heads=24,
    joint_attention_dim=4096,
    pooled_projection_dim=768,
    guidance_embeds=True,
    axes_dims_rope=[16, 56, 56],
)
_FLUX2_4B_TRANSFORMER: Final = _settings(
    _class_name="Flux2Transformer2DModel",
    patch_size=1,
    in_channels=128,
    num_layers=5,
    num_single_layers=20,
    attention_head_dim=128,
    num_attention_heads=24,
    joint_attention_dim=7680,
    guidance_embeds=False,
)
_FLUX2_9B_TRANSFORMER: Final = _settings(
    _FLUX2_4B_TRANSFORMER,
    num_layers=8,
    num_single_layers=24,
    num_attention_heads=FLUX2_9B_WIDTH // 128,
    joint_attention_dim=12288,
)
_FLUX2_DEV_TRANSFORMER: Final = _settings(
    _FLUX2_4B_TRANSFORMER,
    num_layers=8,
    num_single_layers=48,
    num_attention_heads=48,
    joint_attention_dim=15360,
    guidance_embeds=True,
)
_QWENIMAGE_TRANSFORMER: Final = _settings(
    _class_name="QwenImageTransformer2DModel",
    patch_size=2,
    in_channels=64,
    out_channels=16,
    num_layers=60,
    attention_head_dim=128,
    num_attention_heads=24,
    joint_attention_dim=3584,
    axes_dims_rope=[16, 56, 56],
)
_ZIMAGE_TRANSFORMER: Final = _settings(
    _class_name="ZImageTransformer2DModel",
    all_patch_size=[2],
    all_f_patch_size=[1],
    in_channels=16,
    dim=3840,
    n_layers=30,
    n_refiner_layers=2,
    n_heads=30,
    n_kv_heads=30,
    cap_feat_dim=2560,
    axes_dims=[32, 48, 48],
    axes_lens=[1024, 512, 512],
)
_VAE: Final = _settings(
    _class_name="AutoencoderKL",
    block_out_channels=[128, 256, 512, 512],
    down_block_types=["DownEncoderBlock2D"] * 4,
    up_block_types=["UpDecoderBlock2D"] * 4,
    layers_per_block=2,
    latent_channels=4,
    scaling_factor=0.18215,
    sample_size=512,
)
_SDXL_VAE: Final = _settings(_VAE, scaling_factor=0.13025, sample_size=1024, force_upcast=True)
_WIDE_VAE: Final = _settings(
    _VAE, latent_channels=16, use_quant_conv=False, use_post_quant_conv=False, sample_size=1024, force_upcast=True
)
_SD3_VAE: Final = _settings(_WIDE_VAE, scaling_factor=1.5305, shift_factor=0.0609)
_FLUX_VAE: Final = _settings(_WIDE_VAE, scaling_factor=0.3611, shift_factor=0.1159)
_CLIP: Final = _settings(
    model_type="clip_text_model",
    vocab_size=49408,
    max_position_embeddings=77,
    bos_token_id=49406,
    eos_token_id=49407,
)
_CLIP_L: Final = _settings(
    _CLIP,
    hidden_size=768,
    intermediate_size=3072,
    num_hidden_layers=12,
    num_attention_heads=12,
    projection_dim=768,
    hidden_act="quick_gelu",
    pad_token_id=49407,
)
#: The last of its 24 layers is never read, and left out.
_OPEN_CLIP_H: Final = _settings(
    _CLIP,
    hidden_size=1024,
    intermediate_size=4096,
    num_hidden_layers=23,
    num_attention_heads=16,
    projection_dim=512,
    hidden_act="gelu",
    pad_token_id=0,
)
_OPEN_CLIP_G: Final = _settings(
    _CLIP,
    hidden_size=1280,
    intermediate_size=5120,
    num_hidden_layers=32,
    num_attention_heads=20,
    projection_dim=1280,
    hidden_act="gelu",
    pad_token_id=0,
)
_T5_XXL: Final = _settings(
    model_type="t5",
    vocab_size=32128,
    d_model=4096,
    d_ff=10240,
    d_kv=64,
    num_layers=24,
    num_heads=64,
    feed_forward_proj="gated-gelu",
    is_encoder_decoder=False,
    use_cache=False,
)
_NOISE: Final = _settings(
    beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", num_train_timesteps=1000, steps_offset=1
)
_PNDM: Final = _settings(
    _NOISE, _class_name="PNDMScheduler", clip_sample=False, set_alpha_to_one=False, skip_prk_steps=True
)
_EULER: Final = _settings(_NOISE, _class_name="EulerDiscreteScheduler", timestep_spacing="leading")
_FLOW: Final = _settings(_class_name="FlowMatchEulerDiscreteScheduler", num_train_timesteps=1000, shift=3.0)
_DYNAMIC_FLOW: Final = _settings(
    _FLOW, use_dynamic_shifting=True, base_shift=0.5, max_shift=1.15, base_image_seq_len=256, max_image_seq_len=4096
)

_QWENIMAGE_FLOW: Final = _settings(_DYNAMIC_FLOW, shift=1.0, max_shift=0.9, max_image_seq_len=8192, shift_terminal=0.02)

#: What was published → the settings of each of its components. Variants of one architecture share theirs.
PUBLISHED: Final[Mapping[str, Mapping[str, Settings]]] = MappingProxyType(
    {
        "sd15": MappingProxyType({"unet": _SD15_UNET, "vae": _VAE, "text_encoder": _CLIP_L, "scheduler": _PNDM}),
        "sd2": MappingProxyType({"unet": _SD2_UNET, "vae": _VAE, "text_encoder": _OPEN_CLIP_H, "scheduler": _PNDM}),
        "sdxl": MappingProxyType(
            {
                "unet": _SDXL_UNET,
                "vae": _SDXL_VAE,
                "text_encoder": _CLIP_L,
                "text_encoder_2": _OPEN_CLIP_G,
                "scheduler": _EULER,
            }
        ),
        "sdxl-refiner": MappingProxyType(
            {"unet": _REFINER_UNET, "vae": _SDXL_VAE, "text_encoder_2": _OPEN_CLIP_G, "scheduler": _EULER}
        ),
        **{
            name: MappingProxyType(
                {
                    "transformer": transformer,
                    "vae": _SD3_VAE,
                    "text_encoder": _CLIP_L,
                    "text_encoder_2": _OPEN_CLIP_G,
                    "text_encoder_3": _T5_XXL,
                    "scheduler": _FLOW,
                }
            )
            for name, transformer in (
                ("sd3-medium", _SD3_TRANSFORMER),
                ("sd3.5-medium", _SD35_MEDIUM_TRANSFORMER),
                ("sd3.5-large", _SD35_LARGE_TRANSFORMER),
            )
        },
        "flux": MappingProxyType(
            {
                "transformer": _FLUX_TRANSFORMER,
                "vae": _FLUX_VAE,
                "text_encoder": _CLIP_L,
                "text_encoder_2": _T5_XXL,
                "scheduler": _DYNAMIC_FLOW,
            }
        ),
        # Their files hold the network alone.
        **{
            name: MappingProxyType({"transformer": transformer, "scheduler": _DYNAMIC_FLOW})
            for name, transformer in (
                ("flux2-4b", _FLUX2_4B_TRANSFORMER),
                ("flux2-9b", _FLUX2_9B_TRANSFORMER),
                ("flux2-dev", _FLUX2_DEV_TRANSFORMER),
            )
        },
        "zimage": MappingProxyType({"transformer": _ZIMAGE_TRANSFORMER, "scheduler": _settings(_FLOW, shift=6.0)}),
        "zimage-turbo": MappingProxyType({"transformer": _ZIMAGE_TRANSFORMER, "scheduler": _FLOW}),
        "qwenimage": MappingProxyType({"transformer": _QWENIMAGE_TRANSFORMER, "scheduler": _QWENIMAGE_FLOW}),
    }
)
