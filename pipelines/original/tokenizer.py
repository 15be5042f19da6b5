"""The tokenizer of a file in the original layout: the one that lies beside it, else the vocabulary every CLIP has in common."""

import gzip
import importlib.util
from pathlib import Path
from typing import Any

from transformers import CLIPTokenizer

from jobs.errors import ModelDamaged, ModelMissing
from models_registry.kinds.single_files import config_folder
from pipelines.reading import name_failure

#: Packages that ship CLIP's merges as published; they are read, not imported.
_PACKAGES = ("open_clip", "clip")
_MERGES = "bpe_simple_vocab_16e6.txt.gz"
#: Merges of the published list that the published models use; the rest of it is never read.
_USED = 49152 - 256 - 2
_LENGTH = 77
_START, _END = "<|startoftext|>", "<|endoftext|>"


def read_tokenizer(path: Path) -> Any:
    """Return the tokenizer for a single file, raising `ModelMissing` where there is none and `ModelDamaged` where it cannot be read."""
    beside = config_folder(path) / "tokenizer"
    if beside.is_dir():
        return name_failure(beside, lambda: CLIPTokenizer.from_pretrained(beside, local_files_only=True))
    merges = find_merges()
    if merges is None:
        raise ModelMissing(
            f"{path} has no tokenizer beside it ({beside.name} in {beside.parent.name}), and the vocabulary of CLIP is not installed:"
            " pip install open-clip-torch"
        )
    return clip_tokenizer(merges)


def find_merges() -> Path | None:
    """Return the file of CLIP's merges that an installed package ships."""
    for package in _PACKAGES:
        found = importlib.util.find_spec(package)
        for folder in (found.submodule_search_locations or []) if found is not None else []:
            path = Path(folder) / _MERGES
            if path.is_file():
                return path
    return None


def clip_tokenizer(merges: Path) -> Any:
    """Return the tokenizer that CLIP's merges make: every byte, every byte at the end of a word, every merge, two marks."""
    try:
        lines = gzip.decompress(merges.read_bytes()).decode().splitlines()
    except (OSError, EOFError, ValueError) as error:
        raise ModelDamaged(f"{merges} cannot be read: {error}") from None
    pairs = [(one, other) for one, _, other in (line.partition(" ") for line in lines[1 : _USED + 1])]
    symbols = _byte_symbols()
    words = [*symbols, *(f"{symbol}</w>" for symbol in symbols), *(one + other for one, other in pairs), _START, _END]
    return CLIPTokenizer(
        vocab={word: number for number, word in enumerate(words)},
        merges=pairs,
        unk_token=_END,
        bos_token=_START,
        eos_token=_END,
        pad_token=_END,
        model_max_length=_LENGTH,
    )


def _byte_symbols() -> list[str]:
    """Return a visible character for each byte, as byte-level BPE writes them: itself where it is visible, else one from beyond."""
    visible = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    hidden = [byte for byte in range(256) if byte not in visible]
    return [chr(byte) for byte in visible] + [chr(256 + place) for place in range(len(hidden))]
