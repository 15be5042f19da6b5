"""What requests are made of: text that can be stored, pictures, LoRAs, controls, second passes; pure."""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, model_validator
from pydantic_core import PydanticCustomError

MAX_PROMPT = 32_000
MAX_SIDE = 16_384
#: A picture sent inline: base64 of a file as large as any server takes.
MAX_PICTURE_TEXT = 256 * 1024 * 1024
#: So many LoRAs, controls or embeddings one job may stack.
MAX_STACK = 16


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
Steps = Annotated[int, Field(ge=1, le=200)]
Strength = Annotated[float, Field(ge=0, le=1)]
Guidance = Annotated[float, Field(ge=0, le=100)]
#: Base64, a `data:` URI, `upload:<sha256>` or `job:<id>/<n>`; in stored parameters always `upload:<sha256>`.
PictureText = Annotated[
    Text,
    StringConstraints(min_length=1, max_length=MAX_PICTURE_TEXT),
    Field(description="Base64, a `data:` URI, `upload:<id>` or `job:<id>/<n>`."),
]


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


class Lora(Strict):
    """Add a LoRA (LoCon, LoHa, LoKr) with a weight; `<lora:name:weight>` in the prompt says the same."""

    name: Name
    weight: float = Field(
        default=1.0, ge=-10, le=10, description="Left out, what the LoRA's entry recommends, where it does."
    )
    text_encoder_weight: float | None = Field(
        default=None, ge=-10, le=10, description="For the text encoder alone; left out it is `weight`."
    )


PreprocessorOptions = Annotated[dict[Name, float], Field(max_length=8)]


class Control(Strict):
    """Let a ControlNet guide the drawing by a picture; without a model the checkpoint itself reads it, as FLUX.1 Canny does."""

    model: Name | None = Field(
        default=None, description="A registered ControlNet; left out, the checkpoint's own input."
    )
    image: PictureText
    scale: float = Field(default=1.0, ge=0, le=10)
    start: float = Field(default=0.0, ge=0, le=1, description="Share of the steps after which it begins.")
    end: float = Field(default=1.0, ge=0, le=1, description="Share of the steps after which it ends.")
    preprocessor: Name | None = Field(default=None, description="Turns `image` into a control picture first: `canny`.")
    preprocessor_options: PreprocessorOptions = Field(default_factory=dict)

    @model_validator(mode="after")
    def _ends_after_start(self) -> Self:
        if self.end <= self.start:
            raise PydanticCustomError("control_span", "The end of a control must come after its start")
        return self


class Hires(Strict):
    """Draw a second, larger pass over the first one."""

    scale: float = Field(default=2.0, gt=1, le=8)
    steps: Steps | None = Field(default=None, description="Left out, those of the first pass.")
    strength: float = Field(default=0.5, gt=0, le=1)
    upscaler: Name = Field(default="latent", description="`latent`, `lanczos`, `nearest` or a registered upscaler.")


class Refiner(Strict):
    """Let another checkpoint draw the last of the noise away."""

    model: Name
    switch_at: float = Field(
        default=0.8, gt=0, lt=1, description="Share of the noise schedule after which it takes over."
    )


class Outpaint(Strict):
    """Continue the picture beyond its edges, by so many pixels."""

    left: int = Field(default=0, ge=0, le=4096)
    top: int = Field(default=0, ge=0, le=4096)
    right: int = Field(default=0, ge=0, le=4096)
    bottom: int = Field(default=0, ge=0, le=4096)

    @model_validator(mode="after")
    def _goes_somewhere(self) -> Self:
        if not (self.left or self.top or self.right or self.bottom):
            raise PydanticCustomError("outpaint_empty", "Outpainting needs at least one side to grow")
        return self


class Refine(Strict):
    """Redraw an enlarged picture tile by tile with the job's `model`: diffusion upscaling."""

    prompt: Prompt = ""
    negative_prompt: Prompt = ""
    steps: Steps | None = None
    guidance_scale: Guidance | None = None
    scheduler: Name | None = None
    schedule_type: Name | None = None
    strength: float = Field(default=0.35, gt=0, le=1)
    tile: int | None = Field(
        default=None, ge=64, le=4096, description="Side of a tile, pixels; by default the model's."
    )
