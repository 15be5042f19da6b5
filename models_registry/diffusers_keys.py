"""Which keys the configurations of each class may have; pure.

A key outside of these refuses the model: whatever it would make a library do, nobody here has looked at it.
"""

from types import MappingProxyType


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

SD3_TRANSFORMER_KEYS = _DIFFUSERS_KEYS | _words(
    """
    attention_head_dim caption_projection_dim dual_attention_layers in_channels joint_attention_dim num_attention_heads
    num_layers out_channels patch_size pooled_projection_dim pos_embed_max_size qk_norm sample_size
    """
)

SD3_CONTROLNET_KEYS = SD3_TRANSFORMER_KEYS | _words(
    "extra_conditioning_channels force_zeros_for_pooled_projection pos_embed_type use_pos_embed"
)

FLUX_TRANSFORMER_KEYS = _DIFFUSERS_KEYS | _words(
    """
    attention_head_dim axes_dims_rope guidance_embeds in_channels joint_attention_dim num_attention_heads num_layers
    num_single_layers out_channels patch_size pooled_projection_dim
    """
)

FLUX_CONTROLNET_KEYS = FLUX_TRANSFORMER_KEYS | _words("conditioning_embedding_channels num_mode")

#: `pooled_projection_dim` stands in the published one, and no version of the class has read it.
QWENIMAGE_TRANSFORMER_KEYS = _DIFFUSERS_KEYS | _words(
    """
    attention_head_dim axes_dims_rope guidance_embeds in_channels joint_attention_dim num_attention_heads num_layers
    out_channels patch_size pooled_projection_dim use_additional_t_cond use_layer3d_rope zero_cond_t
    """
)

#: Published ones have been made from a transformer, and kept all of its settings.
QWENIMAGE_CONTROLNET_KEYS = QWENIMAGE_TRANSFORMER_KEYS | _words("extra_condition_channels")

QWENIMAGE_VAE_KEYS = _DIFFUSERS_KEYS | _words(
    """
    attn_scales base_dim dim_mult dropout input_channels latents_mean latents_std num_res_blocks temperal_downsample
    z_dim
    """
)

FLUX2_TRANSFORMER_KEYS = _DIFFUSERS_KEYS | _words(
    """
    attention_head_dim axes_dims_rope eps guidance_embeds in_channels joint_attention_dim mlp_ratio num_attention_heads
    num_layers num_single_layers out_channels patch_size rope_theta timestep_guidance_channels
    """
)

FLUX2_VAE_KEYS = _DIFFUSERS_KEYS | _words(
    """
    act_fn batch_norm_eps batch_norm_momentum block_out_channels decoder_block_out_channels down_block_types
    force_upcast in_channels latent_channels layers_per_block mid_block_add_attention norm_num_groups out_channels
    patch_size sample_size up_block_types use_post_quant_conv use_quant_conv
    """
)

ZIMAGE_TRANSFORMER_KEYS = _DIFFUSERS_KEYS | _words(
    """
    all_f_patch_size all_patch_size axes_dims axes_lens cap_feat_dim dim in_channels n_heads n_kv_heads n_layers
    n_refiner_layers norm_eps qk_norm rope_theta siglip_feat_dim t_scale
    """
)

#: Of every model of transformers, with the keys that older versions wrote into every configuration.
_TRANSFORMERS_KEYS = _words(
    """
    _name_or_path architectures bos_token_id chunk_size_feed_forward dtype eos_token_id gradient_checkpointing id2label
    initializer_factor is_encoder_decoder label2id model_type output_attentions output_hidden_states pad_token_id
    problem_type return_dict torch_dtype transformers_version use_return_dict vocab_size

    add_cross_attention bad_words_ids begin_suppress_tokens cross_attention_hidden_size decoder_start_token_id
    diversity_penalty do_sample early_stopping encoder_no_repeat_ngram_size exponential_decay_length_penalty
    finetuning_task forced_bos_token_id forced_eos_token_id is_decoder length_penalty max_length min_length
    no_repeat_ngram_size num_beam_groups num_beams num_return_sequences output_scores prefix pruned_heads
    remove_invalid_values repetition_penalty return_dict_in_generate sep_token_id suppress_tokens
    task_specific_params temperature tf_legacy_loss tie_encoder_decoder tie_word_embeddings tokenizer_class top_k
    top_p torchscript typical_p use_bfloat16
    """
)

CLIP_TEXT_KEYS = _TRANSFORMERS_KEYS | _words(
    """
    attention_dropout dropout hidden_act hidden_size initializer_range intermediate_size layer_norm_eps
    max_position_embeddings num_attention_heads num_hidden_layers projection_dim
    """
)

T5_KEYS = _TRANSFORMERS_KEYS | _words(
    """
    classifier_dropout d_ff d_kv d_model dense_act_fn dropout_rate feed_forward_proj is_gated_act layer_norm_epsilon
    n_positions num_decoder_layers num_heads num_layers relative_attention_max_distance relative_attention_num_buckets
    scale_decoder_outputs use_cache
    """
)

_QWEN25_TEXT_KEYS = _TRANSFORMERS_KEYS | _words(
    """
    attention_dropout hidden_act hidden_size image_token_id initializer_range intermediate_size layer_types
    max_position_embeddings max_window_layers num_attention_heads num_hidden_layers num_key_value_heads rms_norm_eps
    rope_parameters rope_scaling rope_theta sliding_window use_cache use_sliding_window video_token_id
    vision_end_token_id vision_start_token_id vision_token_id
    """
)
_QWEN25_VISION_KEYS = _TRANSFORMERS_KEYS | _words(
    """
    depth fullatt_block_indexes hidden_act hidden_size in_channels in_chans initializer_range intermediate_size
    num_heads out_hidden_size patch_size rope_parameters spatial_merge_size spatial_patch_size temporal_patch_size
    tokens_per_second window_size
    """
)
#: Older versions wrote the settings of the text beside those of the whole, too.
QWEN25_VL_KEYS = _QWEN25_TEXT_KEYS | _words("text_config vision_config")
QWEN25_VL_INNER_KEYS = MappingProxyType({"text_config": _QWEN25_TEXT_KEYS, "vision_config": _QWEN25_VISION_KEYS})

QWEN3_KEYS = _TRANSFORMERS_KEYS | _words(
    """
    attention_bias attention_dropout head_dim hidden_act hidden_size initializer_range intermediate_size layer_types
    max_position_embeddings max_window_layers num_attention_heads num_hidden_layers num_key_value_heads rms_norm_eps
    rope_parameters rope_scaling rope_theta sliding_window use_cache use_sliding_window
    """
)

_MISTRAL_TEXT_KEYS = _TRANSFORMERS_KEYS | _words(
    """
    attention_dropout head_dim hidden_act hidden_size initializer_range intermediate_size layer_types
    max_position_embeddings num_attention_heads num_hidden_layers num_key_value_heads rms_norm_eps rope_parameters
    rope_scaling rope_theta sliding_window use_cache
    """
)
_PIXTRAL_VISION_KEYS = _TRANSFORMERS_KEYS | _words(
    """
    attention_dropout head_dim hidden_act hidden_size image_size initializer_range intermediate_size
    num_attention_heads num_channels num_hidden_layers patch_size rope_parameters rope_scaling rope_theta
    """
)
MISTRAL3_KEYS = _TRANSFORMERS_KEYS | _words(
    """
    image_token_id image_token_index multimodal_projector_bias projector_hidden_act spatial_merge_size text_config
    vision_config vision_feature_layer
    """
)
MISTRAL3_INNER_KEYS = MappingProxyType({"text_config": _MISTRAL_TEXT_KEYS, "vision_config": _PIXTRAL_VISION_KEYS})

#: Of every scheduler: a folder's scheduler is exchanged for others, which take over what they know.
SCHEDULER_KEYS = _DIFFUSERS_KEYS | _words(
    """
    algorithm_type base_image_seq_len base_shift beta_end beta_schedule beta_start clip_sample clip_sample_range
    corrector_order disable_corrector dynamic_thresholding_ratio euler_at_final final_sigmas_type flow_shift
    interpolation_type invert_sigmas lambda_min_clipped lower_order_final max_image_seq_len max_shift noise_sampler_seed
    num_train_timesteps original_inference_steps predict_x0 prediction_type predictor_order rescale_betas_zero_snr
    sample_max_value set_alpha_to_one shift shift_terminal sigma_max sigma_min skip_prk_steps solver_order solver_p
    solver_type steps_offset stochastic_sampling tau_func thresholding time_shift_type timestep_scaling timestep_spacing
    timestep_type trained_betas use_beta_sigmas use_dynamic_shifting use_exponential_sigmas use_flow_sigmas
    use_karras_sigmas use_lu_lambdas variance_type
    """
)

#: A `chat_template` is a program, which nobody here runs: see `models_registry.vocabularies.chats.CHATS`.
TOKENIZER_CONFIG_KEYS = _words(
    """
    add_bos_token add_eos_token add_prefix_space added_tokens_decoder additional_special_tokens backend bos_token
    chat_template clean_up_tokenization_spaces do_lower_case eos_token errors extra_ids extra_special_tokens is_local legacy
    local_files_only max_length model_input_names model_max_length model_specific_special_tokens name_or_path
    pad_to_multiple_of pad_token pad_token_type_id padding_side processor_class sp_model_kwargs special_tokens_map_file
    split_special_tokens stride tokenizer_class truncation_side truncation_strategy unk_token use_default_system_prompt
    """
)
