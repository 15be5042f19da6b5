"""What people send and read of recipes."""

from datetime import datetime
from typing import Annotated, Any, Final, Literal, Self
from uuid import UUID

from pydantic import BaseModel, Field, StringConstraints, field_validator, model_validator
from pydantic_core import PydanticCustomError

from broker_api.endpoints import Query
from jobs.contract import MAX_SEED, Side
from jobs.parts import MAX_STACK, Guidance, Hires, Lora, Name, PictureText, Prompt, Steps, Strict, Text
from models_registry.recipes.store import Visibility

MOST_LISTED: Final = 200
MOST_TAGS: Final = 50

Description = Annotated[Text, StringConstraints(max_length=10_000)]
Tag = Annotated[Text, StringConstraints(min_length=1, max_length=100, strip_whitespace=True)]
Tags = Annotated[list[Tag], Field(max_length=MOST_TAGS)]


class RecipeSettings(Strict):
    """How a recipe is drawn; what is left out the model decides."""

    width: Side | None = None
    height: Side | None = None
    steps: Steps | None = None
    guidance_scale: Guidance | None = None
    scheduler: Name | None = None
    schedule_type: Name | None = None
    clip_skip: int | None = Field(default=None, ge=1, le=12)
    seed: int | None = Field(default=None, ge=-1, le=MAX_SEED)
    num_images: int | None = Field(default=None, ge=1, le=64)
    vae: Name | None = None
    hires: Hires | None = None

    def given(self) -> dict[str, Any]:
        """Return what is not left out, as a request has it."""
        return self.model_dump(mode="json", exclude_none=True)


class CreateRecipe(Strict):
    """A recipe to keep: made by hand, or with `from_job` of what a job drew, where the fields sent count more."""

    name: Name | None = Field(default=None, description="Left out, the beginning of the prompt.")
    from_job: UUID | None = None
    picture: int = Field(default=0, ge=0, lt=2**15, description="Which picture of `from_job` shows it.")
    description: Description = ""
    tags: Tags = Field(default_factory=list)
    visibility: Visibility = "private"
    prompt: Prompt | None = Field(default=None, description="`<lora:name:weight>` in it joins `loras`.")
    negative_prompt: Prompt | None = None
    model: Name | None = None
    loras: list[Lora] | None = Field(default=None, max_length=MAX_STACK)
    settings: RecipeSettings | None = None
    preview: PictureText | None = None

    @model_validator(mode="after")
    def _draws_something(self) -> Self:
        if self.from_job is None and not (self.loras or self.prompt):
            raise PydanticCustomError(
                "recipe_empty", "A recipe needs `loras` or a `prompt`, or a job to take them from"
            )
        return self


class ChangeRecipe(Strict):
    """What to change; what is left out stays."""

    name: Name | None = None
    description: Description | None = None
    tags: Tags | None = None
    visibility: Visibility | None = None
    prompt: Prompt | None = None
    negative_prompt: Prompt | None = None
    model: Name | None = Field(default=None, description="null draws with whatever fits.")
    loras: list[Lora] | None = Field(default=None, max_length=MAX_STACK)
    settings: RecipeSettings | None = None
    preview: PictureText | None = Field(default=None, description="null takes it away.")

    @field_validator("name", "description", "tags", "visibility", "prompt", "negative_prompt", "loras", "settings")
    @classmethod
    def _is_given(cls, value: object) -> object:
        if value is None:
            raise PydanticCustomError("null_forbidden", "Must not be null")
        return value


class RecipeFromPicture(Strict):
    """A picture's file to read a recipe from."""

    image: PictureText
    name: Name | None = Field(default=None, description="Left out, the beginning of the prompt.")
    tags: Tags = Field(default_factory=list)
    visibility: Visibility = "private"
    dry_run: bool = Field(default=False, description="Only say what the picture tells: nothing is stored.")


class RecipeQuery(Query):
    """Which recipes to list."""

    q: Text | None = Field(
        default=None, min_length=1, max_length=200, description="Part of name, description or prompt."
    )
    tag: Tag | None = None
    own: bool = Field(default=False, description="Only one's own, without those that others share.")
    cursor: str | None = Field(default=None, max_length=200, description="`next_cursor` of the page before.")
    limit: int = Field(default=50, ge=1, le=MOST_LISTED)


class RecipeLoraView(BaseModel):
    """One LoRA of a recipe."""

    name: str = Field(description="As the recipe has it.")
    weight: float
    text_encoder_weight: float | None
    sha256: str | None = Field(description="Of its file, or the beginning of the hash that a picture named.")
    entry: UUID | None = Field(description="The entry here; null where it is missing.")
    ref: str | None = Field(description="What a job names it by here.")
    missing: bool


class PreviewView(BaseModel):
    """The picture that shows a recipe."""

    url: str
    mime: str
    width: int
    height: int
    bytes: int


class RecipeView(BaseModel):
    """A recipe."""

    id: UUID
    owner: str
    name: str
    visibility: Literal["public", "private"]
    description: str
    tags: list[str]
    prompt: str = Field(description="Without tags.")
    negative_prompt: str
    model: str | None
    model_missing: bool
    loras: list[RecipeLoraView]
    settings: dict[str, Any]
    source: str = Field(description="`job:<id>/<n>`, `picture`, `archive`; empty for what was made by hand.")
    preview: PreviewView | None
    created_at: datetime
    changed_at: datetime


class RecipePage(BaseModel):
    """A page of recipes, newest first."""

    items: list[RecipeView]
    next_cursor: str | None


class RecipeDraft(BaseModel):
    """What a picture tells; nothing was stored."""

    name: str
    prompt: str
    negative_prompt: str
    model: str | None
    model_missing: bool
    loras: list[RecipeLoraView]
    settings: dict[str, Any]
