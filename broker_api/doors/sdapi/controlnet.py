"""The side routes of the ControlNet extension, at the root."""

import base64
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from starlette.responses import Response

from broker_api.doors.sdapi.controls import UNITS, options_of, preprocessor_of
from broker_api.doors.sdapi.dialect import answer
from broker_api.doors.sdapi.drawing import draw
from broker_api.doors.sdapi.generation import labels_of
from broker_api.doors.sdapi.models import entries_of, visible_catalogue
from broker_api.doors.sdapi.payloads import Detect
from broker_api.doors.sdapi.refusals import ScriptRefused
from broker_api.doors.sdapi.translation import request_of
from broker_api.endpoints import Call
from models_registry.entries import Kind
from models_registry.offers import Catalogue
from models_registry.preprocessors import PREPROCESSORS

VERSION: Final = 2
_NAMES: Final[Mapping[str, str]] = MappingProxyType(
    {"preprocessor": "controlnet_module", "image": "controlnet_input_images.0"}
)


def _models(catalogue: Catalogue) -> list[str]:
    return [entry.title for entry in entries_of(catalogue, Kind.CONTROLNET)]


def _modules(catalogue: Catalogue) -> list[str]:
    """Return the preprocessors whose weights, if they need any, are here."""
    weights = {entry.name.casefold() for entry in entries_of(catalogue, Kind.PREPROCESSOR)}
    usable = [name for name, facts in PREPROCESSORS.items() if not facts.needs_weights or name in weights]
    return ["none", *usable]


async def get_version(call: Call) -> Response:
    """Return the version of the extension's API that is spoken."""
    del call
    return answer({"version": VERSION})


async def list_models(call: Call) -> Response:
    """Return the ControlNets."""
    return answer({"model_list": _models(await visible_catalogue(call))})


async def list_modules(call: Call) -> Response:
    """Return the preprocessors."""
    modules = _modules(await visible_catalogue(call))
    details = {
        name: {"model_free": False, "sliders": [option._asdict() for option in PREPROCESSORS[name].options.values()]}
        for name in modules[1:]
    }
    return answer({"module_list": modules, "module_detail": {"none": {"model_free": False, "sliders": []}, **details}})


async def control_types(call: Call) -> Response:
    """Return which preprocessors and models belong together; only `All` is told here."""
    catalogue = await visible_catalogue(call)
    everything: dict[str, Any] = {
        "module_list": _modules(catalogue),
        "model_list": ["None", *_models(catalogue)],
        "default_option": "none",
        "default_model": "None",
    }
    return answer({"control_types": {"All": everything}})


async def settings(call: Call) -> Response:
    """Return how many units count."""
    del call
    return answer({"control_net_unit_count": UNITS})


async def detect(call: Call) -> Response:
    """Run a preprocessor alone."""
    payload = call.body(Detect)
    if not payload.images:
        raise ScriptRefused("No image selected")
    preprocessor = preprocessor_of(payload.controlnet_module)
    if preprocessor is None:
        return answer({"images": payload.images, "info": "Success"})
    if preprocessor not in _modules(await visible_catalogue(call)):
        raise ScriptRefused("Module not available")
    options = options_of(
        preprocessor,
        payload.controlnet_threshold_a,
        payload.controlnet_threshold_b,
        payload.controlnet_processor_res,
    )
    requests = [
        request_of(
            {
                "task": "preprocess",
                "image": image,
                "preprocessor": preprocessor,
                "preprocessor_options": options,
                "labels": dict(labels_of(call)),
            },
            _NAMES,
        )
        for image in payload.images
    ]
    drawn = await draw(call, requests)
    pictures = [base64.b64encode(picture).decode() for each in drawn for picture in each.pictures]
    return answer({"images": pictures, "info": "Success"})
