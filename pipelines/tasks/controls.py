"""ControlNets of a job: their pictures prepared, their weights taken from the shelf, as the arguments of a pipeline."""

from collections.abc import Callable, Sequence
from typing import Any

from PIL import Image

from jobs.errors import DrawingFailed
from jobs.parts import Control
from models_registry.entries import Kind
from pipelines.decoding import decode_picture
from pipelines.pictures import Pixels
from pipelines.preprocessing.preprocess import preprocess, weights_of
from pipelines.tasks.setting import Guided, Setting


def guided_by(setting: Setting, controls: Sequence[Control], fit: Callable[[Pixels], Pixels], *, task: str) -> Guided:
    """Prepare a job's controls; `fit` brings a control picture to the size that is drawn, before its preprocessor sees it.

    Edges found at the size they are used at stay sharp. `task` is what the pipeline is for that they guide.
    """
    if not controls:
        if setting.reads_control:
            raise DrawingFailed("this model draws after a control picture, and the job has none")
        return Guided()
    pictures = [_picture(setting, control, fit) for control in controls]
    if setting.reads_control:
        return _read_by_the_model(controls, pictures)
    networks = [setting.shelf.take(setting.inputs.model(Kind.CONTROLNET, _named(control))) for control in controls]
    values: dict[str, list[Any]] = {
        "image" if task in setting.plain_controls else "control_image": [
            Image.fromarray(picture) for picture in pictures
        ],
        "controlnet_conditioning_scale": [float(control.scale) for control in controls],
        "control_guidance_start": [float(control.start) for control in controls],
        "control_guidance_end": [float(control.end) for control in controls],
    }
    if len(controls) == 1:
        # A single network is called without the wrapper, and takes single values.
        return Guided(
            networks, pictures, {name: value[0] for name, value in values.items()}, {"controlnet": networks[0]}
        )
    together, told = setting.together(networks)
    return Guided(networks, pictures, {**values, **told}, {"controlnet": together})


def _read_by_the_model(controls: Sequence[Control], pictures: Sequence[Pixels]) -> Guided:
    """Return the one control that a model reads by itself: always, and with its full weight."""
    (control, *others) = controls
    if others or control.model is not None or (control.scale, control.start, control.end) != (1.0, 0.0, 1.0):
        raise DrawingFailed(
            "this model reads one control picture by itself: it takes no ControlNet, scale, start or end"
        )
    return Guided((), pictures, {"control_image": Image.fromarray(pictures[0])})


def _named(control: Control) -> str:
    if control.model is None:
        raise DrawingFailed("this model reads no control picture by itself: a control needs a ControlNet")
    return control.model


def _picture(setting: Setting, control: Control, fit: Callable[[Pixels], Pixels]) -> Pixels:
    picture = fit(decode_picture(setting.inputs.picture(control.image)))
    if control.preprocessor is None:
        return picture
    weights = weights_of(control.preprocessor, setting.inputs)
    return preprocess(control.preprocessor, picture, control.preprocessor_options, weights, setting.shelf.take)
