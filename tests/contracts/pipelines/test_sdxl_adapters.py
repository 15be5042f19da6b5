"""What is added to SDXL: LoRAs in every layout, embeddings for two text encoders, long and weighed prompts, VAEs that overflow."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from safetensors.torch import load_file, save_file

from jobs.contract import Img2ImgParameters, Txt2ImgParameters
from jobs.errors import DrawingFailed, ModelDamaged
from jobs.inputs import Inputs
from models_registry.entries import Kind, Layout, ModelEntry
from pipelines.families.base import Family
from pipelines.families.sdxl import prompt_embeddings
from pipelines.loading import load
from tests.contracts.pipelines.lora_jobs import draw, loras
from tests.lora_layouts import make, write_diffusers, write_kohya
from tests.picture_files import png
from tests.tiny.unets import build_sdxl

_DIFFUSERS: Any = diffusers


def _entry(path: Path, kind: Kind = Kind.CHECKPOINT) -> ModelEntry:
    return ModelEntry(
        name=path.stem,
        kind=kind,
        layout=Layout.DIFFUSERS if path.is_dir() else Layout.SINGLE_FILE,
        family="sdxl",
        path=path,
        fingerprint=path.name.encode().hex()[-64:].rjust(64, "0"),
        components=(),
        native_size=64,
        latent_factor=8,
        latent_channels=4,
    )


def _inputs(*entries: ModelEntry) -> Inputs:
    return Inputs({entry.ref: entry for entry in entries})


def _parameters(**changes: Any) -> Txt2ImgParameters:
    values: dict[str, Any] = {
        "model": "tiny",
        "prompt": "a red circle",
        "negative_prompt": "blue",
        "width": 64,
        "height": 64,
        "steps": 2,
        "guidance_scale": 4.0,
        "scheduler": "Euler",
        "seed": 7,
        "preview_every": 0,
    }
    return Txt2ImgParameters.model_validate(values | changes)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a tiny SDXL."""
    return build_sdxl(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def family(folder: Path) -> Iterator[Family]:
    """Return it loaded."""
    loaded = load(_entry(folder), "cpu")
    yield loaded
    assert not loaded.open_states
    loaded.close()


def _write_layouts(family: Family, folder: Path) -> list[Path]:
    pipe = family.pipe
    made = make("lora", pipe.unet, pipe.text_encoder, text_encoder_2=pipe.text_encoder_2)
    paths = [
        write_kohya(made, folder / "kohya.safetensors"),
        write_kohya(made, folder / "sgm.safetensors", original=True),
        write_diffusers(made, folder / "peft.safetensors"),
        write_diffusers(made, folder / "diffusers.safetensors", (".lora.down.weight", ".lora.up.weight")),
    ]
    names = set(load_file(paths[1]))
    for start in ("lora_unet_input_blocks_4_1_", "lora_unet_middle_block_1_", "lora_te1_", "lora_te2_"):
        assert any(name.startswith(start) for name in names)
    return paths


def test_layouts_of_loras_draw_the_same_bits(family: Family, tmp_path: Path) -> None:
    """Kohya's with diffusers' names and with the original ones, diffusers' and peft's; each part of the stack counts."""
    paths = _write_layouts(family, tmp_path)
    entries = [_entry(path, Kind.LORA) for path in paths]
    pictures = {draw(family, _parameters(loras=loras((path, 0.5))), _inputs(*entries)) for path in paths}
    assert len(pictures) == 1
    plain = draw(family, _parameters(), Inputs())
    text_alone = draw(family, _parameters(loras=loras((paths[0], 0.0, 0.5))), _inputs(*entries))
    unet_alone = draw(family, _parameters(loras=loras((paths[0], 0.5, 0.0))), _inputs(*entries))
    assert len({*pictures, plain, text_alone, unet_alone}) == 4
    assert draw(family, _parameters(), Inputs()) == plain


def test_each_text_encoder_has_its_own_part(family: Family, tmp_path: Path) -> None:
    """A LoRA of the second text encoder alone leaves the first one's features alone, and changes the pooled ones."""
    made = make("lora", None, text_encoder_2=family.pipe.text_encoder_2)
    path = write_kohya({"text_encoder_2": made["text_encoder_2"]}, tmp_path / "second.safetensors")
    asked = _parameters(loras=loras((path, 1.0)))
    width = family.pipe.text_encoder.config.hidden_size

    def embeddings(parameters: Txt2ImgParameters) -> Mapping[str, torch.Tensor]:
        with torch.no_grad():
            return family.adapters.adapt(
                parameters,
                _inputs(_entry(path, Kind.LORA)),
                lambda words: prompt_embeddings(family.pipe, "a red circle", None, words=words),
            ).embeddings

    plain, changed = embeddings(_parameters()), embeddings(asked)
    same = plain["prompt_embeds"] == changed["prompt_embeds"]
    assert same[..., :width].all()
    assert not same[..., width:].all()
    assert not torch.equal(plain["pooled_prompt_embeds"], changed["pooled_prompt_embeds"])


def test_lora_of_a_layer_that_only_another_sdxl_has_is_refused(family: Family, tmp_path: Path) -> None:
    """A third text encoder, or a depth that this one lacks, names the file and the tensor."""
    for name in ("lora_te3_encoder_layers_0_mlp_fc1", "lora_unet_middle_block_1_transformer_blocks_9_attn1_to_q"):
        path = tmp_path / "other.safetensors"
        save_file({f"{name}.lora_down.weight": torch.ones(4, 32), f"{name}.lora_up.weight": torch.ones(32, 4)}, path)
        with pytest.raises(ModelDamaged, match=rf"other\.safetensors was made for another model: {name}"):
            family.prepare(_parameters(loras=loras((path, 1.0))), 0, _inputs(_entry(path, Kind.LORA)))
        family.shelf.clear()


def _embedding(path: Path, **widths: int) -> ModelEntry:
    generator = torch.Generator().manual_seed(3)
    save_file({name: torch.randn(2, width, generator=generator) for name, width in widths.items()}, path)
    return _entry(path, Kind.EMBEDDING)


def test_embedding_is_read_by_both_text_encoders(family: Family, tmp_path: Path) -> None:
    """Vectors for either encoder stand at the word's places; the pooled features are still those of the end mark."""
    entry = _embedding(tmp_path / "dusk.safetensors", clip_l=32, clip_g=48)
    embedding = family.shelf.take(entry)

    def embed(prompt: str) -> Mapping[str, torch.Tensor]:
        with torch.no_grad():
            return prompt_embeddings(family.pipe, prompt, None, words={"dusk": embedding})

    known, named = embed("a dusk"), embed("a x")
    for name, found in known.items():
        assert not torch.equal(found, named[name]), name
    # Under causal attention the end mark of what follows sees the word as well.
    assert not torch.equal(embed("a dusk b")["pooled_prompt_embeds"], known["pooled_prompt_embeds"])
    assert draw(family, _parameters(prompt="a dusk", embeddings=["dusk"]), _inputs(entry))


@pytest.mark.parametrize("widths", [{"emb_params": 32}, {"clip_l": 32, "clip_g": 40}, {"clip_g": 48}])
def test_embedding_of_another_model_is_refused(family: Family, tmp_path: Path, widths: dict[str, int]) -> None:
    """Vectors for one encoder, or of another width, are told with the file."""
    entry = _embedding(tmp_path / "dusk.safetensors", **widths)
    family.shelf.clear()
    with pytest.raises(ModelDamaged, match=r"dusk\.safetensors was made for another model"):
        family.prepare(_parameters(prompt="a dusk", embeddings=["dusk"]), 0, _inputs(entry))
    family.shelf.clear()


def test_prompts_are_those_of_diffusers(family: Family) -> None:
    """Bit for bit up to the window; longer ones are windows side by side, pooled from the first; emphasis and skipped layers count."""
    full = "circle " * 20
    with torch.no_grad():
        for prompt in ("", "a red circle"):
            plain = family.pipe.encode_prompt(prompt, device="cpu", do_classifier_free_guidance=False)
            found = prompt_embeddings(family.pipe, prompt, None)
            assert torch.equal(found["prompt_embeds"], plain[0])
            assert torch.equal(found["pooled_prompt_embeds"], plain[2])
        long = prompt_embeddings(family.pipe, full * 8, "red")
        skipped = prompt_embeddings(family.pipe, "a red circle", None, clip_skip=2)
        weighed = prompt_embeddings(family.pipe, "a (red:1.3) circle", None)
        same = prompt_embeddings(family.pipe, "a red circle", None)
        with pytest.raises(DrawingFailed, match="clip_skip is at most 2"):
            prompt_embeddings(family.pipe, "a", None, clip_skip=3)
    windows = long["prompt_embeds"].shape[1] // 77
    assert windows > 1
    assert long["negative_prompt_embeds"].shape == long["prompt_embeds"].shape
    assert long["pooled_prompt_embeds"].shape == (1, 48)
    # SDXL never reads the last layer: 1 and 2 both mean the last but one.
    assert torch.equal(skipped["prompt_embeds"], same["prompt_embeds"])
    assert not torch.equal(weighed["prompt_embeds"], same["prompt_embeds"])
    assert torch.equal(weighed["pooled_prompt_embeds"], same["pooled_prompt_embeds"])


def test_vae_that_overflows_is_held_in_full_precision_and_left_so(folder: Path) -> None:
    """At half precision everything else is halved; img2img encodes and decodes, and nobody's VAE changes in between."""
    family = load(_entry(folder), "cpu", torch.float16)
    assert family.pipe.unet.dtype is torch.float16
    assert family.pipe.vae.dtype is torch.float32
    source = png(64, 64)
    values = {**_parameters().model_dump(), "task": "img2img", "image": "upload:" + "a" * 64, "strength": 0.9}
    del values["hires"], values["refiner"]
    asked = Img2ImgParameters.model_validate(values)
    inputs = Inputs({}, {asked.image: source})
    states = [family.prepare(asked.model_copy(update={"seed": seed}), 0, inputs) for seed in (1, 2)]
    while states[0].phase == "denoise":
        assert not family.step(states).errors
        assert family.pipe.vae.dtype is torch.float32
    pictures = family.finish(states)
    for state in states:
        state.close()
    assert family.pipe.vae.dtype is torch.float32
    assert all(picture.array.std() > 1 for picture in pictures)
    family.close()


def test_vae_that_does_not_overflow_is_halved(folder: Path, tmp_path: Path) -> None:
    """One that says so serves at half precision, by itself or as the model's own."""
    path = tmp_path / "fixed"
    vae = _DIFFUSERS.AutoencoderKL.from_pretrained(folder / "vae")
    vae.register_to_config(force_upcast=False)
    vae.save_pretrained(path)
    family = load(_entry(folder), "cpu", torch.float16)
    entry = _entry(path, Kind.VAE)
    assert family.shelf.take(entry).dtype is torch.float16
    assert draw(family, _parameters(vae="fixed"), _inputs(entry))
    family.close()
