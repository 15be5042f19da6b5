"""The paths of this door."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from broker_api.doors.openai import generation
from broker_api.doors.openai.payloads import Generation
from broker_api.endpoints import Answer, Body, Endpoint, Handler

#: What OpenAI's clients know as a bad request; and they send again what is answered with 409, in vain.
_STATUSES: Final[Mapping[int, int]] = MappingProxyType({422: 400, 409: 400})
_ANSWERED: Final = (Answer(200, "As OpenAI answers."),)


def _post(verb: str, name: str, handler: Handler, body: Body | None = None) -> Endpoint:
    return Endpoint(
        "POST",
        f"/v1/images/{verb}",
        name,
        "",
        "openai",
        handler,
        _ANSWERED,
        body=body,
        statuses=_STATUSES,
        listed=False,
    )


OPENAI_ENDPOINTS: Final = (
    _post(
        "generations",
        "openai:generations",
        generation.generate,
        Body(models=(Generation,), parse=Generation.model_validate, example={"prompt": "a red circle", "size": "auto"}),
    ),
    _post("edits", "openai:edits", generation.edit),
    _post("variations", "openai:variations", generation.vary),
)
