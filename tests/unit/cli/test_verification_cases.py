"""What `imagefleet verify` asks of each model is what the model can do."""

from typing import Any

from cli.verification.cases import cases
from client.views import AdapterView, ModelView


def model(name: str, **changes: Any) -> ModelView:
    """Make a checkpoint."""
    values: dict[str, Any] = {
        "name": name, "title": name, "kind": "checkpoint", "family": "flux", "variant": "dev", "tasks": ["img2img", "txt2img"],
        "native_size": 64, "width": 32, "size_step": 16, "min_side": 64, "max_side": 2048, "default_steps": 4,
        "default_guidance_scale": 3.5, "default_scheduler": "Euler", "fingerprint": "0", "bytes": 1, "is_default": False,
    }  # fmt: skip
    return ModelView(**(values | changes))


def adapter(name: str, kind: str, **changes: Any) -> AdapterView:
    """Make an adapter."""
    values = {
        "name": name,
        "title": name,
        "kind": kind,
        "family": "flux",
        "variant": "lora",
        "fingerprint": "0",
        "bytes": 1,
    }
    return AdapterView(**(values | changes))


CANNY = model("edges", variant="canny", reads_control=True)
DEV = model("dev")


def test_models_that_read_a_control_picture_are_given_one() -> None:
    """Every task of such a model has one control without a model; no other has any."""
    found = list(cases([CANNY, DEV], [], None))
    assert {case.what for case in found if case.model == "edges"} == {"txt2img", "txt2img, hires fix", "img2img"}
    for case in found:
        controls = case.request.get("controls", [])
        assert [set(each) for each in controls] == ([{"image", "preprocessor"}] if case.model == "edges" else [])


def test_adapters_are_shown_on_a_model_that_takes_them() -> None:
    """Of their family and width, and a ControlNet on one that reads no control picture itself."""
    net, small, large = (
        adapter("net", "controlnet"),
        adapter("small", "lora", width=32),
        adapter("large", "lora", width=3072),
    )
    shown = {case.model for case in cases([CANNY, DEV], [net, small, large], None) if " on " in case.model}
    assert shown == {"net on dev", "small on dev"}
