"""What an import did, or would do; pure."""

from typing import Literal
from uuid import UUID

from pydantic import BaseModel, Field

Conflict = Literal["skip", "rename", "replace"]
Action = Literal["created", "renamed", "replaced", "skipped", "refused"]


class ImportedEntry(BaseModel):
    """What becomes of one entry."""

    kind: str
    ref: str = Field(description="As the archive has it.")
    action: Action
    as_ref: str | None = Field(default=None, description="What a job names it by here.")
    id: UUID | None = None
    files: Literal["included", "here", "away"] | None = Field(
        default=None, description="Where its files are: in the archive, here already, or nowhere that is known."
    )
    code: str | None = None
    message: str | None = None


class ImportedRecipe(BaseModel):
    """What becomes of one recipe."""

    name: str
    action: Action
    as_name: str | None = None
    id: UUID | None = None
    message: str | None = None


class ImportReport(BaseModel):
    """What an import did, or with a dry run would do."""

    dry_run: bool
    entries: list[ImportedEntry] = Field(default_factory=list)
    recipes: list[ImportedRecipe] = Field(default_factory=list)
    previews: int = 0
    warnings: list[str] = Field(default_factory=list)
