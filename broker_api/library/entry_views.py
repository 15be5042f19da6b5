"""Show entries of the library: adapters and models in lists, one of them whole."""

from datetime import datetime
from enum import StrEnum
from typing import Any, Literal
from urllib.parse import quote
from uuid import UUID

from pydantic import BaseModel, Field

from jobs.history.use_totals import Uses
from models_registry.aspects import aspects_of
from models_registry.entries import Component, Kind
from models_registry.families import FAMILIES, Guidance, facts_of, tasks_of
from models_registry.records import Entry, Marks, Reader, Visibility
from models_registry.schedulers import SCHEDULERS


class AdapterKind(StrEnum):
    """Name every kind but checkpoints, which are listed as models."""

    LORA = "lora"
    CONTROLNET = "controlnet"
    EMBEDDING = "embedding"
    VAE = "vae"
    UPSCALER = "upscaler"
    PREPROCESSOR = "preprocessor"


class EntryPreviewView(BaseModel):
    """One picture that shows what an entry does."""

    n: int
    url: str
    width: int
    height: int
    mime: str
    bytes: int


class EntryFields(BaseModel):
    """What every entry shows."""

    name: str = Field(description="What its versions have in common.")
    version: str = Field(description="Empty for what has no version.")
    ref: str = Field(description="What a job names: `name` or `name@version`.")
    title: str = Field(description="As A1111's clients show it.")
    family: str
    variant: str = Field(
        description="Checkpoints: a variant of their family, as `base` or `turbo`; LoRAs: `lora`, `locon`, `loha`, `lokr`; VAEs: `base`, "
        "`tiny`; upscalers: the architecture."
    )
    fingerprint: str
    bytes: int
    owner: str | None = Field(description="Who added it; null for what was found in the fleet's folders.")
    visibility: Visibility
    allowed_keys: list[str] | None = Field(description="Ids of the API keys that may use it; null for all.")
    editable: bool = Field(description="Whether the caller may change it.")
    description: str
    licence: str
    source: str
    base_model: str
    tags: list[str]
    trigger_words: list[str]
    weight: float | None = Field(description="What a LoRA is used with that is named without a weight.")
    weight_min: float | None
    weight_max: float | None
    sha256: str | None = Field(
        description="Of its one file, or of the list of its files; null until it was read whole."
    )
    hashes: dict[str, str] = Field(description="By which sites look models up: `autov2` and others.")
    aliases: list[str]
    previews: list[EntryPreviewView]
    marks: Marks = Field(description="The caller's own.")
    usage: Uses = Field(description="What all jobs did with it; counted by the keeper.")
    created_at: datetime
    updated_at: datetime
    missing_since: datetime | None = Field(description="Since when its files are away.")


class AdapterFacts(EntryFields):
    """What an adapter shows but for its id."""

    kind: AdapterKind
    rank: int | None = Field(description="LoRAs: the largest rank of their matrices.")
    scale: int | None = Field(description="Upscalers: how much one pass enlarges, where the file tells.")
    vectors: int | None = Field(description="Embeddings: how many tokens the name stands for.")
    text_width: int | None = Field(description="What it adapts must have text features of this width.")
    width: int | None = Field(description="What it adapts must have a network whose first layer is so wide.")


class AdapterView(AdapterFacts):
    """One adapter."""

    id: UUID


class FileView(BaseModel):
    """One file of an entry."""

    path: str = Field(description="Below the entry's own place.")
    bytes: int
    sha256: str | None


class Whole(BaseModel):
    """What only one entry alone shows."""

    files: list[FileView]
    metadata: dict[str, Any] = Field(
        description="What the header says: training settings, tags, the trainer's own title."
    )


class AdapterDetail(AdapterView, Whole):
    """One adapter with everything that is known of it."""


class AspectView(BaseModel):
    """One shape with the size it is drawn at."""

    ratio: str = Field(description="Width to height: `16:9`.")
    width: int
    height: int


class ModelFacts(EntryFields):
    """What a checkpoint shows but for its id, and what a request may ask of it."""

    kind: Literal["checkpoint"]
    family_title: str = Field(description="What people call the family.")
    variant_title: str = Field(description="What people call the variant.")
    tasks: list[str]
    guidance: Guidance = Field(
        description="`classifier_free` takes a scale and a negative prompt, `embedded` a scale alone, `none` neither."
    )
    takes_negative_prompt: bool
    takes_guidance_scale: bool
    takes_clip_skip: bool
    takes_refiner: bool
    reads_control: bool = Field(
        description="Whether it draws after one control picture, for which no ControlNet is named."
    )
    adapters: list[str] = Field(description="Kinds of adapters that it takes.")
    schedulers: list[str] = Field(description="Schedulers it can be drawn with.")
    aspects: list[AspectView] = Field(description="Sizes of the usual shapes that it draws well, the square first.")
    native_size: int = Field(description="Side of a picture when the request names no size, pixels.")
    text_width: int | None = Field(description="Adapters must be made for text features of this width.")
    width: int | None = Field(description="Adapters must be made for a network whose first layer is so wide.")
    size_step: int = Field(description="Width and height must be multiples of this.")
    min_side: int
    max_side: int
    default_steps: int
    default_guidance_scale: float
    default_scheduler: str
    components: list[Component]
    is_default: bool


class ModelView(ModelFacts):
    """A checkpoint and what a request may ask of it."""

    id: UUID


class OpenAIModel(BaseModel):
    """A model as OpenAI's clients list it."""

    id: str
    object: Literal["model"] = "model"
    created: int = 0
    owned_by: str = "imagefleet"


class OneModel(ModelFacts, OpenAIModel, Whole):
    """A model with everything that is known of it, for our clients and for OpenAI's: to those its `id` is its name."""

    entry_id: UUID = Field(description="What its list shows as `id`.")


def adapter_view(entry: Entry, reader: Reader, uses: Uses) -> AdapterView:
    """Return an adapter as lists show it."""
    return AdapterView(id=entry.id, **_adapter(entry, reader, uses))


def adapter_detail(entry: Entry, reader: Reader, uses: Uses) -> AdapterDetail:
    """Return an adapter with everything that is known of it."""
    return AdapterDetail(id=entry.id, **_adapter(entry, reader, uses), **_whole(entry))


def model_view(entry: Entry, reader: Reader, uses: Uses, *, is_default: bool) -> ModelView:
    """Return a checkpoint as lists show it."""
    return ModelView(id=entry.id, **_model(entry, reader, uses, is_default=is_default))


def model_detail(entry: Entry, reader: Reader, uses: Uses, *, is_default: bool) -> OneModel:
    """Return a checkpoint with everything that is known of it."""
    return OneModel(
        id=entry.ref, entry_id=entry.id, **_model(entry, reader, uses, is_default=is_default), **_whole(entry)
    )


def may_change(entry: Entry, reader: Reader) -> bool:
    """Tell whether it is theirs to change: what was found in the fleet's folders is the admins'."""
    return reader.is_admin or (entry.owner is not None and entry.owner == reader.owner)


def door_of(entry: Entry) -> str:
    """Return the path that an entry is read at."""
    return f"/v1/{'models' if entry.kind is Kind.CHECKPOINT else 'adapters'}/{quote(str(entry.id))}"


def _fields(entry: Entry, reader: Reader, uses: Uses) -> dict[str, Any]:
    own = may_change(entry, reader)
    same = {name: getattr(entry, name) for name in EntryFields.model_fields if hasattr(entry, name)}
    previews = [
        EntryPreviewView(
            n=each.index, url=f"{door_of(entry)}/previews/{each.index}", width=each.width, height=each.height,
            mime=each.mime, bytes=each.bytes,
        )
        for each in entry.previews
    ]  # fmt: skip
    lists = {name: list(same[name]) for name in ("tags", "trigger_words", "aliases")}
    # Which keys there are is their owner's business.
    keys = list(entry.allowed_keys) if own and entry.allowed_keys is not None else None
    return {
        **same, **lists, "kind": entry.kind.value, "title": entry.model.title, "allowed_keys": keys, "editable": own, "previews": previews,
        "usage": uses,
    }  # fmt: skip


def _adapter(entry: Entry, reader: Reader, uses: Uses) -> dict[str, Any]:
    facts = {name: getattr(entry, name) for name in ("rank", "scale", "vectors", "text_width", "width")}
    return {**_fields(entry, reader, uses), **facts, "kind": AdapterKind(entry.kind)}


def _model(entry: Entry, reader: Reader, uses: Uses, *, is_default: bool) -> dict[str, Any]:
    family, usual = FAMILIES[entry.family], facts_of(entry.model)
    guidance = entry.default_guidance_scale
    return {
        **_fields(entry, reader, uses),
        "family_title": family.title,
        "variant_title": usual.title,
        "tasks": sorted(tasks_of(entry.model)),
        "guidance": usual.guidance,
        "takes_negative_prompt": usual.guidance is Guidance.CLASSIFIER_FREE,
        "takes_guidance_scale": usual.guidance is not Guidance.NONE,
        "takes_clip_skip": family.takes_clip_skip,
        "takes_refiner": family.takes_refiner,
        "reads_control": usual.reads_control,
        "adapters": sorted(family.adapters),
        "schedulers": [each.name for each in SCHEDULERS.values() if usual.prediction in each.predictions],
        "aspects": [
            AspectView(ratio=each.name, width=each.width, height=each.height) for each in aspects_of(entry.model)
        ],
        "native_size": entry.native_size,
        "text_width": entry.text_width,
        "width": entry.width,
        "size_step": family.size_step,
        "min_side": min(family.min_side, entry.native_size),
        "max_side": family.max_side,
        "default_steps": entry.default_steps or usual.steps,
        "default_guidance_scale": usual.guidance_scale if guidance is None else guidance,
        "default_scheduler": entry.default_scheduler or usual.scheduler,
        "components": list(entry.components),
        "is_default": is_default,
    }


def _whole(entry: Entry) -> dict[str, Any]:
    # Below the entry's own place: where that is on a server is no client's business.
    files = [FileView(path=each.path, bytes=each.bytes, sha256=each.sha256) for each in entry.files]
    return {"files": files, "metadata": entry.metadata}
