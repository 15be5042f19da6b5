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
from broker_api.doors.sdapi.models import entries_of
from broker_api.doors.sdapi.payloads import Detect
from broker_api.doors.sdapi.refusals import ScriptRefused
from broker_api.doors.sdapi.translation import request_of
from broker_api.endpoints import Call
from models_registry.entries import Kind

VERSION: Final = 2
PREPROCESSORS: Final = ("canny",)
_NAMES: Final[Mapping[str, str]] = MappingProxyType(
    {"preprocessor": "controlnet_module", "image": "controlnet_input_images.0"}
)


async def _models(call: Call) -> list[str]:
    catalogue = (await call.services.snapshots.refresh()).catalogue
    return [entry.title for entry in entries_of(catalogue, Kind.CONTROLNET)]


async def get_version(call: Call) -> Response:
    """Return the version of the extension's API that is spoken."""
    del call
    return answer({"version": VERSION})


async def list_models(call: Call) -> Response:
    """Return the ControlNets."""
    return answer({"model_list": await _models(call)})


async def list_modules(call: Call) -> Response:
    """Return the preprocessors."""
    del call
    modules = ["none", *PREPROCESSORS]
    return answer(
        {"module_list": modules, "module_detail": {name: {"model_free": False, "sliders": []} for name in modules}}
    )


async def control_types(call: Call) -> Response:
    """Return which preprocessors and models belong together; only `All` is told here."""
    everything: dict[str, Any] = {
        "module_list": ["none", *PREPROCESSORS],
        "model_list": ["None", *await _models(call)],
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
    if preprocessor not in PREPROCESSORS:
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
