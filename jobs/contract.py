"""The job request people send, the parameters a worker draws from, and the view they read back.

A task adds a class here and a line to `REQUESTS` and `PARAMETERS`; nothing else in this file changes.
"""

from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

from jobs.states import State

MAX_SEED = 2**64 - 1
MAX_PROMPT = 32_000
MAX_SIDE = 16_384


def _without_nul(text: str) -> str:
    if "\x00" in text:
        raise PydanticCustomError("string_nul", "Text must not contain the character NUL")
    return text


def _without_surrogates(text: str) -> str:
    # JSON allows lone surrogates ("\ud800"); neither UTF-8 nor Postgres can hold them.
    try:
        text.encode()
    except UnicodeEncodeError:
        raise PydanticCustomError("string_unicode", "Text must be valid Unicode: a lone surrogate is not") from None
    return text


Text = Annotated[str, AfterValidator(_without_nul), AfterValidator(_without_surrogates)]
Prompt = Annotated[Text, StringConstraints(max_length=MAX_PROMPT)]
Name = Annotated[Text, StringConstraints(min_length=1, max_length=200)]
Label = Annotated[Text, StringConstraints(max_length=200)]


class Strict(BaseModel):
    """Refuse unknown fields and numbers in disguise; never change after construction."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Output(Strict):
    """Say how pictures are encoded."""

    format: Literal["png", "jpeg", "webp"] = "png"
    #: For JPEG and WebP; PNG is lossless.
    quality: int = Field(default=90, ge=1, le=100)
    #: Write the full parameters into the file.
    metadata: bool = True


class Request(Strict):
    """What every task has in common; a field left out takes the model's own default."""

    model: Name | None = None
    prompt: Prompt
    negative_prompt: Prompt = ""
    width: int | None = Field(default=None, ge=8, le=MAX_SIDE)
    height: int | None = Field(default=None, ge=8, le=MAX_SIDE)
    steps: int | None = Field(default=None, ge=1, le=200)
    guidance_scale: float | None = Field(default=None, ge=0, le=100)
    scheduler: Name | None = Field(
        default=None, description="A1111 or diffusers name: `DPM++ 2M Karras`, `Euler a`, `DDIMScheduler`."
    )
    schedule_type: Name | None = Field(
        default=None, description="`karras`, `exponential`, `beta`, …; a suffix of `scheduler` says the same."
    )
    seed: int = Field(default=-1, ge=-1, le=MAX_SEED, description="-1 draws one and reports it; image i uses seed + i.")
    num_images: int = Field(default=1, ge=1, le=64)
    preview_every: int | None = Field(default=None, ge=0, le=200, description="Steps between previews; 0 sends none.")
    output: Output = Output()
    hardware: Name | None = Field(default=None, description="A hardware class (`cpu`, `gpu-24g`) or a worker's tag.")
    priority: int = Field(default=5, ge=0, le=9, description="0 first, 9 last.")
    deadline_s: float | None = Field(default=None, gt=0, le=31_536_000, description="Fail if not started by then.")
    labels: dict[Annotated[Text, StringConstraints(min_length=1, max_length=100)], Label] = Field(
        default_factory=dict, max_length=50
    )


class Txt2ImgRequest(Request):
    """Draw pictures from a prompt."""

    task: Literal["txt2img"] = "txt2img"


class Txt2ImgParameters(Txt2ImgRequest):
    """A `Txt2ImgRequest` with every default filled in: what a worker draws from."""

    model: Name
    width: int
    height: int
    steps: int
    guidance_scale: float
    scheduler: Name
    #: None keeps the model's own noise schedule.
    schedule_type: Name | None = None
    seed: int = Field(ge=0, le=MAX_SEED)
    preview_every: int


# One class now; `Txt2ImgRequest | Img2ImgRequest | …` as tasks are added.
JobRequest = Txt2ImgRequest
JobParameters = Txt2ImgParameters
Task = Literal["txt2img"]

REQUESTS: Mapping[str, type[JobRequest]] = MappingProxyType({"txt2img": Txt2ImgRequest})
PARAMETERS: Mapping[str, type[JobParameters]] = MappingProxyType({"txt2img": Txt2ImgParameters})


def parse_request(data: object) -> JobRequest:
    """Validate decoded JSON as the request class its `task` names, raising pydantic's `ValidationError`."""
    task = data.get("task", "txt2img") if isinstance(data, dict) else "txt2img"
    known = REQUESTS.get(task) if isinstance(task, str) else None
    if known is None:
        problem = PydanticCustomError(
            "task_unknown", "Task must be one of {tasks}", {"tasks": ", ".join(sorted(REQUESTS))}
        )
        raise ValidationError.from_exception_data(
            "JobRequest", [InitErrorDetails(type=problem, loc=("task",), input=task)]
        )
    return known.model_validate(data)


def parse_parameters(data: Mapping[str, Any]) -> JobParameters:
    """Read resolved parameters back from a job's row."""
    return PARAMETERS[data["task"]].model_validate(data)


def image_seed(parameters: JobParameters, index: int) -> int:
    """Return the seed of picture `index`: seed + index, wrapping at 2**64."""
    return (parameters.seed + index) % (MAX_SEED + 1)


class Progress(BaseModel):
    """Count denoising steps over all pictures of the job."""

    step: int
    steps: int
    fraction: float


class Image(BaseModel):
    """Describe one stored picture."""

    index: int
    seed: int
    width: int
    height: int
    mime: str
    bytes: int
    sha256: str
    url: str


class JobError(BaseModel):
    """Say why a job failed."""

    code: str
    message: str
    retryable: bool


class JobView(BaseModel):
    """Everything a reader may know about a job."""

    id: UUID
    state: State
    task: Task
    model: str
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    queue: str
    position: int | None = None
    eta_s: float | None = None
    waiting_for: str | None = None
    cancel_requested: bool = False
    progress: Progress
    images: list[Image]
    error: JobError | None = None
    attempts: int
    losses: int
    worker: str | None = None
    seconds: float | None = None
    request: JobParameters
