"""What can be made of a picture before a ControlNet sees it: names and options; pure.

Weights of a preprocessor are a `Kind.PREPROCESSOR` entry of the same name.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple


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


#: The shorter side that a network sees a picture at, pixels.
_RESOLUTION: Final = {"resolution": OptionFacts(512, 64, 2048)}


def _weightless(name: str, title: str, **options: OptionFacts) -> PreprocessorFacts:
    return PreprocessorFacts(name, title, MappingProxyType(options), needs_weights=False)


def _network(name: str, title: str, **options: OptionFacts) -> PreprocessorFacts:
    return PreprocessorFacts(name, title, MappingProxyType(_RESOLUTION | options), needs_weights=True)


PREPROCESSORS: Mapping[str, PreprocessorFacts] = MappingProxyType(
    {
        facts.name: facts
        for facts in (
            _weightless(
                "canny",
                "Canny edges",
                low_threshold=OptionFacts(100, 0, 1000),
                high_threshold=OptionFacts(200, 0, 1000),
            ),
            _weightless("invert", "Inverted colours"),
            _weightless("threshold", "Black and white by brightness", threshold=OptionFacts(127, 0, 255)),
            _weightless("blur", "Blurred, for tile ControlNets", sigma=OptionFacts(9, 0.1, 64)),
            _weightless("scribble_xdog", "Scribble by difference of Gaussians", threshold=OptionFacts(32, 1, 64)),
            _weightless("shuffle", "Shuffled content"),
            _network("softedge_hed", "Soft edges (HED)"),
            _network("scribble_hed", "Scribble (HED)"),
            _network("softedge_pidinet", "Soft edges (PiDiNet)"),
            _network("scribble_pidinet", "Scribble (PiDiNet)"),
            _network("softedge_teed", "Soft edges (TEED)"),
            _network(
                "mlsd",
                "Straight lines (M-LSD)",
                score_threshold=OptionFacts(0.1, 0, 1),
                distance_threshold=OptionFacts(0.1, 0, 20),
            ),
            _network("lineart_realistic", "Line art"),
            _network("lineart_coarse", "Line art, coarse"),
            _network("lineart_anime", "Line art of drawings"),
            _network("depth_midas", "Depth (MiDaS)"),
            _network("normal_bae", "Normals (BAE)"),
            _network("openpose", "Pose (OpenPose, body)"),
        )
    }
)
