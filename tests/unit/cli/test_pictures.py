"""Pictures get the names that people expect, and never another file's."""

from pathlib import Path
from typing import Any

import pytest
import typer

from cli.failure import CommandFailed
from cli.speaking.pictures import PictureFormat, Target, write_picture
from jobs.contract import JobView

NOW = "2026-01-01T00:00:00Z"


def job(prompt: str = "A red circle, on blue!", seeds: tuple[int, ...] = (7,)) -> JobView:
    """Make a finished job with a picture for each seed."""
    images: list[dict[str, Any]] = [
        {"index": n, "seed": seed, "width": 8, "height": 8, "mime": "image/png", "bytes": 1, "sha256": "0", "url": "/x"}
        for n, seed in enumerate(seeds)
    ]
    request = {
        "model": "m",
        "prompt": prompt,
        "width": 64,
        "height": 64,
        "steps": 4,
        "guidance_scale": 5.0,
        "scheduler": "Euler",
        "seed": seeds[0],
        "preview_every": 1,
    }
    return JobView.model_validate(
        {
            "id": "01936f2e-0000-7000-8000-000000000001",
            "state": "succeeded",
            "task": "txt2img",
            "model": "m",
            "created_at": NOW,
            "started_at": NOW,
            "finished_at": NOW,
            "queue": "q",
            "progress": {"step": 4, "steps": 4, "fraction": 1},
            "images": images,
            "attempts": 0,
            "losses": 0,
            "request": request,
        }
    )


def test_chosen_name_is_kept() -> None:
    """One picture gets exactly the name given; several get their number before the suffix."""
    target = Target(Path("a/out.png"), None)
    assert target.paths(job()) == [Path("a/out.png")]
    assert target.paths(job(seeds=(7, 8))) == [Path("a/out-0.png"), Path("a/out-1.png")]


@pytest.mark.parametrize(
    ("name", "wanted", "expected", "path"),
    [
        ("a.jpg", None, "jpeg", "a.jpg"),
        ("a.JPEG", PictureFormat.JPEG, "jpeg", "a.JPEG"),
        ("a.webp", None, "webp", "a.webp"),
        ("a", None, "png", "a.png"),
        ("a", PictureFormat.JPEG, "jpeg", "a.jpg"),
    ],
)
def test_format_follows_the_name(name: str, wanted: PictureFormat | None, expected: str, path: str) -> None:
    """The suffix chooses the format, and the format completes a name without one."""
    target = Target(Path(name), wanted)
    assert target.format == expected
    assert target.paths(job()) == [Path(path)]


@pytest.mark.parametrize(("name", "wanted"), [("a.gif", None), ("a.png", PictureFormat.JPEG)])
def test_contradictions_are_usage_errors(name: str, wanted: PictureFormat | None) -> None:
    """A name that lies about its content is refused before anything is drawn."""
    with pytest.raises(typer.BadParameter):
        Target(Path(name), wanted)


def test_unchosen_name_never_replaces_a_file(tmp_path: Path) -> None:
    """In a folder a picture is named after prompt and seed, and makes way for what is there."""
    target = Target(tmp_path, None)
    assert target.paths(job(seeds=(7, 8))) == [
        tmp_path / "a-red-circle-on-blue-7.png",
        tmp_path / "a-red-circle-on-blue-8.png",
    ]
    (tmp_path / "a-red-circle-on-blue-7.png").touch()
    assert target.paths(job()) == [tmp_path / "a-red-circle-on-blue-7-2.png"]


@pytest.mark.parametrize(
    ("prompt", "stem"),
    [("../../etc/passwd", "etc-passwd"), ("", "picture"), ("😀", "picture"), ("赤い円 " * 50, None), ("x" * 500, None)],
)
def test_prompts_make_harmless_names(tmp_path: Path, prompt: str, stem: str | None) -> None:
    """No prompt leads out of the folder or makes a name that a file system refuses."""
    (path,) = Target(tmp_path, None).paths(job(prompt))
    assert path.parent == tmp_path
    write_picture(path, b"x")
    assert stem is None or path.name == f"{stem}-7.png"


def test_write_fails_with_a_sentence_and_leaves_nothing(tmp_path: Path) -> None:
    """A picture that cannot be written says why; no half file stays."""
    (tmp_path / "taken.png").mkdir()
    with pytest.raises(CommandFailed, match=r"taken\.png"):
        write_picture(tmp_path / "taken.png", b"x")
    assert [path.name for path in tmp_path.iterdir()] == ["taken.png"]


def test_prepare_fails_before_anything_is_drawn(tmp_path: Path) -> None:
    """A folder that cannot be made is told at once; one that can is made."""
    (tmp_path / "file").touch()
    with pytest.raises(CommandFailed):
        Target(tmp_path / "file" / "a.png", None).prepare()
    Target(tmp_path / "new" / "folder" / "a.png", None).prepare()
    assert (tmp_path / "new" / "folder").is_dir()
