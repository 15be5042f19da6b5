"""Whatever names and shapes a file has, it is a model or is refused: a scan never fails by a file."""

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models_registry.detection import MAX_FACT, detect
from models_registry.reading.bounded_files import Reads
from models_registry.refusals import ModelRefused
from tests.tensor_files import write_tensors

#: Names that the recognisers look for.
NAMES = (
    "model.diffusion_model.input_blocks.0.0.weight",
    "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight",
    "model.diffusion_model.out.2.weight",
    "first_stage_model.encoder.down.0.block.0.conv1.weight",
    "first_stage_model.decoder.conv_in.weight",
    "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight",
    "encoder.conv_in.weight",
    "encoder.conv_out.weight",
    "encoder.down.0.block.0.conv1.weight",
    "decoder.conv_in.weight",
    "decoder.conv_out.weight",
    "unet.mid_block.attn2.to_k.lora_A.weight",
    "unet.mid_block.attn2.to_k.lora_B.weight",
    "lora_unet_mid_block_attn2_to_k.lokr_w1",
    "lora_unet_mid_block_attn2_to_k.lokr_w2",
    "lora_unet_mid_block_attn2_to_k.alpha",
    "lora_te_text_model_encoder_layers_0_mlp_fc1.hada_w1_a",
    "lora_te_text_model_encoder_layers_0_mlp_fc1.hada_w1_b",
    "lora_te_text_model_encoder_layers_0_mlp_fc1.hada_w2_a",
    "lora_te_text_model_encoder_layers_0_mlp_fc1.hada_w2_b",
    "emb_params",
    "<word>",
    "model.0.weight",
    "model.1.sub.0.RDB1.conv1.0.weight",
    "model.3.weight",
    "model.5.weight",
    "conv_first.weight",
    "conv_first.1.weight",
    "body.0.rdb1.conv1.weight",
    "conv_last.weight",
    "conv_up1.weight",
    "body.0.weight",
    "body.1.weight",
    "body.2.weight",
    "conv_1.sk.weight",
    "block_1.c1_r.sk.weight",
    "upsampler.0.weight",
    "before_RG.1.weight",
    "layers.0.blocks.0.attn.qkv.weight",
    "conv_before_upsample.0.weight",
    "upsample.0.weight",
    "cond_stage_model.model.token_embedding.weight",
    "conditioner.embedders.0.transformer.text_model.embeddings.token_embedding.weight",
    "conditioner.embedders.1.model.token_embedding.weight",
    "conditioner.embedders.0.model.token_embedding.weight",
    "model.diffusion_model.label_emb.0.0.weight",
    "model.diffusion_model.joint_blocks.0.x_block.attn.ln_q.weight",
    "model.diffusion_model.x_embedder.proj.weight",
    "model.diffusion_model.context_embedder.weight",
    "text_encoders.clip_l.transformer.text_model.embeddings.token_embedding.weight",
    "text_encoders.clip_g.transformer.text_model.embeddings.token_embedding.weight",
    "text_encoders.t5xxl.transformer.shared.weight",
    "first_stage_model.encoder.down.0.block.0.conv1.weight",
    "first_stage_model.decoder.conv_in.weight",
    "double_blocks.0.img_attn.qkv.weight",
    "img_in.weight",
    "txt_in.weight",
    "guidance_in.in_layer.weight",
    "vae.encoder.down.0.block.0.conv1.weight",
    "vae.decoder.conv_in.weight",
    "lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight",
    "lora_unet_double_blocks_0_img_attn_qkv.lora_up.weight",
    "lora_unet_single_blocks_0_linear1.lokr_w1",
    "lora_unet_single_blocks_0_linear1.lokr_w2",
    "transformer.transformer_blocks.0.attn.to_q.lora_A.weight",
    "transformer.transformer_blocks.0.attn.to_q.lora_B.weight",
    "lora_te2_text_model_encoder_layers_0_mlp_fc1.hada_w1_a",
    "lora_te2_text_model_encoder_layers_0_mlp_fc1.hada_w1_b",
    "lora_te2_text_model_encoder_layers_0_mlp_fc1.hada_w2_a",
    "lora_te2_text_model_encoder_layers_0_mlp_fc1.hada_w2_b",
    "clip_l",
    "clip_g",
)
#: So that whole models come about, and not only pieces of several.
SLICES = ((0, 6), (6, 11), (11, 13), (13, 16), (16, 20), (22, 26), (26, 31), (31, 34), (34, 37), (37, 41), (0, 5),
          (41, 46), (46, 54), (54, 60), (60, 62), (62, 64), (64, 66), (66, 70), (70, 72))  # fmt: skip
GROUPS = tuple((*NAMES[start:end], "conv_first.weight") for start, end in SLICES)

shapes = st.lists(st.sampled_from([1, 2, 3, 4, 9, 12, 16, 64, 768, 1024]), max_size=4).map(tuple)
some = st.dictionaries(st.sampled_from(NAMES), shapes, min_size=1, max_size=5)
whole = st.sampled_from(GROUPS).flatmap(lambda names: st.fixed_dictionaries(dict.fromkeys(names, shapes)))


@given(st.one_of(some, whole, st.builds(lambda one, other: one | other, some, whole)))
def test_any_file_is_a_model_or_is_refused(
    tmp_path_factory: pytest.TempPathFactory, tensors: dict[str, tuple[int, ...]]
) -> None:
    """Known names with any shapes make a recogniser fail in no other way than by refusing."""
    path: Path = tmp_path_factory.getbasetemp() / "any tensors.safetensors"
    write_tensors(path, tensors)
    with contextlib.suppress(ModelRefused):
        assert detect(path, Reads()).bytes > 0


def test_sizes_beyond_all_models_are_refused(tmp_path: Path) -> None:
    """A figure that the database could not hold is refused before it gets there."""
    path = write_tensors(tmp_path / "wide.safetensors", {"emb_params": (1, MAX_FACT + 1)})
    with pytest.raises(ModelRefused) as caught:
        detect(path, Reads())
    assert caught.value.code == "unrecognised"
    assert "text width" in caught.value.reason
