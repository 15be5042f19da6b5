"""An entry of the library with everything that is known and said of it; pure."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from models_registry.entries import Component, Kind, Layout, ModelEntry

Visibility = Literal["public", "private"]


@dataclass(frozen=True)
class Reader:
    """Who looks: an entry that is neither public, nor theirs, nor open to their key does not exist for them."""

    owner: str
    #: Id of their API key; None where no key was used.
    key: str | None = None
    #: Everything exists for them.
    is_admin: bool = False


#: The fleet itself, for which everything exists.
FLEET = Reader("", is_admin=True)


class File(BaseModel):
    """One file of an entry."""

    model_config = ConfigDict(frozen=True)

    #: Below the entry's folder; of an entry that is one file, below the folder that it lies in.
    path: str
    bytes: int
    mtime_ns: int | None = None
    sha256: str | None = None


class Preview(BaseModel):
    """One picture that shows what an entry does."""

    model_config = ConfigDict(frozen=True)

    index: int
    sha256: str
    mime: str
    width: int
    height: int
    bytes: int


class Marks(BaseModel):
    """What one owner thinks of an entry, and its place in the stack that the owner composes with."""

    model_config = ConfigDict(frozen=True)

    favourite: bool = False
    rating: int | None = None
    active: bool = False
    position: int | None = None
    weight: float | None = None


class Entry(BaseModel):
    """One entry of the library."""

    model_config = ConfigDict(frozen=True)

    id: UUID
    #: What a job calls it.
    ref: str
    name: str
    version: str
    kind: Kind
    layout: Layout
    family: str
    variant: str
    path: Path
    fingerprint: str
    components: tuple[Component, ...]
    bytes: int
    native_size: int
    latent_factor: int
    latent_channels: int
    text_width: int | None
    text_layers: int | None = None
    width: int | None = None
    scale: int | None
    rank: int | None
    vectors: int | None
    default_steps: int | None
    default_guidance_scale: float | None
    default_scheduler: str | None
    owner: str | None
    visibility: Visibility
    allowed_keys: tuple[str, ...] | None
    description: str
    licence: str
    source: str
    base_model: str
    tags: tuple[str, ...]
    trigger_words: tuple[str, ...]
    weight: float | None
    weight_min: float | None
    weight_max: float | None
    sha256: str | None
    hashes: dict[str, str]
    #: Empty, like `metadata`, where a list left it out.
    files: tuple[File, ...] = ()
    metadata: dict[str, Any] = Field(default_factory=dict)
    created_at: datetime
    updated_at: datetime
    missing_since: datetime | None
    stored_at: datetime | None
    aliases: tuple[str, ...] = ()
    previews: tuple[Preview, ...] = ()
    #: Of whoever asked.
    marks: Marks = Marks()

    @property
    def model(self) -> ModelEntry:
        """Return what a job needs of it."""
        named = {name: getattr(self, name) for name in ModelEntry.model_fields if name != "name"}
        return ModelEntry(name=self.ref, **named)


@dataclass(frozen=True)
class Facts:
    """What a new entry has beyond what its files say of how to draw with it."""

    owner: str | None = None
    visibility: Visibility = "public"
    #: Ids of API keys; None for all.
    allowed_keys: Sequence[str] | None = None
    description: str = ""
    licence: str = ""
    source: str = ""
    base_model: str = ""
    tags: Sequence[str] = ()
    trigger_words: Sequence[str] = ()
    weight: float | None = None
    weight_min: float | None = None
    weight_max: float | None = None
    sha256: str | None = None
    hashes: Mapping[str, str] = field(default_factory=dict)
    files: Sequence[File] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)
    stored_at: datetime | None = None
    aliases: Collection[str] = ()

    def values(self) -> dict[str, Any]:
        """Return every fact by its name."""
        return asdict(self)
