"""What the doors of entries are given."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, StringConstraints

from broker_api.endpoints import Query
from broker_api.library.entry_refusals import WeightsInvalid
from jobs.parts import Name, Strict, Text
from models_registry.records import Visibility
from models_registry.versions import MAX_VERSION

_LONGEST_TEXT = 20_000
_HEAVIEST = 10.0

Tag = Annotated[Text, StringConstraints(min_length=1, max_length=60, strip_whitespace=True)]
Words = Annotated[Text, StringConstraints(min_length=1, max_length=200, strip_whitespace=True)]
Long = Annotated[Text, StringConstraints(max_length=_LONGEST_TEXT)]
Short = Annotated[Text, StringConstraints(max_length=500)]
Version = Annotated[Text, StringConstraints(max_length=MAX_VERSION)]
Weight = Annotated[float, Field(ge=-_HEAVIEST, le=_HEAVIEST)]
Tags = Annotated[list[Tag], Field(max_length=100)]


class Said(Strict):
    """What people say of an entry."""

    description: Long = ""
    licence: Short = ""
    source: Short = ""
    base_model: Annotated[Text, StringConstraints(max_length=200)] = ""
    tags: Tags = Field(default_factory=list)
    trigger_words: Annotated[list[Words], Field(max_length=100)] = Field(default_factory=list)
    weight: Weight | None = Field(default=None, description="What a LoRA is used with that is named without a weight.")
    weight_min: Weight | None = None
    weight_max: Weight | None = None
    visibility: Visibility = Field(default="public", description="A private one is its owner's alone.")
    allowed_keys: Annotated[list[Name], Field(max_length=1000)] | None = Field(
        default=None, description="Ids of the API keys that may use it besides its owner; null for all."
    )
    aliases: Annotated[list[Name], Field(max_length=20)] = Field(
        default_factory=list, description="Other names, each of one entry of the kind alone."
    )

    def check_range(self, low: float | None, high: float | None) -> None:
        """Raise `WeightsInvalid` where the weights' range, with what it was before, ends before it begins."""
        low = self.weight_min if "weight_min" in self.model_fields_set else low
        high = self.weight_max if "weight_max" in self.model_fields_set else high
        if low is not None and high is not None and high < low:
            raise WeightsInvalid("The range of weights ends before it begins.", field="weight_max")


class ChangeEntry(Said):
    """What to change; what is left out stays."""

    name: Name = Field(default="unchanged", description="What jobs of the past call it by is not changed.")
    version: Version = ""


class AddEntry(Said):
    """A file or folder to take in where it lies."""

    path: Annotated[Text, StringConstraints(min_length=1, max_length=4000)] = Field(
        description="On the API's machine, below one of the fleet's model folders."
    )
    name: Name | None = Field(default=None, description="By default the file's.")
    version: Version = ""
    kind: Literal["checkpoint", "lora", "controlnet", "embedding", "vae", "upscaler", "preprocessor"] | None = None

    def facts(self) -> dict[str, Any]:
        """Return what is said of it, by the registry's names."""
        self.check_range(self.weight_min, self.weight_max)
        return {name: getattr(self, name) for name in Said.model_fields}


class SetMarks(Strict):
    """What the caller thinks of an entry; what is left out stays."""

    favourite: bool = False
    rating: int | None = Field(default=None, ge=1, le=5)
    active: bool = Field(default=False, description="Part of the stack that the caller composes with.")
    position: int | None = Field(
        default=None, ge=0, le=2**31 - 1, description="In the stack; by default behind the others."
    )
    weight: Weight | None = Field(default=None, description="In the stack; by default the entry's own.")


class CompatibilityQuery(Query):
    """Which checkpoint is meant."""

    model: Name | None = Field(default=None, description="By default every checkpoint, the first 200.")


class Fit(BaseModel):
    """Whether an adapter fits a checkpoint."""

    model: str
    fits: bool
    reason: str | None = Field(description="Why not.")


class CompatibilityPage(BaseModel):
    """What an adapter fits."""

    items: list[Fit]
    next_cursor: str | None = None
