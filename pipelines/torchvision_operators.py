"""Let torchvision be imported beside a torch it was not compiled for.

The package index pairs a CPU build of torch with a torchvision compiled for CUDA. Its library does not load there, and then its import
fails where it describes operators that the library would have brought ("operator torchvision::nms does not exist"). Nothing here calls
them: spandrel and controlnet-aux want torchvision's image transforms, and transformers imports it wherever it is installed.
"""

import importlib.util
from importlib.machinery import PathFinder
from pathlib import Path

import torch

_OPERATORS = ("nms", "qnms")
_ARGUMENTS = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
#: Definitions live as long as this object.
_LIBRARIES: list[torch.library.Library] = []


def define_missing_operators() -> bool:
    """Declare what torchvision's own library fails to bring; return whether that was needed. Call it before torchvision is imported."""
    if _LIBRARIES or importlib.util.find_spec("torchvision") is None or _own_library_loads():
        return False
    library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    for operator in _OPERATORS:
        # Another program around us may have declared it for itself.
        if not hasattr(torch.ops.torchvision, operator):
            library.define(f"{operator}{_ARGUMENTS}")  # type: ignore[no-untyped-call]
    _LIBRARIES.append(library)
    return True


def _own_library_loads() -> bool:
    """Tell whether torchvision's compiled library fits this torch, as its own import tries it."""
    # Found by path: asking for `torchvision._C` would import torchvision.
    found = importlib.util.find_spec("torchvision")
    folders = list(found.submodule_search_locations or []) if found is not None else []
    spec = PathFinder.find_spec("_C", folders)
    if spec is None or spec.origin is None:
        return False
    try:
        torch.ops.load_library(Path(spec.origin))  # type: ignore[no-untyped-call]
    except (OSError, RuntimeError):
        return False
    return True
