"""Files that somebody made to break whoever reads them, each with the code it must be refused by."""

import gzip
import json
import os
import pickle
import struct
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

ONE: Final = {"dtype": "F32", "shape": [2, 16], "data_offsets": [0, 128]}
BODY: Final = bytes(128)
MIB: Final = 1024 * 1024
#: A whole number with more digits than Python reads.
_DIGITS: Final = "9" * 100_000


def framed(header: bytes | Mapping[str, Any], body: bytes = BODY) -> bytes:
    """Return a file of this header and body."""
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw)) + raw + body


def tensor(**changes: object) -> bytes:
    """Return a file whose one tensor is described in another way."""
    return framed({"emb_params": {**ONE, **changes}})


def many(count: int, shape: str = "[1]", size: int = 2) -> bytes:
    """Return a header of so many tensors."""
    described = (
        f'"t{n}":{{"dtype":"F16","shape":{shape},"data_offsets":[{n * size},{(n + 1) * size}]}}' for n in range(count)
    )
    return ("{" + ",".join(described) + "}").encode()


def two(first: tuple[int, int], second: tuple[int, int]) -> bytes:
    """Return a file of two tensors of 64 bytes that lie at these offsets."""
    shape = {"dtype": "F32", "shape": [16]}
    return framed({"a": {**shape, "data_offsets": list(first)}, "b": {**shape, "data_offsets": list(second)}})


def nan(dtype: str, value: bytes) -> bytes:
    """Return an embedding whose last number is none."""
    body = bytes(32 * len(value))[: -len(value)] + value
    return framed({"emb_params": {"dtype": dtype, "shape": [2, 16], "data_offsets": [0, len(body)]}}, body)


CONTENTS: Final[Mapping[str, tuple[str, Callable[[], bytes]]]] = {
    "nothing": ("not_safetensors", lambda: b""),
    "one byte": ("not_safetensors", lambda: b"\x08"),
    "a length alone": ("not_safetensors", lambda: struct.pack("<Q", 2)),
    "cut in the header": ("header_truncated", lambda: framed({"emb_params": ONE})[:40]),
    "cut in the body": ("offsets_invalid", lambda: framed({"emb_params": ONE})[:-1]),
    "no body": ("offsets_invalid", lambda: framed({"emb_params": ONE}, b"")),
    "more than its tensors": ("offsets_invalid", lambda: framed({"emb_params": ONE}, BODY + b"x")),
    "endless length": ("header_too_large", lambda: struct.pack("<Q", 2**63) + b"{" + BODY),
    "spaces": ("header_too_large", lambda: framed(b"{" + b" " * 3 * MIB + b"}")),
    "deep lists": ("header_invalid", lambda: framed(b'{"a":' + b"[" * MIB)),
    "deep objects": ("header_invalid", lambda: framed(b'{"a":' * 200_000)),
    "endless number": ("header_invalid", lambda: framed(f'{{"a":{_DIGITS}}}'.encode())),
    "a key twice": ("header_invalid", lambda: framed(b'{"a":1,"a":2}')),
    "no number": ("header_invalid", lambda: framed(b'{"a":NaN}')),
    "no end of a number": ("header_invalid", lambda: framed(b'{"a":Infinity}')),
    "not utf-8": ("header_invalid", lambda: framed(b'{"\xff":1}')),
    "half an object": ("header_invalid", lambda: framed(b'{"a":')),
    "two objects": ("header_invalid", lambda: framed(b"{}{}")),
    "a list": ("not_safetensors", lambda: framed(b"[1,2,3]")),
    "no tensors": ("header_invalid", lambda: framed({})),
    "metadata alone": ("header_invalid", lambda: framed({"__metadata__": {"a": "b"}})),
    "metadata that is a list": ("header_invalid", lambda: framed({"__metadata__": [], "emb_params": ONE})),
    "metadata with numbers": ("header_invalid", lambda: framed({"__metadata__": {"a": 1}, "emb_params": ONE})),
    "much metadata": (
        "metadata_too_large", lambda: framed({"__metadata__": {"a": "b" * (MIB + MIB // 2)}, "emb_params": ONE}),
    ),
    "many tensors": ("too_many_tensors", lambda: framed(many(30_000), bytes(60_000))),
    "300 000 empty tensors": ("header_too_large", lambda: framed(many(300_000, "[0]", 0), b"")),
    "many small objects": ("header_invalid", lambda: framed(b'{"a":[' + b"{}," * 650_000 + b"{}]}")),
    "many small lists": ("header_invalid", lambda: framed(b'{"a":[' + b"[]," * 650_000 + b"[]]}")),
    "many keys": (
        "too_many_tensors", lambda: framed(("{" + ",".join(f'"{n:x}":0' for n in range(200_000)) + "}").encode()),
    ),
    "unknown dtype": ("dtype_refused", lambda: tensor(dtype="F4")),
    "complex dtype": ("dtype_refused", lambda: tensor(dtype="C64")),
    "small dtype": ("dtype_refused", lambda: tensor(dtype="f32")),
    "dtype that is a number": ("dtype_refused", lambda: tensor(dtype=32)),
    "dtype that is a list": ("dtype_refused", lambda: tensor(dtype=["F32"])),
    "wrong dtype": ("offsets_invalid", lambda: tensor(dtype="F16")),
    "negative shape": ("header_invalid", lambda: tensor(shape=[-2, -16])),
    "broken shape": ("header_invalid", lambda: tensor(shape=[2.0, 16])),
    "true shape": ("header_invalid", lambda: tensor(shape=[True, 32])),
    "worded shape": ("header_invalid", lambda: tensor(shape=["2", "16"])),
    "endless shape": ("header_invalid", lambda: tensor(shape=[2**63])),
    "no shape": ("header_invalid", lambda: tensor(shape=None)),
    "overflowing shape": ("offsets_invalid", lambda: tensor(shape=[2**40, 2**40, 2**40])),
    "six dimensions": ("rank_refused", lambda: tensor(shape=[1, 1, 1, 1, 2, 16])),
    "empty dimension": ("tensor_empty", lambda: tensor(shape=[0, 16], data_offsets=[0, 0])),
    "overlapping": ("offsets_invalid", lambda: two((0, 64), (32, 96))),
    "one above the other": ("offsets_invalid", lambda: two((0, 64), (0, 64))),
    "a gap": ("offsets_invalid", lambda: two((0, 64), (66, 130))),
    "backwards": ("offsets_invalid", lambda: tensor(data_offsets=[128, 0])),
    "behind the end": ("offsets_invalid", lambda: tensor(data_offsets=[2**40, 2**40 + 128])),
    "three offsets": ("header_invalid", lambda: tensor(data_offsets=[0, 64, 128])),
    "a field more": ("header_invalid", lambda: tensor(strides=[1])),
    "a field less": ("header_invalid", lambda: framed({"emb_params": {"dtype": "F32", "shape": [2, 16]}})),
    "endless name": ("header_invalid", lambda: framed({"n" * 600: ONE})),
    "a pickle": ("pickle_refused", lambda: pickle.dumps({"weights": [1.0]}, protocol=2)),
    "a new pickle": ("pickle_refused", lambda: pickle.dumps({"weights": [1.0]}, protocol=5)),
    "an old pickle": ("not_safetensors", lambda: pickle.dumps({"weights": [1.0]}, protocol=0)),
    "a gzip bomb": ("not_safetensors", lambda: gzip.compress(bytes(64 * MIB), 1)),
    "a page": ("not_safetensors", lambda: b"<!doctype html><title>404</title>"),
    "gguf": ("not_safetensors", lambda: b"GGUF" + bytes(60)),
    "half a NaN": ("not_a_number", lambda: nan("F16", b"\x01\xfc")),
    "a NaN": ("not_a_number", lambda: nan("F32", struct.pack("<f", float("nan")))),
    "a double NaN": ("not_a_number", lambda: nan("F64", struct.pack("<d", float("nan")))),
    "a brain NaN": ("not_a_number", lambda: nan("BF16", b"\xc0\x7f")),
}  # fmt: skip


def write_hostile(folder: Path) -> dict[str, str]:
    """Write every hostile file into a folder, and return the code that each must be refused by."""
    codes = {}
    for name, (code, content) in CONTENTS.items():
        (folder / f"{name}.safetensors").write_bytes(content())
        codes[f"{name}.safetensors"] = code
    with zipfile.ZipFile(folder / "a zip bomb.safetensors", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as bomb:
        bomb.writestr("archive/data.pkl", bytes(64 * MIB))
    codes["a zip bomb.safetensors"] = "pickle_refused"
    for name, code, header in (
        ("a large bomb of objects", "header_invalid", b'{"a":[' + b"{}," * (2 * MIB + MIB // 2) + b"{}]}"),
        (
            "a large bomb of keys",
            "header_invalid",
            ("{" + ",".join(f'"{n:x}":{{}}' for n in range(MIB // 2)) + "}").encode(),
        ),
    ):
        path = folder / f"{name}.safetensors"
        path.write_bytes(framed(header, b""))
        # A hole, so that so large a header is in proportion.
        os.truncate(path, 900 * MIB)
        codes[path.name] = code
    (folder / "loop.safetensors").symlink_to(folder / "loop.safetensors")
    (folder / "passwords.safetensors").symlink_to("/etc/passwd")
    os.mkfifo(folder / "pipe.safetensors")
    codes |= {
        "loop.safetensors": "file_unreadable",
        "passwords.safetensors": "link_outside",
        "pipe.safetensors": "file_unreadable",
    }
    return codes
