"""A file arrives whole and right, wherever its fetching was broken off and whatever the server does meanwhile."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from infra.guarded_http import Guard
from models_registry.pulls.failures import DiskFull, HashMismatch, PullError, SourceAway, SourceForbidden, TooLarge
from models_registry.pulls.fetching import Room, fetch_file
from models_registry.pulls.plans import WantedFile
from models_registry.pulls.web import Web
from tests.model_sources import Sources, git_sha1, serve_sources, sha256

DATA = bytes(range(256)) * 40
ROOM = Room(most_bytes=1_000_000, headroom=0)


@pytest.fixture(scope="module")
def served() -> Iterator[Sources]:
    """Serve one file to all tests of the module."""
    with serve_sources() as sources:
        yield sources


@pytest.fixture
def sources(served: Sources) -> Sources:
    """Return the server as if it were new."""
    served.files = {"/file": DATA}
    served.cuts.clear()
    served.refusals.clear()
    served.asked.clear()
    served.ranges = served.etags = True
    return served


@pytest.fixture(scope="module")
def web() -> Iterator[Web]:
    """Return a client that may reach the server."""
    opened = Web(Guard.of("127.0.0.1, localhost"))
    yield opened
    opened.close()


def file_at(sources: Sources, *, known: bool) -> WantedFile:
    """Describe the served file, with or without what it must be."""
    promised = {"bytes": len(DATA), "sha256": sha256(DATA)} if known else {}
    return WantedFile(name="file", url=f"{sources.url}/file", **promised)


def until_there(web: Web, wanted: WantedFile, place: Path, tries: int = 12) -> str:
    """Fetch again and again, as a keeper does."""
    for _ in range(tries):
        try:
            return fetch_file(web, wanted, place, ROOM, lambda _: None)
        except SourceAway:
            continue
    raise AssertionError("it never arrived")


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    cuts=st.lists(st.integers(0, len(DATA) - 1), max_size=5),
    known=st.booleans(),
    ranges=st.booleans(),
    etags=st.booleans(),
)
def test_fetch_broken_off_at_any_byte_ends_with_the_right_hash(
    sources: Sources,
    web: Web,
    tmp_path_factory: pytest.TempPathFactory,
    *,
    cuts: list[int],
    known: bool,
    ranges: bool,
    etags: bool,
) -> None:
    """Whether the server knows ranges and validators or not, and whether a hash is promised or not."""
    place = tmp_path_factory.mktemp("fetch") / "file"
    sources.cuts.extend(cuts)
    sources.ranges, sources.etags = ranges, etags
    try:
        assert until_there(web, file_at(sources, known=known), place) == sha256(DATA)
    finally:
        sources.cuts.clear()
    assert place.read_bytes() == DATA
    assert [path.name for path in place.parent.iterdir()] == ["file"]


@pytest.mark.parametrize("known", [True, False])
def test_fetch_goes_on_from_the_byte_it_has(sources: Sources, web: Web, tmp_path: Path, *, known: bool) -> None:
    """The second request asks for what is lacking alone."""
    sources.cuts.append(3000)
    until_there(web, file_at(sources, known=known), tmp_path / "file")
    first, second = sources.of("/file")
    assert "range" not in first
    assert second["range"] == "bytes=3000-"


def test_fetch_starts_again_when_the_file_has_changed(sources: Sources, web: Web, tmp_path: Path) -> None:
    """Without a promised hash the server's validator tells; nothing of the old file is in the new one."""
    sources.cuts.append(3000)
    wanted = WantedFile(name="file", url=f"{sources.url}/file")
    with pytest.raises(SourceAway):
        fetch_file(web, wanted, tmp_path / "file", ROOM, lambda _: None)
    sources.files["/file"] = DATA[::-1]
    assert fetch_file(web, wanted, tmp_path / "file", ROOM, lambda _: None) == sha256(DATA[::-1])
    assert sources.of("/file")[1]["if-range"].startswith('"')


def test_fetch_replaces_a_part_of_other_bytes(sources: Sources, web: Web, tmp_path: Path) -> None:
    """With a promised hash a spoilt part is fetched once more from the start."""
    (tmp_path / "file.part").write_bytes(b"x" * 3000)
    assert fetch_file(web, file_at(sources, known=True), tmp_path / "file", ROOM, lambda _: None) == sha256(DATA)
    assert [headers.get("range") for headers in sources.of("/file")] == ["bytes=3000-", None]


@pytest.mark.parametrize("wrong", [{"sha256": "0" * 64}, {"git_sha1": "0" * 40}, {"bytes": len(DATA) - 1}])
def test_fetch_refuses_other_bytes_than_promised(
    sources: Sources, web: Web, tmp_path: Path, wrong: dict[str, str]
) -> None:
    """SHA-256, git's name and the size are held against what arrives, and nothing of it stays."""
    wanted = file_at(sources, known=False).model_copy(update={"bytes": len(DATA), **wrong})
    with pytest.raises(HashMismatch):
        fetch_file(web, wanted, tmp_path / "file", ROOM, lambda _: None)
    assert not (tmp_path / "file").exists()


def test_fetch_checks_gits_name_of_a_small_file(sources: Sources, web: Web, tmp_path: Path) -> None:
    """What the hub does not keep apart has no other hash."""
    wanted = file_at(sources, known=False).model_copy(update={"bytes": len(DATA), "git_sha1": git_sha1(DATA)})
    assert fetch_file(web, wanted, tmp_path / "file", ROOM, lambda _: None) == sha256(DATA)


def test_fetch_leaves_the_headroom(sources: Sources, web: Web, tmp_path: Path) -> None:
    """A disk that would have too little room left gets no byte."""
    with pytest.raises(DiskFull):
        fetch_file(web, file_at(sources, known=True), tmp_path / "file", Room(1_000_000, 2**60), lambda _: None)
    assert not (tmp_path / "file.part").exists()


def test_fetch_refuses_what_is_larger_than_allowed(sources: Sources, web: Web, tmp_path: Path) -> None:
    """Before its first byte where the server says so."""
    with pytest.raises(TooLarge):
        fetch_file(web, file_at(sources, known=False), tmp_path / "file", Room(5000, 0), lambda _: None)


def test_fetch_says_when_the_source_wants_a_token(sources: Sources, web: Web, tmp_path: Path) -> None:
    """A refusal is not tried again."""
    sources.refusals.append((403, {}))
    with pytest.raises(SourceForbidden):
        fetch_file(web, file_at(sources, known=True), tmp_path / "file", ROOM, lambda _: None)


@pytest.mark.parametrize(("status", "after"), [(429, 7.0), (503, None)])
def test_fetch_passes_on_how_long_to_wait(
    sources: Sources, web: Web, tmp_path: Path, status: int, after: float | None
) -> None:
    """A source that asks to be left alone is left alone for as long as it says."""
    sources.refusals.append((status, {} if after is None else {"retry-after": f"{after:.0f}"}))
    with pytest.raises(SourceAway) as caught:
        fetch_file(web, file_at(sources, known=True), tmp_path / "file", ROOM, lambda _: None)
    assert caught.value.retry_after == after


def test_fetch_counts_every_byte_once(sources: Sources, web: Web, tmp_path: Path) -> None:
    """Progress never runs backwards over a resumption."""
    seen: list[int] = []
    sources.cuts.append(2000)
    for _ in range(2):
        try:
            fetch_file(web, file_at(sources, known=True), tmp_path / "file", ROOM, seen.append)
        except PullError:
            continue
    assert seen == sorted(seen)
    assert seen[-1] == len(DATA)
