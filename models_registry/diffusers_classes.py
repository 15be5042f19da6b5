"""Which classes a diffusers folder may name, and which keys their configurations may have; pure.

A configuration decides what code a library runs. So nothing that is not listed here reaches a library, however harmless it looks.
"""

from collections.abc import Mapping
from types import MappingProxyType

#: Pipelines that exist but are not drawn yet, with the name people know them by.
LATER_PIPELINES: Mapping[str, str] = MappingProxyType(
    {
        "StableDiffusionImg2ImgPipeline": "Stable Diffusion 1.x, image to image",
        "StableDiffusionXLPipeline": "SDXL",
        "StableDiffusionXLImg2ImgPipeline": "SDXL, image to image",
        "StableDiffusionXLInpaintPipeline": "SDXL inpainting",
        "StableDiffusion3Pipeline": "Stable Diffusion 3",
        "FluxPipeline": "FLUX.1",
        "FluxFillPipeline": "FLUX.1 Fill",
        "FluxControlPipeline": "FLUX.1 Control",
    }
)

#: Component → the (library, class) pairs it may have.
SD_COMPONENTS: Mapping[str, frozenset[tuple[str, str]]] = MappingProxyType(
    {
        "unet": frozenset({("diffusers", "UNet2DConditionModel")}),
        "vae": frozenset({("diffusers", "AutoencoderKL")}),
        "text_encoder": frozenset({("transformers", "CLIPTextModel")}),
        "tokenizer": frozenset({("transformers", "CLIPTokenizer"), ("transformers", "CLIPTokenizerFast")}),
        "scheduler": frozenset(
            ("diffusers", name)
            for name in (
                "DDIMScheduler",
                "DDPMScheduler",
                "DEISMultistepScheduler",
                "DPMSolverMultistepScheduler",
                "DPMSolverSDEScheduler",
                "DPMSolverSinglestepScheduler",
                "EulerAncestralDiscreteScheduler",
                "EulerDiscreteScheduler",
                "HeunDiscreteScheduler",
                "KDPM2AncestralDiscreteScheduler",
                "KDPM2DiscreteScheduler",
                "LCMScheduler",
                "LMSDiscreteScheduler",
                "PNDMScheduler",
                "SASolverScheduler",
                "TCDScheduler",
                "UniPCMultistepScheduler",
            )
        ),
        # Known, never loaded.
        "safety_checker": frozenset({("stable_diffusion", "StableDiffusionSafetyChecker")}),
        "feature_extractor": frozenset(
            {("transformers", "CLIPFeatureExtractor"), ("transformers", "CLIPImageProcessor")}
        ),
        "image_encoder": frozenset(),
    }
)

#: Components that hold weights → the one file they are loaded from.
SD_WEIGHTS: Mapping[str, str] = MappingProxyType(
    {
        "unet": "diffusion_pytorch_model.safetensors",
        "vae": "diffusion_pytorch_model.safetensors",
        "text_encoder": "model.safetensors",
    }
)

TOKENIZER_FILES = (
    "tokenizer.json",
    "vocab.json",
    "merges.txt",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
)


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_DIFFUSERS_KEYS = frozenset({"_class_name", "_diffusers_version", "_name_or_path", "_use_default_values"})

UNET_KEYS = _DIFFUSERS_KEYS | _words(
    """
    act_fn addition_embed_type addition_embed_type_num_heads addition_time_embed_dim attention_head_dim attention_type
    block_out_channels center_input_sample class_embed_type class_embeddings_concat conv_in_kernel conv_out_kernel
    cross_attention_dim cross_attention_norm down_block_types downsample_padding dropout dual_cross_attention
    encoder_hid_dim encoder_hid_dim_type flip_sin_to_cos freq_shift in_channels layers_per_block
    mid_block_only_cross_attention mid_block_scale_factor mid_block_type norm_eps norm_num_groups num_attention_heads
    num_class_embeds only_cross_attention out_channels projection_class_embeddings_input_dim resnet_out_scale_factor
    resnet_skip_time_act resnet_time_scale_shift reverse_transformer_layers_per_block sample_size time_cond_proj_dim
    time_embedding_act_fn time_embedding_dim time_embedding_type timestep_post_act transformer_layers_per_block
    up_block_types upcast_attention use_linear_projection
    """
)

VAE_KEYS = _DIFFUSERS_KEYS | _words(
    """
    act_fn block_out_channels down_block_types force_upcast in_channels latent_channels latents_mean latents_std
    layers_per_block mid_block_add_attention norm_num_groups out_channels sample_size scaling_factor shift_factor
    up_block_types use_post_quant_conv use_quant_conv
    """
)

TINY_VAE_KEYS = _DIFFUSERS_KEYS | _words(
    """
    act_fn block_out_channels decoder_block_out_channels encoder_block_out_channels force_upcast in_channels latent_channels
    latent_magnitude latent_shift num_decoder_blocks num_encoder_blocks out_channels scaling_factor shift_factor
    upsample_fn upsampling_scaling_factor
    """
)

CONTROLNET_KEYS = _DIFFUSERS_KEYS | _words(
    """
    act_fn addition_embed_type addition_embed_type_num_heads addition_time_embed_dim attention_head_dim
    block_out_channels class_embed_type conditioning_channels conditioning_embedding_out_channels
    controlnet_conditioning_channel_order cross_attention_dim down_block_types downsample_padding encoder_hid_dim
    encoder_hid_dim_type flip_sin_to_cos freq_shift global_pool_conditions in_channels layers_per_block
    mid_block_scale_factor mid_block_type norm_eps norm_num_groups num_attention_heads num_class_embeds
    only_cross_attention projection_class_embeddings_input_dim resnet_time_scale_shift transformer_layers_per_block
    upcast_attention use_linear_projection
    """
)

#: With the keys that older versions of transformers wrote into every configuration.
CLIP_TEXT_KEYS = _words(
    """
    _name_or_path architectures attention_dropout bos_token_id chunk_size_feed_forward dropout dtype eos_token_id
    gradient_checkpointing hidden_act hidden_size id2label initializer_factor initializer_range intermediate_size
    is_encoder_decoder label2id layer_norm_eps max_position_embeddings model_type num_attention_heads
    num_hidden_layers output_attentions output_hidden_states pad_token_id problem_type projection_dim return_dict
    torch_dtype transformers_version use_return_dict vocab_size

    add_cross_attention bad_words_ids begin_suppress_tokens cross_attention_hidden_size decoder_start_token_id
    diversity_penalty do_sample early_stopping encoder_no_repeat_ngram_size exponential_decay_length_penalty
    finetuning_task forced_bos_token_id forced_eos_token_id is_decoder length_penalty max_length min_length
    no_repeat_ngram_size num_beam_groups num_beams num_return_sequences output_scores prefix pruned_heads
    remove_invalid_values repetition_penalty return_dict_in_generate sep_token_id suppress_tokens
    task_specific_params temperature tf_legacy_loss tie_encoder_decoder tie_word_embeddings tokenizer_class top_k
    top_p torchscript typical_p use_bfloat16
    """
)

#: Of every scheduler above: a folder's scheduler is exchanged for others, which take over what they know.
SCHEDULER_KEYS = _DIFFUSERS_KEYS | _words(
    """
    algorithm_type beta_end beta_schedule beta_start clip_sample clip_sample_range corrector_order disable_corrector
    dynamic_thresholding_ratio euler_at_final final_sigmas_type flow_shift interpolation_type lambda_min_clipped
    lower_order_final noise_sampler_seed num_train_timesteps original_inference_steps
    predict_x0 prediction_type predictor_order rescale_betas_zero_snr sample_max_value set_alpha_to_one shift_terminal sigma_max
    sigma_min skip_prk_steps solver_order solver_p solver_type steps_offset tau_func thresholding time_shift_type
    timestep_scaling timestep_spacing timestep_type trained_betas use_beta_sigmas use_dynamic_shifting
    use_exponential_sigmas use_flow_sigmas use_karras_sigmas use_lu_lambdas variance_type
    """
)

TOKENIZER_CONFIG_KEYS = _words(
    """
    add_bos_token add_eos_token add_prefix_space added_tokens_decoder additional_special_tokens backend bos_token
    clean_up_tokenization_spaces do_lower_case eos_token errors extra_special_tokens is_local local_files_only
    max_length model_input_names model_max_length model_specific_special_tokens name_or_path pad_to_multiple_of pad_token
    pad_token_type_id padding_side processor_class special_tokens_map_file split_special_tokens stride tokenizer_class
    truncation_side truncation_strategy unk_token use_default_system_prompt
    """
)
