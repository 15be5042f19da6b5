"""Weights of annotators: what lies in a folder called `annotators`, each file or folder named after its preprocessor."""

from pathlib import Path
from typing import Final

from models_registry.entries import ANY_FAMILY, Kind
from models_registry.findings import Findings, component, of_one_file
from models_registry.reading.bounded_files import Reads
from models_registry.reading.safetensors_header import Header, read_header

_FOLDER: Final = "annotators"


def is_annotators(folder: Path) -> bool:
    """Tell whether the weights of annotators lie in a folder."""
    return folder.name.casefold() == _FOLDER


def from_file(header: Header, _: Reads) -> Findings | None:
    """Read the only network of an annotator, whatever it looks like; None outside of `annotators`."""
    if not is_annotators(header.path.parent):
        return None
    return Findings(
        kind=Kind.PREPROCESSOR,
        family=ANY_FAMILY,
        weights=of_one_file(header),
        components=(component("weights", header.tensors.values()),),
    )


def from_folder(folder: Path, reads: Reads) -> Findings:
    """Read the networks of an annotator that has several."""
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() == ".safetensors")
    headers = {path.name: read_header(path, reads) for path in files}
    return Findings(
        kind=Kind.PREPROCESSOR,
        family=ANY_FAMILY,
        weights=headers,
        components=tuple(component(Path(name).stem, header.tensors.values()) for name, header in headers.items()),
    )
