"""Which models a job needs, the one that draws first."""

from typing import Any

from jobs.contract import JobParameters, PreprocessParameters, Txt2ImgParameters, UpscaleParameters
from jobs.needs import main_need, needs_of

UPLOAD = "upload:" + "a" * 64


def fields(parameters: JobParameters) -> dict[str, str]:
    """Return what is needed by the field that names it."""
    return {need.field: f"{need.ref.kind} {need.ref.name}" for need in needs_of(parameters)}


def upscale(**changes: Any) -> UpscaleParameters:
    """Return the parameters of an enlargement."""
    values: dict[str, Any] = {
        "model": "x4",
        "upscaler": "x4",
        "upscaler_scale": 4,
        "image": UPLOAD,
        "scale": 4.0,
        "source_width": 8,
        "source_height": 8,
        "width": 32,
        "height": 32,
        "seed": 1,
        "preview_every": 0,
    }
    return UpscaleParameters.model_validate(values | changes)


def test_enlargement_needs_its_upscaler_and_what_redraws() -> None:
    """A resampler is no model; the checkpoint comes first, because it is what should be warm."""
    refine = {"steps": 4, "guidance_scale": 5.0, "scheduler": "Euler", "tile": 64}
    assert fields(upscale()) == {"upscaler": "upscaler x4"}
    assert fields(upscale(upscaler="Lanczos")) == {}
    assert main_need(upscale(upscaler="nearest")) is None
    both = upscale(model="m", refine=refine)
    assert fields(both) == {"model": "checkpoint m", "upscaler": "upscaler x4"}
    assert next(iter(fields(both))) == "model"


def test_preprocessors_need_weights_only_where_they_have_a_network() -> None:
    """Alone or before a ControlNet, `canny` needs nothing and HED its network."""

    def alone(name: str) -> PreprocessParameters:
        return PreprocessParameters(
            model=name, preprocessor=name, image=UPLOAD, width=8, height=8, seed=1, preview_every=0
        )

    assert fields(alone("canny")) == {}
    assert fields(alone("softedge_hed")) == {"preprocessor": "preprocessor softedge_hed"}
    drawn = Txt2ImgParameters.model_validate(
        {
            "model": "m",
            "prompt": "",
            "width": 8,
            "height": 8,
            "steps": 1,
            "guidance_scale": 1.0,
            "scheduler": "Euler",
            "seed": 1,
            "preview_every": 0,
            "controls": [
                {"model": "edges", "image": UPLOAD, "preprocessor": "canny"},
                {"model": "soft", "image": UPLOAD, "preprocessor": "softedge_hed"},
            ],
        }
    )
    assert fields(drawn) == {
        "model": "checkpoint m",
        "controls.0.model": "controlnet edges",
        "controls.1.model": "controlnet soft",
        "controls.1.preprocessor": "preprocessor softedge_hed",
    }
