"""Why a file is no model that can be taken in: one refusal for each of the registry's codes."""

from collections.abc import Iterator
from types import MappingProxyType
from typing import Final

from broker_api.library.refusals import NameTaken
from broker_api.refusals import HttpRefused
from models_registry.refusals import ModelRefused

_UNUSABLE: Final = 422


def _all(kind: type[ModelRefused]) -> Iterator[type[ModelRefused]]:
    yield kind
    for each in kind.__subclasses__():
        yield from _all(each)


def _http(kind: type[ModelRefused]) -> type[HttpRefused]:
    if kind.code == NameTaken.code:
        return NameTaken
    return type(kind.__name__, (HttpRefused,), {"__doc__": kind.__doc__, "code": kind.code, "status": _UNUSABLE})


_BY_CODE: Final = MappingProxyType({kind.code: _http(kind) for kind in _all(ModelRefused)})
#: For the route table.
FILE_REFUSALS: Final = tuple(_BY_CODE.values())


def refused(refusal: ModelRefused) -> HttpRefused:
    """Return the answer to a file that is refused; where it lay for the moment is nobody's business."""
    return _BY_CODE[refusal.code](f"The file {refusal.reason}.", field="file")
