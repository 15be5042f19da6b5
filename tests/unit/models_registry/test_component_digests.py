"""A component's digest is made of the hashes of its own files, once all of them are known."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from models_registry.entries import Component, Kind, Layout, ModelEntry
from models_registry.reading.component_digests import keep_digests, with_digests
from models_registry.reading.hashing import Digests

FOLDER = Path("/models/thing")
UNET, FIRST, SECOND = FOLDER / "unet/one.safetensors", FOLDER / "text/1.safetensors", FOLDER / "text/2.safetensors"


def entry(*names: str, layout: Layout = Layout.DIFFUSERS, bytes: int = 2) -> ModelEntry:  # noqa: A002 - as the field is called
    """Return a checkpoint with these components."""
    return ModelEntry(
        name="thing",
        kind=Kind.CHECKPOINT,
        layout=layout,
        family="sd15",
        path=FOLDER,
        fingerprint="0" * 64,
        components=tuple(Component(name=name, bytes=bytes, parameters=1, dtype="F16") for name in names),
    )


def digests(made: ModelEntry) -> list[str]:
    """Return the digests of all components."""
    return [each.digest for each in made.components]


def known(**sha256: str) -> Mapping[Path, Digests | None]:
    """Return what is known of the three files."""
    paths = {"unet": UNET, "first": FIRST, "second": SECOND}
    return {paths[name]: Digests(value, None, "") if value else None for name, value in sha256.items()}


def test_one_file_lends_its_own_hash() -> None:
    """So that it can be looked up; several files have one digest of their list, in the order of their names."""
    files = known(unet="a" * 64, first="b" * 64, second="c" * 64)
    unet, text = digests(with_digests(entry("unet", "text"), [SECOND, UNET, FIRST], files))
    assert unet == "a" * 64
    assert (len(text), text in {"b" * 64, "c" * 64}) == (64, False)
    swapped = known(unet="a" * 64, first="c" * 64, second="b" * 64)
    assert digests(with_digests(entry("unet", "text"), [UNET, FIRST, SECOND], swapped))[1] != text


@pytest.mark.parametrize("files", [{"unet": "a", "first": "b"}, {"unet": "a", "first": "b", "second": ""}])
def test_part_of_the_files_is_no_digest(files: dict[str, str]) -> None:
    """What was not read whole may be anything."""
    made = with_digests(entry("unet", "text"), [UNET, FIRST, SECOND], known(**files))
    assert digests(made) == ["a", ""]


def test_components_that_lie_in_one_file_have_none() -> None:
    """The hash of the file is that of all of them; one alone has it."""
    together = entry("unet", "text", layout=Layout.SINGLE_FILE)
    assert digests(with_digests(together, [UNET], known(unet="a"))) == ["", ""]
    assert digests(with_digests(entry("vae", layout=Layout.SINGLE_FILE), [UNET], known(unet="a"))) == ["a"]


def test_digests_of_before_stay_for_what_is_the_same() -> None:
    """New ones hold over them."""
    before = with_digests(entry("unet", "text"), [UNET, FIRST], known(unet="a", first="b"))
    assert digests(keep_digests(entry("unet", "text"), before)) == ["a", "b"]
    assert digests(keep_digests(entry("unet", "text", bytes=3), before)) == ["", ""]
    assert digests(keep_digests(with_digests(entry("unet", "text"), [UNET], known(unet="c")), before)) == ["c", "b"]
