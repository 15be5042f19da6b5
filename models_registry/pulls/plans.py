"""What is to be fetched, and what its source says of it: written down once, so that a resumed pull goes on with the same bytes; pure."""

import re
from html.parser import HTMLParser
from typing import Final

from pydantic import BaseModel, ConfigDict

#: As many of a source's words as an entry takes.
MOST_WORDS: Final = 100
LONGEST_WORD: Final = 200
LONGEST_DESCRIPTION: Final = 20_000
LONGEST_NAME: Final = 150


class WantedFile(BaseModel):
    """One file and what its bytes must be, as far as its source says."""

    model_config = ConfigDict(frozen=True)

    #: Where it goes below the model's folder.
    name: str
    url: str
    bytes: int | None = None
    sha256: str | None = None
    #: The hub's name of a small file: SHA-1 of its bytes behind git's heading.
    git_sha1: str | None = None


class Facts(BaseModel):
    """What a source says of a model; empty where it says nothing."""

    model_config = ConfigDict(frozen=True)

    source: str = ""
    description: str = ""
    licence: str = ""
    base_model: str = ""
    tags: tuple[str, ...] = ()
    trigger_words: tuple[str, ...] = ()
    #: Addresses of pictures.
    previews: tuple[str, ...] = ()


class Plan(BaseModel):
    """Everything that one pull fetches."""

    model_config = ConfigDict(frozen=True)

    #: What the source calls it, for when nobody chose a name.
    name: str
    #: Several files in a folder; else one.
    is_folder: bool
    files: tuple[WantedFile, ...]
    facts: Facts = Facts()

    @property
    def bytes(self) -> int | None:
        """Return how many bytes there are, None where a file's size is unknown."""
        sizes = [file.bytes for file in self.files]
        return None if None in sizes else sum(size for size in sizes if size is not None)


def usable_name(text: str) -> str:
    """Return the nearest name that a model may have; empty when nothing is left of it."""
    plain = re.sub(r"[/\\@:<>]+", "-", "".join(letter for letter in text if letter.isprintable()))
    return plain.strip().strip(".").strip()[:LONGEST_NAME].strip()


def words(found: object) -> tuple[str, ...]:
    """Return the usable ones of a source's list of words, each once."""
    if not isinstance(found, list | tuple):
        return ()
    texts = (" ".join(word.split())[:LONGEST_WORD] for word in found if isinstance(word, str))
    return tuple(dict.fromkeys(text for text in texts if text and text.isprintable()))[:MOST_WORDS]


def line(found: object) -> str:
    """Return a source's text as one line, empty when it is none."""
    return " ".join(found.split())[:LONGEST_WORD] if isinstance(found, str) else ""


class _Text(HTMLParser):
    _BREAKS: Final = frozenset({"p", "br", "li", "div", "h1", "h2", "h3", "h4", "tr"})
    _SILENT: Final = frozenset({"script", "style"})

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self._silent = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # noqa: ARG002 - the library's signature
        """Begin a line where a browser would."""
        self._silent += tag in self._SILENT
        if tag in self._BREAKS:
            self.parts.append("\n")

    def handle_endtag(self, tag: str) -> None:
        """End what is not shown."""
        self._silent = max(0, self._silent - (tag in self._SILENT))

    def handle_data(self, data: str) -> None:
        """Keep what is shown."""
        if not self._silent:
            self.parts.append(data)


def plain_text(found: object) -> str:
    """Return HTML as plain text, empty when it is no text at all."""
    if not isinstance(found, str):
        return ""
    parser = _Text()
    parser.feed(found[: 10 * LONGEST_DESCRIPTION])
    parser.close()
    lines = (" ".join(part.split()) for part in "".join(parser.parts).replace("\0", "").splitlines())
    return "\n".join(text for text in lines if text)[:LONGEST_DESCRIPTION]
