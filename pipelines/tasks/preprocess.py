"""How a picture is turned into a control picture, as the tasks ask for it."""

from collections.abc import Mapping
from typing import Protocol

from jobs.errors import DrawingFailed
from pipelines.pictures import Pixels


class Preprocess(Protocol):
    """Turn a picture into a control picture of the same size."""

    def __call__(self, name: str, picture: Pixels, options: Mapping[str, float], /) -> Pixels:
        """Run the preprocessor of that name."""
        ...


def no_preprocessor(name: str, _picture: Pixels, _options: Mapping[str, float], /) -> Pixels:
    """Refuse, where a family is used without preprocessors."""
    raise DrawingFailed(f"no preprocessor {name} here")
