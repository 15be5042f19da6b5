"""What does not fit a family is refused over HTTP at submit; what a model takes is told to clients."""

from pathlib import Path
from typing import Any

import pytest

from models_registry.scanning.scan import scan
from tests.tensor_files import Shapes, write_tensors
from tests.tiny import transformers, unets

TEXT = {"task": "txt2img", "prompt": "a red circle"}


def pair(layer: str, inputs: int, outputs: int) -> Shapes:
    """Return the tensors of one linear layer of a LoRA."""
    return {f"{layer}.lora_A.weight": (4, inputs), f"{layer}.lora_B.weight": (outputs, 4)}


LORAS: dict[str, Shapes] = {
    "for-sd15": pair("unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k", 768, 320),
    "for-sdxl": pair("unet.down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k", 2048, 640),
    "for-tiny-sdxl": pair("unet.down_blocks.2.attentions.0.transformer_blocks.1.attn2.to_k", 80, 32),
    "for-flux": pair("transformer.single_transformer_blocks.0.attn.to_q", 3072, 3072),
    "for-tiny-flux": pair("transformer.single_transformer_blocks.0.attn.to_q", 32, 32),
    "for-sd3": pair("diffusion_model.joint_blocks.0.x_block.attn.qkv", 1536, 4608),
}


@pytest.fixture
def scanned(world: Any, tmp_path: Path) -> Any:
    """Register, as a scan finds them, tiny checkpoints of three families and LoRAs for tiny and for published ones."""
    unets.build_sdxl(tmp_path / "xl")
    transformers.build_flux_dev(tmp_path / "flux")
    transformers.build_sd3_medium(tmp_path / "sd3")
    for name, shapes in LORAS.items():
        write_tensors(tmp_path / "Lora" / f"{name}.safetensors", shapes)
    assert scan(world.connection, [tmp_path]).refused == ()
    return world


#: LoRA, model → words of the refusal; none where it fits.
WANTED: dict[tuple[str, str], tuple[str, ...]] = {
    ("for-sd15", "xl"): ("a LoRA for Stable Diffusion 1.x", "xl is SDXL"),
    ("for-sdxl", "xl"): ("text features of width 2048", "xl has 80"),
    ("for-tiny-sdxl", "xl"): (),
    ("for-tiny-sdxl", "flux"): ("a LoRA for SDXL", "flux is FLUX.1"),
    ("for-flux", "flux"): ("a network of width 3072", "flux has 32"),
    ("for-tiny-flux", "flux"): (),
    ("for-tiny-flux", "sd3"): ("a LoRA for FLUX.1", "sd3 is Stable Diffusion 3"),
    ("for-sd3", "sd3"): ("a network of width 1536", "sd3 has 32"),
    ("for-sd3", "flux"): ("a LoRA for Stable Diffusion 3", "flux is FLUX.1"),
}


def test_loras_of_the_wrong_base_are_refused_at_submit(scanned: Any, live: Any) -> None:
    """The wrong family, and the wrong size of the right one, are refused with field and reason, in the list and in the prompt."""
    with live.client(scanned.key()) as client:
        for (lora, model), words in WANTED.items():
            sent = client.post("/v1/jobs", json=TEXT | {"model": model, "loras": [{"name": lora}]})
            if not words:
                assert sent.status_code == 202, sent.text
                continue
            assert sent.status_code == 422, sent.text
            problem = sent.json()
            assert (problem["code"], problem["field"]) == ("family_mismatch", "loras.0.name")
            assert all(word in problem["detail"] for word in words), problem["detail"]
            tagged = client.post("/v1/jobs", json=TEXT | {"model": model, "prompt": f"a circle <lora:{lora}:1>"})
            assert (tagged.status_code, tagged.json()["field"]) == (422, "prompt")


def test_wrong_combinations_are_refused_with_what_would_do(scanned: Any, live: Any) -> None:
    """Reason and nearest alternative come over HTTP; other programs' doors draw what they can of the same request."""
    with live.client(scanned.key()) as client:
        for fields, code, field, words in (
            ({"model": "flux", "negative_prompt": "blur"}, "option_unsupported", "negative_prompt", "use the model"),
            ({"model": "flux", "clip_skip": 2}, "option_unsupported", "clip_skip", "leave clip_skip out"),
            ({"model": "sd3", "scheduler": "Euler a"}, "scheduler_unsupported", "scheduler", "it can with: Euler"),
            ({"model": "flux", "width": 72}, "size_unsupported", "width", "multiple of 16"),
            ({"model": "xl", "refiner": {"model": "flux"}}, "family_mismatch", "refiner.model", "xl is SDXL"),
            ({"model": "flux", "refiner": {"model": "xl"}}, "option_unsupported", "refiner", "SDXL can be refined"),
        ):
            sent = client.post("/v1/jobs", json=TEXT | fields)
            assert sent.status_code == 422, sent.text
            problem = sent.json()
            assert (problem["code"], problem["field"]) == (code, field)
            assert words in problem["detail"]


def test_a_model_tells_what_it_takes(scanned: Any, live: Any) -> None:
    """Clients learn of a model which fields say something, and which sizes it draws well."""
    with live.client(scanned.key()) as client:
        items = {item["name"]: item for item in client.get("/v1/models").json()["items"]}
    flux, xl = items["flux"], items["xl"]
    assert (flux["family"], flux["variant"], flux["variant_title"], flux["family_title"]) == (
        "flux",
        "dev",
        "FLUX.1 dev",
        "FLUX.1",
    )
    assert (flux["guidance"], flux["takes_negative_prompt"], flux["takes_guidance_scale"]) == ("embedded", False, True)
    assert (xl["guidance"], xl["takes_negative_prompt"], xl["takes_refiner"], xl["takes_clip_skip"]) == (
        "classifier_free", True, True, True,
    )  # fmt: skip
    assert "embedding" in xl["adapters"]
    assert "embedding" not in flux["adapters"]
    assert "Euler a" in xl["schedulers"]
    assert "Euler a" not in flux["schedulers"]
    assert [each["ratio"] for each in xl["aspects"]][:3] == ["1:1", "4:3", "3:4"]
    assert all(each["width"] % flux["size_step"] == 0 for each in flux["aspects"])
