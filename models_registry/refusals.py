"""Every reason why a file or folder is not offered as a model, with its stable code.

ModelRefused
├── FileRefused             one file may not be opened by any library
│   ├── PickleRefused       it holds code, or may
│   └── HeaderRefused       its safetensors header breaks a rule
│       └── …
├── FolderRefused           sound files, or the folder around them, break a rule
│   └── …
└── Unrecognised            nothing is wrong with it, but this version cannot draw with it
"""

from pathlib import Path
from typing import ClassVar


class ModelRefused(Exception):
    """The file or folder is not offered as a model."""

    code: ClassVar[str] = "model_refused"

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        #: The very file at fault, where one is.
        self.path = path
        self.reason = reason

    @classmethod
    def known(cls, code: str, path: Path, reason: str) -> "ModelRefused":
        """Return a refusal that was made before, as it was."""
        kinds = [cls]
        for kind in kinds:
            kinds.extend(kind.__subclasses__())
        return next((kind for kind in kinds if kind.code == code), cls)(path, reason)


class FileRefused(ModelRefused):
    """One file may not be opened by any library."""


class FileUnreadable(FileRefused):
    """The file is not there, not a regular file, or not ours to read."""

    code = "file_unreadable"


class PickleRefused(FileRefused):
    """The file is a pickle, which can run code when it is opened."""

    code = "pickle_refused"


class HeaderRefused(FileRefused):
    """The safetensors header breaks a rule."""


class NotSafetensors(HeaderRefused):
    """The file does not begin as a safetensors file does."""

    code = "not_safetensors"


class HeaderTooLarge(HeaderRefused):
    """The header is larger than a file of this size needs."""

    code = "header_too_large"


class HeaderTruncated(HeaderRefused):
    """The file ends before its header does."""

    code = "header_truncated"


class HeaderInvalid(HeaderRefused):
    """The header is not the JSON it should be."""

    code = "header_invalid"


class TooManyTensors(HeaderRefused):
    """The header names more tensors than any model has."""

    code = "too_many_tensors"


class MetadataTooLarge(HeaderRefused):
    """The header's free text is larger than allowed."""

    code = "metadata_too_large"


class DtypeRefused(HeaderRefused):
    """A tensor has a number format that weights do not use."""

    code = "dtype_refused"


class RankRefused(HeaderRefused):
    """A tensor has more dimensions than weights have."""

    code = "rank_refused"


class TensorEmpty(HeaderRefused):
    """A tensor holds no bytes."""

    code = "tensor_empty"


class OffsetsInvalid(HeaderRefused):
    """The tensors overlap, leave gaps, or do not end where the file ends."""

    code = "offsets_invalid"


class NotANumber(HeaderRefused):
    """A tensor holds a value that is not a number."""

    code = "not_a_number"


class HashMismatch(FileRefused):
    """The file is not the one that was announced."""

    code = "hash_mismatch"


class LinkOutside(FileRefused):
    """The path leads out of the folders that may be looked through."""

    code = "link_outside"


class KindMismatch(FileRefused):
    """The file is a model of another kind than was said."""

    code = "kind_mismatch"


class FolderRefused(ModelRefused):
    """Sound files, or the folder around them, break a rule."""


class FolderMissing(FolderRefused):
    """A folder that should be scanned is not there."""

    code = "folder_missing"


class FolderTooLarge(FolderRefused):
    """The folder holds more files than a model has."""

    code = "folder_too_large"


class CodeRefused(FolderRefused):
    """The folder holds program code."""

    code = "code_refused"


class ClassRefused(FolderRefused):
    """A configuration names a class that is not on the list of known ones."""

    code = "class_refused"


class ConfigInvalid(FolderRefused):
    """A configuration is missing, unreadable, or contradicts itself."""

    code = "config_invalid"


class ConfigKeyRefused(FolderRefused):
    """A configuration has a key that its class does not know."""

    code = "config_key_refused"


class WeightsMissing(FolderRefused):
    """A component has no weights under the name they are loaded by."""

    code = "weights_missing"


class WeightsMismatch(FolderRefused):
    """The weights do not have the shapes that the configuration says."""

    code = "weights_mismatch"


class NameInvalid(FolderRefused):
    """The name of the file or folder cannot be a model's name."""

    code = "name_invalid"


class NameTaken(FolderRefused):
    """Another file or folder already gives a model of this kind and name."""

    code = "name_taken"


class TakenOut(FolderRefused):
    """People took it out of the library, and its files are still there."""

    code = "taken_out"


class Unrecognised(ModelRefused):
    """This version cannot draw with it, or does not know what it is."""

    code = "unrecognised"
