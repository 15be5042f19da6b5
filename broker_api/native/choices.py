"""Names that a request may choose among whatever is installed: schedulers and their schedules, preprocessors, resamplers."""

from typing import Final

from pydantic import BaseModel, Field
from starlette.responses import Response

from broker_api.endpoints import Answer, Call, Endpoint
from broker_api.http.answers import json_answer
from models_registry.entries import Kind
from models_registry.preprocessors import PREPROCESSORS
from models_registry.schedulers import SCHEDULE_TYPES, SCHEDULERS


class ScheduleView(BaseModel):
    """One way to space the noise levels."""

    name: str
    title: str


class SchedulerView(BaseModel):
    """A sampling method."""

    name: str
    schedule_types: list[ScheduleView] = Field(description="Those it can follow; without one it keeps the model's own.")
    calls_per_step: int = Field(description="How often a step asks the model: 2 takes twice the time.")


class SchedulerPage(BaseModel):
    """All schedulers."""

    items: list[SchedulerView]
    next_cursor: str | None = None


class OptionView(BaseModel):
    """A number that a preprocessor takes."""

    name: str
    default: float
    low: float
    high: float


class PreprocessorView(BaseModel):
    """What can be made of a picture before a ControlNet sees it."""

    name: str
    title: str
    options: list[OptionView]
    available: bool = Field(description="It needs no weights, or they are registered.")


class PreprocessorPage(BaseModel):
    """All preprocessors."""

    items: list[PreprocessorView]
    next_cursor: str | None = None


async def list_schedulers(call: Call) -> Response:
    """Return every scheduler."""
    del call
    return json_answer(
        SchedulerPage(
            items=[
                SchedulerView(
                    name=each.name,
                    schedule_types=[
                        ScheduleView(name=kind.name, title=kind.label)
                        for kind in SCHEDULE_TYPES.values()
                        if kind.name in each.schedule_types
                    ],
                    calls_per_step=each.calls_per_step,
                )
                for each in SCHEDULERS.values()
            ]
        )
    )


async def list_preprocessors(call: Call) -> Response:
    """Return every preprocessor, and whether it can be used now."""
    catalogue = (await call.services.snapshots.refresh()).catalogue
    here = {entry.name for entry in catalogue.of_kind(Kind.PREPROCESSOR)}
    return json_answer(
        PreprocessorPage(
            items=[
                PreprocessorView(
                    name=each.name,
                    title=each.title,
                    options=[
                        OptionView(name=name, default=facts.default, low=facts.low, high=facts.high)
                        for name, facts in each.options.items()
                    ],
                    available=not each.needs_weights or each.name in here,
                )
                for each in PREPROCESSORS.values()
            ]
        )
    )


CHOICE_ENDPOINTS: Final = (
    Endpoint(
        "GET", "/v1/schedulers", "listSchedulers", "List schedulers", "fleet", list_schedulers,
        answers=(Answer(200, "All schedulers.", SchedulerPage),),
    ),
    Endpoint(
        "GET", "/v1/preprocessors", "listPreprocessors", "List preprocessors", "fleet", list_preprocessors,
        answers=(Answer(200, "All preprocessors.", PreprocessorPage),),
    ),
)  # fmt: skip
