"""What a key may set for all its requests (`/options`), and one request for itself (`override_settings`); pure."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from jobs.parts import Name

PictureFormat = Literal["png", "jpeg", "webp"]
_SPELLINGS: Final[Mapping[str, PictureFormat]] = MappingProxyType(
    {"png": "png", "jpg": "jpeg", "jpeg": "jpeg", "webp": "webp"}
)
#: Names that mean "none of them".
NOTHING: Final = frozenset({"", "none", "automatic", "default"})


def _spelled(value: object) -> object:
    return _SPELLINGS.get(value.lower().lstrip("."), value) if isinstance(value, str) else value


def _none_for_nothing(value: object) -> object:
    return None if isinstance(value, str) and value.strip().lower() in NOTHING else value


class Choices(BaseModel):
    """The settings that mean something here; None leaves the choice to the fleet."""

    model_config = ConfigDict(extra="ignore", frozen=True, protected_namespaces=())

    sd_model_checkpoint: Annotated[Name | None, BeforeValidator(_none_for_nothing)] = None
    sd_vae: Annotated[Name | None, BeforeValidator(_none_for_nothing)] = None
    samples_format: Annotated[PictureFormat | None, BeforeValidator(_spelled)] = None
    jpeg_quality: int | None = Field(default=None, ge=1, le=100)
    enable_pnginfo: bool | None = None
    CLIP_stop_at_last_layers: int | None = Field(default=None, ge=1, le=12)

    def over(self, others: "Choices") -> "Choices":
        """Return these choices, and the others' where these say nothing."""
        return others.model_copy(update=self.model_dump(exclude_none=True))

    def said(self) -> dict[str, Any]:
        """Return what was chosen, for storing."""
        return self.model_dump(exclude_none=True)


SETTABLE: Final = frozenset(Choices.model_fields)
