"""What recommendations are asked by and what they look like."""

from typing import Annotated, Literal, Self
from uuid import UUID

from pydantic import AfterValidator, BaseModel, Field, model_validator
from pydantic_core import PydanticCustomError

from broker_api.endpoints import Query
from jobs.parts import Name, Strict, Text
from models_registry.likeness.scores import SHARES, SOURCES, Source

LONGEST_WAIT_SECONDS = 60
MOST = 50
LONGEST_PROMPT = 4000


def _known_sources(text: str) -> str:
    unknown = set(text.split(",")) - set(SOURCES)
    if unknown:
        raise PydanticCustomError("source_unknown", "Sources are {sources}", {"sources": ", ".join(SOURCES)})
    return text


SourceList = Annotated[
    Text,
    Field(max_length=40, pattern="^[a-z]+(,[a-z]+)*$", description="Only these: `weights,text,use`."),
    AfterValidator(_known_sources),
]


class AdviceQuery(Query):
    """How to recommend."""

    sources: SourceList | None = None
    limit: int = Field(default=10, ge=1, le=MOST)


class AdapterQuery(AdviceQuery):
    """Which adapter to start from."""

    adapter: Name = Field(description="Its id, or what a job calls it.")
    wait: float = Field(
        default=0, ge=0, le=LONGEST_WAIT_SECONDS, description="Wait for the fleet to look at models, seconds at most."
    )


class PromptQuery(AdviceQuery):
    """Which prompt to recommend for."""

    prompt: Annotated[Text, Field(min_length=1, max_length=LONGEST_PROMPT)]
    model: Name | None = Field(default=None, description="Only what fits this checkpoint.")
    kind: Literal["lora", "embedding"] = "lora"
    wait: float = Field(
        default=3, ge=0, le=LONGEST_WAIT_SECONDS, description="Wait for the prompt to be read, seconds at most."
    )


class Adapter(BaseModel):
    """An entry that is recommended."""

    id: UUID
    ref: str = Field(description="What a job calls it.")
    name: str
    version: str
    kind: str
    family: str
    trigger_words: list[str]
    tags: list[str]
    weight: float | None = Field(description="The strength its entry recommends.")


class SourceOpinion(BaseModel):
    """What one source says of an entry."""

    score: float = Field(description="0 to 1.")
    why: str
    exact: bool = Field(description="False for an estimate, which an exact figure replaces once the fleet has it.")


class Recommendation(BaseModel):
    """One entry, how well it fits, and why."""

    adapter: Adapter
    score: float = Field(description="Mean of the sources' scores by their shares, 0 to 1.")
    why: str
    sources: dict[Source, SourceOpinion]


class SourceReport(BaseModel):
    """What became of one source."""

    state: Literal["used", "off", "waiting", "unavailable"] = Field(
        description="`waiting`: the fleet has been asked, so later answers know more."
    )
    share: float
    why: str


class Recommendations(BaseModel):
    """Entries, the best first."""

    items: list[Recommendation]
    next_cursor: str | None = None
    sources: dict[Source, SourceReport]


Share = Annotated[float, Field(ge=0, le=1)]


class Shares(Strict):
    """How much each source says; 0 switches it off."""

    weights: Share = Field(default=SHARES["weights"], description="What LoRAs do to the weights.")
    text: Share = Field(default=SHARES["text"], description="What entries say of themselves.")
    use: Share = Field(default=SHARES["use"], description="What jobs and people did with them.")

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if not (self.weights or self.text or self.use):
            raise PydanticCustomError("sources_off", "At least one source must have a share above 0")
        return self


class PreferencesBody(Strict):
    """How its owner wants to be advised."""

    sources: Shares = Shares()
    hidden: list[UUID] = Field(default_factory=list, max_length=1000, description="Never recommended.")


class Feedback(Strict):
    """Whether a recommendation helped."""

    adapter: Name = Field(description="Its id, or what a job calls it.")
    helpful: bool
    about: Annotated[Text, Field(max_length=LONGEST_PROMPT)] = Field(
        default="", description="The prompt, or the adapter, it was recommended for."
    )


class FeedbackTaken(BaseModel):
    """What was understood."""

    adapter: UUID
    helpful: bool
