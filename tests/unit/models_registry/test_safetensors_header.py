"""The header of a safetensors file is checked before any library opens the file."""

import io
import json
import os
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save, save_file

from models_registry.reading.bounded_files import Reads
from models_registry.reading.safetensors_header import MAX_METADATA_BYTES, MAX_TENSORS, SMALL_HEADER_BYTES, read_header
from models_registry.refusals import (
    DtypeRefused,
    FileRefused,
    FileUnreadable,
    HeaderInvalid,
    HeaderTooLarge,
    HeaderTruncated,
    MetadataTooLarge,
    NotSafetensors,
    OffsetsInvalid,
    PickleRefused,
    RankRefused,
    TensorEmpty,
    TooManyTensors,
)

ONE = {"a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}}


def write(path: Path, header: Any, body: int = 24) -> Path:
    """Write a file with this header (bytes, or JSON to be) and a body of so many zeros."""
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(raw)) + raw + bytes(body))
    return path


def test_header_tells_what_the_library_wrote(tmp_path: Path) -> None:
    """Names, shapes, formats, sizes and metadata are those that the library saved."""
    path = tmp_path / "a.safetensors"
    tensors: dict[str, np.ndarray[Any, Any]] = {"big": np.zeros((4, 5), np.float16), "small": np.zeros(3, np.float32)}
    save_file(tensors, path, metadata={"format": "np"})
    header = read_header(path, Reads())
    assert {name: tensor.shape for name, tensor in header.tensors.items()} == {"big": (4, 5), "small": (3,)}
    assert (header.parameters, header.weight_bytes, header.dtype) == (23, 52, "F16")
    assert header.metadata == {"format": "np"}


def test_header_of_a_large_file_takes_three_reads(tmp_path: Path) -> None:
    """Only the header is read, however large the file is."""
    path = write(
        tmp_path / "a.safetensors", {"a": {"dtype": "U8", "shape": [2**30], "data_offsets": [0, 2**30]}}, body=0
    )
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size + 2**30)
    reads = Reads()
    read_header(path, reads)
    assert (reads.files, reads.reads <= 3, reads.bytes <= 200) == (1, True, True)


BROKEN: dict[str, tuple[Any, int, type[FileRefused]]] = {
    "not JSON": (b"{" + b"x" * 40, 0, HeaderInvalid),
    "not UTF-8": (b'{"\xff": 1}', 0, HeaderInvalid),
    "an array": (b"[1]", 0, NotSafetensors),
    "no tensors": ({"__metadata__": {"a": "b"}}, 0, HeaderInvalid),
    "metadata of numbers": (ONE | {"__metadata__": {"a": 1}}, 24, HeaderInvalid),
    "metadata above a megabyte": (ONE | {"__metadata__": {"a": "x" * (MAX_METADATA_BYTES + 1)}}, 24, MetadataTooLarge),
    "nesting without end": (b'{"a":' + b"[" * 100_000, 0, HeaderInvalid),
    "a key twice": (
        b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}',
        1,
        HeaderInvalid,
    ),
    "NaN": (b'{"a":{"dtype":"U8","shape":[NaN],"data_offsets":[0,1]}}', 1, HeaderInvalid),
    "a field more": ({"a": ONE["a"] | {"code": "x"}}, 24, HeaderInvalid),
    "a field less": ({"a": {"dtype": "F32", "shape": [6]}}, 24, HeaderInvalid),
    "a tensor that is text": ({"a": "x"}, 24, HeaderInvalid),
    "a name of 1 KB": ({"a" * 1024: ONE["a"]}, 24, HeaderInvalid),
    "unknown dtype": ({"a": ONE["a"] | {"dtype": "PICKLE"}}, 24, DtypeRefused),
    "dtype of another type": ({"a": ONE["a"] | {"dtype": ["F32"]}}, 24, DtypeRefused),
    "six dimensions": ({"a": ONE["a"] | {"shape": [1, 1, 1, 1, 2, 3]}}, 24, RankRefused),
    "negative shape": ({"a": ONE["a"] | {"shape": [-2, -3]}}, 24, HeaderInvalid),
    "shape of truths": ({"a": ONE["a"] | {"shape": [True, 6]}}, 24, HeaderInvalid),
    "shape beyond numbers": (
        b'{"a":{"dtype":"F32","shape":[' + b"9" * 4_000 + b'],"data_offsets":[0,24]}}',
        24,
        HeaderInvalid,
    ),
    "shape beyond digits": (
        b'{"a":{"dtype":"F32","shape":[' + b"9" * 9_000 + b'],"data_offsets":[0,24]}}',
        24,
        HeaderInvalid,
    ),
    "empty tensor": (ONE | {"b": {"dtype": "F32", "shape": [0], "data_offsets": [24, 24]}}, 24, TensorEmpty),
    "size and shape differ": ({"a": ONE["a"] | {"shape": [2, 4]}}, 24, OffsetsInvalid),
    "three offsets": ({"a": ONE["a"] | {"data_offsets": [0, 12, 24]}}, 24, HeaderInvalid),
    "offsets backwards": ({"a": ONE["a"] | {"data_offsets": [24, 0]}}, 24, OffsetsInvalid),
    "overlap": (ONE | {"b": {"dtype": "F32", "shape": [2], "data_offsets": [16, 24]}}, 24, OffsetsInvalid),
    "gap": (ONE | {"b": {"dtype": "F32", "shape": [2], "data_offsets": [32, 40]}}, 40, OffsetsInvalid),
    "body too short": (ONE, 20, OffsetsInvalid),
    "body too long": (ONE, 28, OffsetsInvalid),
}


@pytest.mark.parametrize("name", BROKEN)
def test_header_that_breaks_a_rule_is_refused(tmp_path: Path, name: str) -> None:
    """Each broken header is refused with its own code, in few small reads."""
    header, body, expected = BROKEN[name]
    path = write(tmp_path / "a.safetensors", header, body)
    reads = Reads()
    with pytest.raises(FileRefused) as caught:
        read_header(path, reads)
    assert (type(caught.value), caught.value.path) == (expected, path)
    assert len(caught.value.reason) < 400
    assert reads.reads <= 3
    assert reads.bytes <= SMALL_HEADER_BYTES


def test_header_larger_than_its_file_needs_is_never_read(tmp_path: Path) -> None:
    """A header bomb costs nine bytes of reading; the same header is fine in a file a hundred times its size."""
    padded = json.dumps(ONE).encode().ljust(SMALL_HEADER_BYTES + 1)
    path = write(tmp_path / "a.safetensors", padded)
    reads = Reads()
    with pytest.raises(HeaderTooLarge):
        read_header(path, reads)
    assert reads.bytes == 9
    size = 200 * SMALL_HEADER_BYTES
    raw = (
        json.dumps({"a": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}})
        .encode()
        .ljust(SMALL_HEADER_BYTES + 1)
    )
    write(path, raw, 0)
    with path.open("r+b") as file:
        file.truncate(8 + len(raw) + size)
    assert read_header(path, reads).parameters == size


def test_header_of_more_than_eight_megabytes_is_refused_in_any_file(tmp_path: Path) -> None:
    """The upper limit holds where one hundredth of the file would be more."""
    path = tmp_path / "a.safetensors"
    path.write_bytes(struct.pack("<Q", 9 * 1024 * 1024) + b"{")
    with path.open("r+b") as file:
        file.truncate(2**31)
    with pytest.raises(HeaderTooLarge):
        read_header(path, Reads())


def test_header_with_too_many_tensors_is_refused(tmp_path: Path) -> None:
    """One tensor above the limit is too many, whether or not its name is written plainly."""
    for key in ("data_offsets", "data\\u005foffsets"):
        entries = (f'"{n}":{{"dtype":"U8","shape":[1],"{key}":[{n},{n + 1}]}}' for n in range(MAX_TENSORS + 1))
        raw = ("{" + ",".join(entries) + "}").encode()
        # The file is made large enough for its header to be allowed; nothing of it is read.
        path = write(tmp_path / "a.safetensors", raw, 0)
        with path.open("r+b") as file:
            file.truncate(len(raw) * 101)
        with pytest.raises(TooManyTensors):
            read_header(path, Reads())


def test_header_bomb_is_refused_before_it_is_parsed(tmp_path: Path) -> None:
    """Too many tensors are counted, not parsed: even a header that is not JSON is refused for their number."""
    raw = b"{" + b'"data_offsets"' * (MAX_TENSORS + 1)
    path = write(tmp_path / "a.safetensors", raw, 0)
    with path.open("r+b") as file:
        file.truncate(len(raw) * 101)
    with pytest.raises(TooManyTensors):
        read_header(path, Reads())


def test_truncated_file_is_refused(tmp_path: Path) -> None:
    """A file that was cut anywhere is refused, whichever rule notices it."""
    whole = save({"a": np.zeros((2, 3), np.float32)})
    path = tmp_path / "a.safetensors"
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises((NotSafetensors, HeaderTruncated, OffsetsInvalid)):
            read_header(path, Reads())


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_renamed_pickle_is_called_a_pickle(tmp_path: Path, protocol: int) -> None:
    """A pickle is told by its content, not by its name."""
    path = tmp_path / "a.safetensors"
    path.write_bytes(pickle.dumps({"weights": list(range(100))}, protocol=protocol))
    with pytest.raises(PickleRefused):
        read_header(path, Reads())


def test_renamed_archive_is_called_a_pickle(tmp_path: Path) -> None:
    """A PyTorch checkpoint is a ZIP archive with a pickle in it."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("archive/data.pkl", b"x")
    path = tmp_path / "a.safetensors"
    path.write_bytes(archive.getvalue())
    with pytest.raises(PickleRefused):
        read_header(path, Reads())


def test_header_length_that_looks_like_a_pickle_is_read(tmp_path: Path) -> None:
    """A good header of 0x10280 bytes begins with the bytes of a pickle, and is no pickle."""
    path = write(tmp_path / "a.safetensors", json.dumps(ONE).encode().ljust(0x10280))
    assert path.read_bytes()[:3] == b"\x80\x02\x01"
    assert read_header(path, Reads()).parameters == 6


def test_what_is_no_regular_file_is_refused_at_once(tmp_path: Path) -> None:
    """A named pipe, a folder and a missing file are refused without waiting for a writer."""
    pipe = tmp_path / "pipe.safetensors"
    os.mkfifo(pipe)
    for path in (pipe, tmp_path, tmp_path / "missing.safetensors"):
        with pytest.raises(FileUnreadable):
            read_header(path, Reads())


@given(st.binary(max_size=300))
def test_any_bytes_are_refused_by_name(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    """No content makes the reader fail in another way than by refusing."""
    path = tmp_path_factory.getbasetemp() / "any.safetensors"
    path.write_bytes(content)
    with pytest.raises(FileRefused):
        read_header(path, Reads())


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_any_json_is_refused_by_name(tmp_path_factory: pytest.TempPathFactory, value: Any) -> None:
    """No JSON in a tensor's place makes the reader fail in another way than by refusing."""
    path = write(
        tmp_path_factory.getbasetemp() / "json.safetensors",
        {"a": value, "b": {"dtype": value, "shape": value, "data_offsets": value}},
        0,
    )
    with pytest.raises(FileRefused):
        read_header(path, Reads())
