"""The job request people send, the parameters a worker draws from, and the view they read back.

A task adds its classes here and a line to `REQUESTS` and `PARAMETERS`; what requests are made of stands in `jobs.parts`.
"""

from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Annotated, Any, Literal, Self
from uuid import UUID

from pydantic import BaseModel, Field, StringConstraints, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from jobs.parts import (
    MAX_SIDE,
    MAX_STACK,
    Control,
    Guidance,
    Hires,
    Label,
    Lora,
    Name,
    Outpaint,
    Output,
    PictureText,
    PreprocessorOptions,
    Prompt,
    Refine,
    Refiner,
    Steps,
    Strength,
    Strict,
    Text,
)
from jobs.states import State

MAX_SEED = 2**64 - 1

Side = Annotated[int, Field(ge=8, le=MAX_SIDE)]
Seed = Annotated[int, Field(ge=0, le=MAX_SEED)]
Task = Literal["txt2img", "img2img", "inpaint", "upscale", "preprocess", "analyse"]
#: What the fleet asks itself about its models, and nobody else may ask.
Subject = Literal["weights", "comparison", "text"]


class Request(Strict):
    """What every task has in common; a field left out takes the model's own default."""

    task: Task
    model: Name | None = None
    seed: int = Field(default=-1, ge=-1, le=MAX_SEED, description="-1 draws one and reports it; image i uses seed + i.")
    preview_every: int | None = Field(default=None, ge=0, le=200, description="Steps between previews; 0 sends none.")
    output: Output = Output()
    hardware: Name | None = Field(default=None, description="A hardware class (`cpu`, `gpu-24g`) or a worker's tag.")
    priority: int = Field(default=5, ge=0, le=9, description="0 first, 9 last.")
    deadline_s: float | None = Field(default=None, gt=0, le=31_536_000, description="Fail if not started by then.")
    labels: dict[Annotated[Text, StringConstraints(min_length=1, max_length=100)], Label] = Field(
        default_factory=dict, max_length=50
    )


class DiffusionRequest(Request):
    """What the tasks that denoise have in common."""

    prompt: Prompt
    negative_prompt: Prompt = ""
    width: Side | None = None
    height: Side | None = None
    steps: Steps | None = None
    guidance_scale: Guidance | None = None
    scheduler: Name | None = Field(
        default=None, description="A1111 or diffusers name: `DPM++ 2M Karras`, `Euler a`, `DDIMScheduler`."
    )
    schedule_type: Name | None = Field(
        default=None, description="`karras`, `exponential`, `beta`, …; a suffix of `scheduler` says the same."
    )
    num_images: int = Field(default=1, ge=1, le=64)
    clip_skip: int = Field(default=1, ge=1, le=12, description="As A1111 counts: 1 skips nothing, 2 the last layer.")
    loras: list[Lora] = Field(default_factory=list, max_length=MAX_STACK)
    embeddings: list[Name] = Field(
        default_factory=list,
        max_length=MAX_STACK,
        description="Textual inversions; those that the prompts name are found without.",
    )
    controls: list[Control] = Field(default_factory=list, max_length=MAX_STACK)
    vae: Name | None = Field(default=None, description="A registered VAE in place of the model's own.")


class Txt2ImgFields(Strict):
    """What text-to-image adds."""

    hires: Hires | None = None
    refiner: Refiner | None = Field(
        default=None,
        description="A second checkpoint of the family that takes over; of two passes it does in the last.",
    )


class Img2ImgFields(Strict):
    """What image-to-image adds."""

    image: PictureText
    strength: Strength = Field(default=0.75, description="0 returns the picture, 1 does not look at it.")
    resize_mode: Literal["stretch", "crop", "fill"] = Field(
        default="crop", description="When the picture's shape is not the one asked for."
    )


class InpaintFields(Strict):
    """What inpainting adds."""

    image: PictureText
    mask: PictureText | None = Field(default=None, description="White is drawn anew; left out only when outpainting.")
    strength: Strength = 1.0
    resize_mode: Literal["stretch", "crop", "fill"] = "crop"
    mask_blur: int = Field(default=4, ge=0, le=256, description="Width of the soft edge inside the mask, pixels.")
    mask_invert: bool = False
    masked_content: Literal["original", "fill", "noise", "nothing"] = Field(
        default="original", description="What the masked area holds before the first step."
    )
    inpaint_area: Literal["whole", "masked"] = Field(
        default="whole",
        description="`masked` draws the mask's surroundings alone, at the full size, and puts them back.",
    )
    inpaint_padding: int = Field(
        default=32, ge=0, le=1024, description="Surroundings taken along with `masked`, pixels."
    )
    outpaint: Outpaint | None = None

    @model_validator(mode="after")
    def _has_somewhere_to_draw(self) -> Self:
        if self.mask is None and self.outpaint is None:
            raise PydanticCustomError("mask_missing", "Inpainting needs a mask, or sides to outpaint")
        if self.outpaint is not None and self.inpaint_area == "masked":
            raise PydanticCustomError("outpaint_whole", "Outpainting works on the whole picture: not with 'masked'")
        return self


class UpscaleFields(Strict):
    """What upscaling adds."""

    image: PictureText
    upscaler: Name | None = Field(default=None, description="A registered upscaler, `lanczos` or `nearest`.")
    scale: float | None = Field(default=None, gt=1, le=16, description="Left out, the upscaler's own.")
    refine: Refine | None = Field(default=None, description="Redraw the result in tiles with the checkpoint `model`.")


class PreprocessFields(Strict):
    """What running a preprocessor alone adds."""

    image: PictureText
    preprocessor: Name = Field(description="`canny`, or another one that is listed.")
    preprocessor_options: PreprocessorOptions = Field(default_factory=dict)


class Txt2ImgRequest(Txt2ImgFields, DiffusionRequest):
    """Draw pictures from a prompt."""

    task: Literal["txt2img"] = "txt2img"


class Img2ImgRequest(Img2ImgFields, DiffusionRequest):
    """Draw pictures from a prompt and a picture."""

    task: Literal["img2img"]


class InpaintRequest(InpaintFields, DiffusionRequest):
    """Draw the masked part of a picture anew, or continue it beyond its edges."""

    task: Literal["inpaint"]


class UpscaleRequest(UpscaleFields, Request):
    """Enlarge a picture."""

    task: Literal["upscale"]


class PreprocessRequest(PreprocessFields, Request):
    """Turn a picture into a control picture: edges, depth, poses."""

    task: Literal["preprocess"]


class Parameters(Request):
    """What every kind of parameters holds: every default filled in, every picture an upload."""

    #: The checkpoint; where none draws, the upscaler or the preprocessor.
    model: Name
    #: Size of the finished picture, pixels.
    width: int
    height: int
    seed: Seed
    preview_every: int


class DiffusionParameters(DiffusionRequest, Parameters):
    """A `DiffusionRequest` with every default filled in."""

    model: Name
    width: int
    height: int
    steps: int
    guidance_scale: float
    scheduler: Name
    #: None keeps the model's own noise schedule.
    schedule_type: Name | None = None
    seed: Seed
    preview_every: int


class Txt2ImgParameters(Txt2ImgFields, DiffusionParameters):
    """What a worker draws a `Txt2ImgRequest` from; width and height are those of the first pass."""

    task: Literal["txt2img"] = "txt2img"


class Img2ImgParameters(Img2ImgFields, DiffusionParameters):
    """What a worker draws an `Img2ImgRequest` from."""

    task: Literal["img2img"] = "img2img"


class InpaintParameters(InpaintFields, DiffusionParameters):
    """What a worker draws an `InpaintRequest` from.

    With `whole` width and height are those of the source before it is outpainted; with `masked` those the cut-out is drawn at.
    """

    task: Literal["inpaint"] = "inpaint"


class RefineParameters(Refine):
    """A `Refine` with every default filled in."""

    steps: int
    guidance_scale: float
    scheduler: Name
    tile: int


class UpscaleParameters(UpscaleFields, Parameters):
    """What a worker enlarges a picture by."""

    task: Literal["upscale"] = "upscale"
    upscaler: Name
    scale: float
    #: Size of the picture that is enlarged, pixels.
    source_width: int
    source_height: int
    #: How much one pass of the upscaler enlarges; 1 where no model does.
    upscaler_scale: int
    refine: RefineParameters | None = None


class PreprocessParameters(PreprocessFields, Parameters):
    """What a worker makes a control picture from."""

    task: Literal["preprocess"] = "preprocess"


class AnalyseParameters(Parameters):
    """What a worker finds out about models, drawing nothing: a job that only the fleet gives itself."""

    task: Literal["analyse"] = "analyse"
    subject: Subject
    #: LoRAs; of a comparison the first is compared with each of the others.
    adapters: list[Name] = Field(default_factory=list, max_length=64)
    #: What the text encoder of `model` reads.
    texts: list[Prompt] = Field(default_factory=list, max_length=64)
    width: int = 0
    height: int = 0
    seed: Seed = 0
    preview_every: int = 0


JobRequest = Txt2ImgRequest | Img2ImgRequest | InpaintRequest | UpscaleRequest | PreprocessRequest
#: What a checkpoint draws.
DiffusionJob = Txt2ImgParameters | Img2ImgParameters | InpaintParameters
JobParameters = DiffusionJob | UpscaleParameters | PreprocessParameters | AnalyseParameters

REQUESTS: Mapping[str, type[JobRequest]] = MappingProxyType(
    {
        "txt2img": Txt2ImgRequest,
        "img2img": Img2ImgRequest,
        "inpaint": InpaintRequest,
        "upscale": UpscaleRequest,
        "preprocess": PreprocessRequest,
    }
)
PARAMETERS: Mapping[str, type[JobParameters]] = MappingProxyType(
    {
        "txt2img": Txt2ImgParameters,
        "img2img": Img2ImgParameters,
        "inpaint": InpaintParameters,
        "upscale": UpscaleParameters,
        "preprocess": PreprocessParameters,
        "analyse": AnalyseParameters,
    }
)


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


def image_seed(parameters: Parameters, index: int) -> int:
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
    owner: str | None = Field(default=None, description="Who sent it.")
    state: State
    task: Task
    model: str
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    queue: str
    batch: UUID | None = None
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
