"""Private files are whole, private, and replaced at once."""

import os
import stat
from pathlib import Path

import pytest

from infra.files import make_private_folder, write_private


def test_private_file_is_readable_by_its_owner_alone(tmp_path: Path) -> None:
    """The mode is right from the first moment, whatever the umask, and after a replacement."""
    before = os.umask(0)
    try:
        for text in ("one", "two — ü"):
            write_private(tmp_path / "secret", text)
            assert (tmp_path / "secret").read_text(encoding="utf-8") == text
            assert stat.S_IMODE((tmp_path / "secret").stat().st_mode) == 0o600
    finally:
        os.umask(before)
    assert [path.name for path in tmp_path.iterdir()] == ["secret"]


def test_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A crash in the middle changes nothing and leaves nothing."""
    write_private(tmp_path / "secret", "old")

    def fail(_: int) -> None:
        raise OSError("no")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="no"):
        write_private(tmp_path / "secret", "new")
    assert (tmp_path / "secret").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["secret"]


def test_new_folder_is_private_and_an_old_one_keeps_its_mode(tmp_path: Path) -> None:
    """Only what is made here is closed; folders above and folders that were there stay as they are."""
    made = make_private_folder(tmp_path / "a" / "b")
    assert stat.S_IMODE(made.stat().st_mode) == 0o700
    (tmp_path / "old").mkdir(mode=0o755)
    assert stat.S_IMODE(make_private_folder(tmp_path / "old").stat().st_mode) == 0o755
