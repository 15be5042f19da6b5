"""How a query names labels: `project:stars,set:a`; pure."""

from typing import Annotated

from pydantic import Field

from jobs.errors import RequestRefused
from jobs.parts import Text

Labels = Annotated[Text, Field(max_length=2000, description="`name:value`, several with commas; all must be there.")]


class LabelsInvalid(RequestRefused):
    """The labels of a query are not `name:value`, separated by commas."""

    code = "labels_invalid"


def parse_labels(text: str) -> dict[str, str]:
    """Read labels, raising `LabelsInvalid`; a value may hold colons."""
    found: dict[str, str] = {}
    for part in text.split(","):
        name, colon, value = part.strip().partition(":")
        if not (name and colon):
            raise LabelsInvalid("Labels are written `name:value`, separated by commas.", field="labels")
        found[name] = value
    return found
