"""Safetensors files that have names and shapes, and zeros for numbers: all that a registry looks at."""

import json
import math
from collections.abc import Mapping
from pathlib import Path

Shapes = Mapping[str, tuple[int, ...]]


def write_tensors(path: Path, shapes: Shapes, *, dtype: str = "F16", metadata: Mapping[str, str] | None = None) -> Path:
    """Write a file of these shapes, its body a hole, and return its path."""
    size = {"F16": 2, "F32": 4, "I64": 8}[dtype]
    header: dict[str, object] = {} if metadata is None else {"__metadata__": dict(metadata)}
    offset = 0
    for name, shape in shapes.items():
        end = offset + math.prod(shape) * size
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [offset, end]}
        offset = end
    raw = json.dumps(header).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(len(raw).to_bytes(8, "little") + raw)
        file.truncate(8 + len(raw) + offset)
    return path
