"""Tell one set of weights from another without reading all of it."""

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from models_registry.reading.bounded_files import BoundedFile, Reads, open_bounded
from models_registry.reading.hashing import Digests, digest_weights, hash_bytes, parts_of
from models_registry.reading.safetensors_header import Header

#: Weights up to this size are read whole.
WHOLE_BYTES = 8 * 1024 * 1024
#: Of larger ones both ends are read …
END_BYTES = 64 * 1024
#: … and, because a merge may leave the layers at both ends as they were, some places between.
SAMPLES = 16
SAMPLE_BYTES = 4 * 1024


class Contents(NamedTuple):
    """Tell what the files of a model hold."""

    #: 64 hex digits that depend on names, sizes and contents alone, never on paths or times.
    fingerprint: str
    #: Every file that was looked at; its hashes where that meant reading it whole, so that nobody reads it a second time.
    files: Mapping[Path, Digests | None]


def read_contents(weights: Mapping[str, Header], others: Mapping[str, Path], reads: Reads) -> Contents:
    """Look at the files of a model, raising `NotANumber` for weights that were read whole and hold a NaN."""
    digest = hashlib.sha256()
    files: dict[Path, Digests | None] = {}
    for name, header in sorted(weights.items()):
        digest.update(f"{name}\0{header.file_bytes}\0{header.sha256}\0".encode())
        with open_bounded(header.path, reads) as file:
            if header.weight_bytes > WHOLE_BYTES:
                _update(digest, _samples(file, header.body_start))
                files[header.path] = None
            else:
                whole = file.read_at(0, header.file_bytes)
                digest.update(whole[header.body_start :])
                body = parts_of(header, whole[header.body_start :])
                files[header.path] = digest_weights(header, whole[: header.body_start], body)
    for name, path in sorted(others.items()):
        with open_bounded(path, reads) as file:
            digest.update(f"{name}\0{file.size}\0".encode())
            if file.size > WHOLE_BYTES:
                _update(digest, _samples(file, 0))
                files[path] = None
            else:
                data = file.read_at(0, file.size)
                digest.update(data)
                files[path] = hash_bytes(data)
    return Contents(digest.hexdigest(), files)


def _update(digest: "hashlib._Hash", parts: Iterable[bytes]) -> None:
    for part in parts:
        digest.update(part)


def _samples(file: BoundedFile, start: int) -> Iterable[bytes]:
    length = file.size - start
    yield file.read_at(start, END_BYTES)
    for sample in range(1, SAMPLES + 1):
        yield file.read_at(start + length * sample // (SAMPLES + 1), SAMPLE_BYTES)
    yield file.read_at(file.size - END_BYTES, END_BYTES)
