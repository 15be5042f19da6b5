"""The paths of this door."""

from collections.abc import Callable
from typing import Any, Final

from pydantic import BaseModel

from broker_api.doors.lenient import Lenient
from broker_api.doors.sdapi import controlnet, extras, generation, models, options, progress, server
from broker_api.doors.sdapi.dialect import SDAPI
from broker_api.doors.sdapi.payloads import (
    Detect,
    ExtraBatch,
    ExtraSingle,
    Img2Img,
    InternalProgress,
    Interrogate,
    NameQuery,
    Options,
    PngInfo,
    ProgressQuery,
    Txt2Img,
    parse_options,
)
from broker_api.doors.sdapi.prefilled import prefilled
from broker_api.endpoints import Answer, Body, Endpoint, Handler

_ROOT: Final = "/sdapi/v1"
_ANSWERED: Final = (Answer(200, "As A1111 answers."),)


def _body(model: type[BaseModel], parse: Callable[[object], BaseModel] | None = None, **example: Any) -> Body:
    return Body(models=(model,), parse=parse or model.model_validate, example=example)


def _get(path: str, handler: Handler, query: type[BaseModel] = Lenient) -> Endpoint:
    return Endpoint(
        "GET", path, f"sdapi:{path}", "", "sdapi", handler, _ANSWERED, query=query, dialect=SDAPI, listed=False
    )


def _post(path: str, handler: Handler, body: Body | None = None, query: type[BaseModel] = Lenient) -> Endpoint:
    return Endpoint(
        "POST", path, f"sdapi:post:{path}", "", "sdapi", handler, _ANSWERED, body=body, query=query, dialect=SDAPI, listed=False
    )  # fmt: skip


SDAPI_ENDPOINTS: Final = (
    _post(
        f"{_ROOT}/txt2img",
        generation.draw_from_text,
        _body(Txt2Img, lambda data: Txt2Img.model_validate(prefilled(data)), prompt="a red circle", steps=20),
    ),
    _post(
        f"{_ROOT}/img2img",
        generation.draw_from_pictures,
        _body(Img2Img, lambda data: Img2Img.model_validate(prefilled(data)), prompt="a red circle", init_images=[]),
    ),
    _post(f"{_ROOT}/extra-single-image", extras.extra_single, _body(ExtraSingle, upscaler_1="Lanczos")),
    _post(
        f"{_ROOT}/extra-batch-images",
        extras.extra_batch,
        _body(ExtraBatch, upscaler_1="Lanczos", imageList=[{"data": "", "name": "a"}]),
    ),
    _post(f"{_ROOT}/png-info", extras.png_info, _body(PngInfo, image="")),
    _post(f"{_ROOT}/interrogate", extras.interrogate, _body(Interrogate, image="")),
    _get(f"{_ROOT}/progress", progress.get_progress, ProgressQuery),
    _post(f"{_ROOT}/interrupt", progress.interrupt),
    _post(f"{_ROOT}/skip", progress.interrupt),
    _get(f"{_ROOT}/status", progress.status),
    _post("/internal/progress", progress.internal_progress, _body(InternalProgress, id_task="task(1)")),
    _get("/internal/pending-tasks", progress.pending_tasks),
    _get(f"{_ROOT}/options", options.get_options),
    _post(f"{_ROOT}/options", options.set_options, _body(Options, parse_options, sd_model_checkpoint="")),
    _get(f"{_ROOT}/checkpoint", options.get_checkpoint),
    _post(f"{_ROOT}/checkpoint", options.set_checkpoint, query=NameQuery),
    *(
        _post(f"{_ROOT}/{verb}", options.do_nothing)
        for verb in (
            "refresh-checkpoints", "refresh-loras", "refresh-vae", "refresh-embeddings", "refresh-unets", "unload-checkpoint",
            "reload-checkpoint", "lock-checkpoint",
        )
    ),
    _get(f"{_ROOT}/sd-models", models.list_checkpoints),
    _get(f"{_ROOT}/loras", models.list_loras),
    _get(f"{_ROOT}/lora", models.read_lora, NameQuery),
    _get(f"{_ROOT}/loaded-loras", models.list_nothing),
    _get(f"{_ROOT}/sd-vae", models.list_vaes),
    _get(f"{_ROOT}/sd-modules", models.list_vaes),
    _get(f"{_ROOT}/embeddings", models.list_embeddings),
    _get(f"{_ROOT}/upscalers", models.list_upscalers),
    _get(f"{_ROOT}/latent-upscale-modes", models.list_latent_modes),
    _get(f"{_ROOT}/samplers", models.list_samplers),
    _get(f"{_ROOT}/schedulers", models.list_schedulers),
    *(
        _get(f"{_ROOT}/{name}", models.list_nothing)
        for name in ("hypernetworks", "face-restorers", "realesrgan-models", "prompt-styles", "extensions")
    ),
    _get(f"{_ROOT}/scripts", server.list_scripts),
    _get(f"{_ROOT}/script-info", server.describe_scripts),
    _get(f"{_ROOT}/cmd-flags", server.flags),
    _get(f"{_ROOT}/memory", server.memory),
    _get("/controlnet/version", controlnet.get_version),
    _get("/controlnet/model_list", controlnet.list_models),
    _get("/controlnet/module_list", controlnet.list_modules),
    _get("/controlnet/control_types", controlnet.control_types),
    _get("/controlnet/settings", controlnet.settings),
    _post("/controlnet/detect", controlnet.detect, _body(Detect, controlnet_module="canny")),
)  # fmt: skip
