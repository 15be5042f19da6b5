"""Cut prompts into tokens as a model's own text encoder does, from the files of the model that lie on this host."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final, NamedTuple

from tokenizers import Tokenizer

from infra.logging import get_logger
from jobs.prompts.attention import Segment, parse_attention, unmarked
from jobs.prompts.windows import lay, parts
from models_registry.entries import Layout, ModelEntry
from models_registry.kinds.single_files import config_folder
from models_registry.refusals import ModelRefused
from models_registry.vocabularies.chats import CHATS, Chat, count_in_chat, room_of
from models_registry.vocabularies.clip import (
    Vocabulary,
    find_merges,
    make_tokenizer,
    published_vocabulary,
    read_vocabulary,
)
from models_registry.vocabularies.mistral import CHAT as MISTRAL_CHAT
from models_registry.vocabularies.mistral import read_mistral_tokenizer
from models_registry.vocabularies.qwen import read_qwen_tokenizer
from models_registry.vocabularies.t5 import LONGEST, count_pieces, read_t5_tokenizer

log = get_logger(__name__)

VOCABULARY_UNREADABLE: Final = "vocabulary_unreadable"

#: Where the families whose prompts T5 reads keep it, and its tokenizer; all others read with CLIP alone.
_T5: Final[Mapping[str, tuple[str, str]]] = MappingProxyType(
    {"sd3": ("text_encoder_3", "tokenizer_3"), "flux": ("text_encoder_2", "tokenizer_2")}
)
#: Held at once; the published vocabulary takes about 20 MB.
MOST_HELD: Final = 8
#: Where a folder keeps the tokenizer of its first text encoder; SDXL's refiner has the second alone.
_FOLDERS: Final = ("tokenizer", "tokenizer_2")


class Reader(NamedTuple):
    """What cuts prompts for one model."""

    tokenizer: Tokenizer
    #: Tokens that a window holds beside its marks.
    room: int
    #: Counts a prompt that is read as a whole, where what does not fit is refused; None where it goes on in another window, as for CLIP.
    whole: Callable[[str], int] | None = None


class Vocabularies:
    """Hold the vocabularies that were used last."""

    def __init__(self) -> None:
        #: By the fingerprint of the model, the one used longest ago first; None where it cannot be known here.
        self._held: OrderedDict[str, Reader | None] = OrderedDict()
        self._reading = asyncio.Lock()

    async def reader(self, entry: ModelEntry) -> Reader | None:
        """Return what cuts prompts for a checkpoint, or None where this host cannot know."""
        async with self._reading:
            if entry.fingerprint not in self._held:
                self._held[entry.fingerprint] = await asyncio.to_thread(_read, entry)
                if len(self._held) > MOST_HELD:
                    self._held.popitem(last=False)
            self._held.move_to_end(entry.fingerprint)
            return self._held[entry.fingerprint]


def count_windows(reader: Reader, prompt: str, words: Mapping[str, int]) -> list[int]:
    """Return how many tokens each window of a prompt without LoRA tags holds.

    `words` are the names of embeddings in small letters, and how many places each takes. Raises `ValueError` where a damaged vocabulary
    does not let it be counted.
    """
    if reader.whole is not None:
        return [reader.whole(prompt)]

    def groups(segment: Segment) -> list[list[None]]:
        found: list[list[None]] = []
        for part in parts(segment.text, words):
            if part.is_word:
                found.append([None] * words[part.text.casefold()])
            else:
                found += [[None] for _ in reader.tokenizer.encode(part.text, add_special_tokens=False).ids]
        return found

    return [len(window) for window in lay(parse_attention(prompt), groups, reader.room)]


def chat_reader(
    folder: Path, chat: Chat, read: Callable[[Path], Tokenizer | None] = read_qwen_tokenizer
) -> Reader | None:
    """Return what cuts prompts that a language model reads in a chat, by its tokenizer's folder; None where that cannot be known."""
    tokenizer = read(folder)
    if tokenizer is None:
        return None
    return Reader(tokenizer, room_of(tokenizer, chat), lambda prompt: count_in_chat(tokenizer, chat, unmarked(prompt)))


def t5_reader(folder: Path) -> Reader | None:
    """Return what cuts prompts that T5 reads, by its tokenizer's folder; None where that has no `tokenizer.json`."""
    tokenizer = read_t5_tokenizer(folder)
    if tokenizer is None:
        return None

    def whole(prompt: str) -> int:
        return sum(count_pieces(tokenizer, segment.text) for segment in parse_attention(prompt))

    return Reader(tokenizer, LONGEST - 1, whole)


def _read(entry: ModelEntry) -> Reader | None:
    try:
        if (entry.family, entry.variant) == ("flux2", "dev"):
            return chat_reader(_folder(entry) / _FOLDERS[0], MISTRAL_CHAT, read_mistral_tokenizer)
        if entry.family in CHATS:
            return chat_reader(_folder(entry) / _FOLDERS[0], CHATS[entry.family])
        if _reads_with_t5(entry):
            return t5_reader(_folder(entry) / _T5[entry.family][1])
        vocabulary = _vocabulary(entry)
        return None if vocabulary is None else Reader(make_tokenizer(vocabulary), vocabulary.room)
    except (ModelRefused, ValueError, OSError) as error:
        log.warning(VOCABULARY_UNREADABLE, model=entry.name, reason=str(error))
        return None


def _reads_with_t5(entry: ModelEntry) -> bool:
    """Tell whether T5 reads the prompts; Stable Diffusion 3 draws without it where it has none, in its files or beside them."""
    if entry.family not in _T5:
        return False
    encoder, tokenizer = _T5[entry.family]
    has_it = any(component.name == encoder for component in entry.components)
    return entry.family == "flux" or has_it or (_folder(entry) / tokenizer).is_dir()


def _folder(entry: ModelEntry) -> Path:
    return config_folder(entry.path) if entry.layout is Layout.SINGLE_FILE else entry.path


def _vocabulary(entry: ModelEntry) -> Vocabulary | None:
    beside = _first(_folder(entry))
    if beside is not None:
        return read_vocabulary(beside)
    # A file without one is drawn with what all CLIPs have in common; a folder without one lies on another host.
    merges = find_merges() if entry.layout is Layout.SINGLE_FILE else None
    return None if merges is None else published_vocabulary(merges)


def _first(folder: Path) -> Path | None:
    return next((folder / name for name in _FOLDERS if (folder / name).is_dir()), None)
