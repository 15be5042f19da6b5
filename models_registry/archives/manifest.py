"""What an archive says of itself; pure."""

import re
from datetime import datetime
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

MANIFEST: Final = "manifest.json"
ENTRIES: Final = "entries.jsonl"
RECIPES: Final = "recipes.jsonl"
#: Grows when an older version could no longer understand an archive.
SCHEMA: Final = 1

#: Names that members may have; the last segment of pictures and files is their SHA-256.
MEMBER: Final = re.compile(
    r"manifest\.json|entries\.jsonl|recipes\.jsonl|tables/[a-z_]{1,60}\.jsonl|(previews|files)/[0-9a-f]{64}"
)
_CONTENT: Final = re.compile(r"(?:previews|files)/([0-9a-f]{64})")

Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Files = Literal["include", "reference"]


class MemberFacts(BaseModel):
    """One member."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    bytes: int = Field(ge=0)
    sha256: Digest


class Manifest(BaseModel):
    """The last member of an archive, which lists the others."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    product: Literal["imagefleet"] = "imagefleet"
    schema_version: int = Field(ge=1)
    kind: Literal["export", "backup"]
    made_at: datetime
    files: Files
    entries: int = Field(ge=0)
    recipes: int = Field(ge=0)
    #: Names of entries whose files were away, so that they are not included although they should be.
    without_files: tuple[str, ...] = ()
    members: tuple[MemberFacts, ...]


def file_member(sha256: str) -> str:
    """Return the name of the member that is a file of this SHA-256."""
    return f"files/{sha256}"


def preview_member(sha256: str) -> str:
    """Return the name of the member that is a preview of this SHA-256."""
    return f"previews/{sha256}"


def table_member(table: str) -> str:
    """Return the name of the member that holds the rows of a table."""
    return f"tables/{table}.jsonl"


def digest_of(member: str) -> str | None:
    """Return the SHA-256 that a member is named after; None for one that is not."""
    found = _CONTENT.fullmatch(member)
    return found[1] if found else None
