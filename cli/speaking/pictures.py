"""Where `generate` writes its pictures."""

import os
import re
import secrets
from enum import StrEnum
from pathlib import Path

import typer

from cli.failure import CommandFailed
from jobs.contract import DiffusionParameters, JobView

LONGEST_STEM = 60


class PictureFormat(StrEnum):
    """How a picture is encoded."""

    PNG = "png"
    JPEG = "jpeg"
    WEBP = "webp"


_SUFFIXES = {
    ".png": PictureFormat.PNG,
    ".jpg": PictureFormat.JPEG,
    ".jpeg": PictureFormat.JPEG,
    ".webp": PictureFormat.WEBP,
}


class Target:
    """Say which files a job's pictures become."""

    def __init__(self, output: Path | None, wanted: PictureFormat | None) -> None:
        """Settle the format from the option and the file's name, raising typer's usage error when the two contradict."""
        self._folder = Path() if output is None else output if _is_folder(output) else None
        self._file = None if output is None or self._folder is not None else output
        named = None
        if self._file is not None and self._file.suffix:
            named = _SUFFIXES.get(self._file.suffix.lower())
            if named is None:
                raise typer.BadParameter(
                    f"{self._file.name} should end with {', '.join(_SUFFIXES)}", param_hint="--output"
                )
        if named is not None and wanted is not None and named is not wanted:
            raise typer.BadParameter(f"{self._file} is not the name of a {wanted} file", param_hint="--format")
        self.format = wanted or named or PictureFormat.PNG

    def prepare(self) -> None:
        """Make the folder before anything is drawn, raising `CommandFailed` when it cannot be written."""
        folder = self._folder if self._folder is not None else self._parent()
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as problem:
            raise CommandFailed(f"{folder} cannot be made: {problem.strerror}.") from None
        if not os.access(folder, os.W_OK):
            raise CommandFailed(f"{folder.absolute()} cannot be written.")

    def paths(self, job: JobView) -> list[Path]:
        """Return a path for each picture of a finished job; a name that nobody chose never replaces a file."""
        suffix = "." + ("jpg" if self.format is PictureFormat.JPEG else self.format)
        if self._file is not None:
            file = self._file if self._file.suffix else self._file.with_name(self._file.name + suffix)
            if len(job.images) == 1:
                return [file]
            return [file.with_stem(f"{file.stem}-{image.index}") for image in job.images]
        folder = self._folder or Path()
        return [_free(folder / f"{_stem(_said(job))}-{image.seed}{suffix}") for image in job.images]

    def _parent(self) -> Path:
        return Path() if self._file is None else self._file.parent


def _said(job: JobView) -> str:
    return job.request.prompt if isinstance(job.request, DiffusionParameters) else job.task


def write_picture(path: Path, content: bytes) -> None:
    """Write a file whole or not at all, raising `CommandFailed`."""
    part = path.with_name(f".{path.name[:100]}.{secrets.token_hex(4)}")
    try:
        part.write_bytes(content)
        part.replace(path)
    except OSError as problem:
        part.unlink(missing_ok=True)
        raise CommandFailed(f"{path} cannot be written: {problem.strerror}.") from None


def _is_folder(path: Path) -> bool:
    return path.is_dir()


def _stem(prompt: str) -> str:
    # Letters of any script, nothing that a shell or a file system reads as more than a letter.
    words = re.sub(r"[^\w]+", "-", prompt.lower()).strip("-_")
    return words.encode()[:LONGEST_STEM].decode(errors="ignore").strip("-_") or "picture"


def _free(path: Path) -> Path:
    number = 2
    found = path
    while found.exists():
        found = path.with_stem(f"{path.stem}-{number}")
        number += 1
    return found
