"""What a person may call a model or a version; pure."""

from typing import Annotated, Final

from pydantic import AfterValidator, StringConstraints
from pydantic_core import PydanticCustomError

from models_registry.versions import MAX_VERSION

LONGEST_NAME: Final = 150
#: These mean something else in a path, in a prompt, or before a version.
_TAKEN: Final = frozenset("/\\:<>@")


def _plain(text: str) -> str:
    if _TAKEN & set(text) or text.startswith(".") or text != text.strip() or not text.isprintable():
        raise PydanticCustomError(
            "name_unusable",
            "Must not have spaces around it, begin with a full stop, or hold /, \\, :, <, >, @ or what is not printable",
        )
    return text


ModelName = Annotated[str, StringConstraints(min_length=1, max_length=LONGEST_NAME), AfterValidator(_plain)]
ModelVersion = Annotated[str, StringConstraints(max_length=MAX_VERSION), AfterValidator(_plain)]
