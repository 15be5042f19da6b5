"""The tokenizer of a file in the original layout: the one that lies beside it, else the vocabulary every CLIP has in common."""

from pathlib import Path
from typing import Any

from transformers import CLIPTokenizer

from jobs.errors import ModelDamaged, ModelMissing
from models_registry.kinds.single_files import config_folder
from models_registry.refusals import ConfigInvalid
from models_registry.vocabularies.clip import END, LENGTH, START, find_merges, published_vocabulary
from pipelines.reading import name_failure


def read_tokenizer(path: Path, component: str = "tokenizer", *, padding: str = END) -> Any:
    """Return a tokenizer for a single file, raising `ModelMissing` where there is none and `ModelDamaged` where it cannot be read.

    `padding` fills what a prompt leaves free, where no tokenizer of this very name lies beside the file.
    """
    own, beside = config_folder(path) / component, config_folder(path) / "tokenizer"
    if own.is_dir():
        return name_failure(own, lambda: CLIPTokenizer.from_pretrained(own, local_files_only=True))
    if beside.is_dir():
        return name_failure(
            beside, lambda: CLIPTokenizer.from_pretrained(beside, local_files_only=True, pad_token=padding)
        )
    merges = find_merges()
    if merges is None:
        raise ModelMissing(
            f"{path} has no tokenizer beside it ({beside.name} in {beside.parent.name}), and the vocabulary of CLIP is not installed:"
            " pip install open-clip-torch"
        )
    return clip_tokenizer(merges, padding)


def clip_tokenizer(merges: Path, padding: str = END) -> Any:
    """Return the tokenizer that CLIP's merges make, raising `ModelDamaged` when the file cannot be read."""
    try:
        vocabulary = published_vocabulary(merges)
    except ConfigInvalid as refused:
        raise ModelDamaged(f"{refused.path} {refused.reason}") from None
    return CLIPTokenizer(
        vocab=vocabulary.vocab,
        merges=vocabulary.merges,
        unk_token=END,
        bos_token=START,
        eos_token=END,
        pad_token=padding,
        model_max_length=LENGTH,
    )
