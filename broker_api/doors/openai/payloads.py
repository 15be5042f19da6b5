"""What OpenAI's clients send, and the further fields of engines that speak this dialect; pure."""

import json
import re
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints
from pydantic_core import PydanticCustomError

from broker_api.doors.lenient import Lenient
from jobs.contract import MAX_SEED
from jobs.parts import MAX_STACK, Guidance, Name, Prompt, Steps, Strength

_SIZE: Final = re.compile(r"([0-9]{1,5})x([0-9]{1,5})")
AUTO: Final = "auto"


def _none_for_empty(value: object) -> object:
    return None if isinstance(value, str) and not value.strip() else value


def _is_size(text: str) -> str:
    if text != AUTO and _SIZE.fullmatch(text) is None:
        raise PydanticCustomError("size_format", "Size must be `auto` or WIDTHxHEIGHT, as 512x512")
    return text


def _is_opaque(text: str) -> str:
    if text == "transparent":
        raise PydanticCustomError(
            "background_unsupported", "Pictures have no transparency here: use `opaque` or `auto`"
        )
    return text


def _jpeg(value: object) -> object:
    return "jpeg" if value == "jpg" else value


def _listed(value: object) -> object:
    """Return a list of LoRAs: one alone, names alone, and JSON inside a form's field are taken too."""
    if isinstance(value, str) and value.lstrip()[:1] in {"[", "{"}:
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise PydanticCustomError("loras_json", "LoRAs must be a list of objects with a name") from None
    found = value if isinstance(value, list) else [value]
    return [{"name": each} if isinstance(each, str) else each for each in found]


class LoraItem(Lenient):
    """A LoRA as one of these engines names it."""

    name: Name | None = None
    path: Name | None = None
    weight: float | None = Field(default=None, ge=-10, le=10)
    scale: float | None = Field(default=None, ge=-10, le=10)

    def ours(self) -> dict[str, Any]:
        """Return the LoRA as our request names it; a weight that is left out is the one that its entry recommends."""
        weight = self.scale if self.weight is None else self.weight
        return {"name": self.name or self.path or "", **({} if weight is None else {"weight": weight})}


Loras = Annotated[list[LoraItem], BeforeValidator(_listed), Field(max_length=MAX_STACK)]
Quality = Literal["auto", "standard", "hd", "low", "medium", "high", "xhigh", "max"]


class Drawing(Lenient):
    """What all three verbs have in common; what is left out takes the model's own default."""

    model: Annotated[Name | None, BeforeValidator(_none_for_empty)] = None
    n: int = Field(default=1, ge=1, le=10)
    size: Annotated[str, AfterValidator(_is_size)] = AUTO
    quality: Quality = AUTO
    response_format: Literal["b64_json", "url"] = "b64_json"
    output_format: Annotated[Literal["png", "jpeg", "webp"], BeforeValidator(_jpeg)] = "png"
    output_compression: int = Field(default=100, ge=0, le=100)
    background: Annotated[Literal["auto", "opaque", "transparent"], AfterValidator(_is_opaque)] = AUTO

    prompt: Prompt = ""
    negative_prompt: Prompt = ""
    num_inference_steps: Steps | None = None
    steps: Steps | None = None
    guidance_scale: Guidance | None = None
    true_cfg_scale: Guidance | None = None
    seed: int = Field(default=-1, ge=-1, le=MAX_SEED)
    width: int | None = Field(default=None, ge=1)
    height: int | None = Field(default=None, ge=1)
    loras: Loras = Field(default_factory=list)
    lora: Loras = Field(default_factory=list)
    strength: Strength | None = None
    clip_skip: int | None = Field(default=None, ge=1, le=12)
    scheduler: Name | None = None

    @property
    def asked_size(self) -> tuple[int | None, int | None]:
        """Return width and height; `width` and `height` count before `size`, None leaves a side to the model."""
        found = _SIZE.fullmatch(self.size)
        width, height = (None, None) if found is None else (int(found[1]), int(found[2]))
        return self.width or width, self.height or height

    @property
    def asked_steps(self) -> int | None:
        """Return the steps asked for by number."""
        return self.num_inference_steps or self.steps


class Streamed(Drawing):
    """What the verbs with a prompt add."""

    prompt: Annotated[Prompt, StringConstraints(min_length=1)]
    stream: bool = False
    partial_images: int = Field(default=0, ge=0, le=3)


class Generation(Streamed):
    """The body of `/v1/images/generations`."""


class Edit(Streamed):
    """The fields of `/v1/images/edits` beside its files."""


class Variation(Drawing):
    """The fields of `/v1/images/variations` beside its file."""
