"""What can be made of a picture before a ControlNet sees it: names and options; pure."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple


class OptionFacts(NamedTuple):
    """State an option's default and bounds."""

    default: float
    low: float
    high: float


class PreprocessorFacts(NamedTuple):
    """State what one preprocessor is called and takes."""

    name: str
    title: str
    options: Mapping[str, OptionFacts]
    needs_weights: bool


PREPROCESSORS: Mapping[str, PreprocessorFacts] = MappingProxyType(
    {
        "canny": PreprocessorFacts(
            name="canny",
            title="Canny edges",
            options=MappingProxyType(
                {"low_threshold": OptionFacts(100, 0, 1000), "high_threshold": OptionFacts(200, 0, 1000)}
            ),
            needs_weights=False,
        ),
    }
)
