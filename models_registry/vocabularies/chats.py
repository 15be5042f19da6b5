"""The chats that language models read prompts in: what lies around a prompt, and how many tokens are left for it."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from tokenizers import Tokenizer

from models_registry.vocabularies.t5 import count_pieces


class Chat(NamedTuple):
    """Say what lies around a prompt, and how much of both together is read."""

    before: str
    behind: str
    #: Tokens, those around the prompt among them.
    longest: int


#: By family: what its prompts lie in. A model's own template is a program in a file of somebody else's, and never run.
CHATS: Final[Mapping[str, Chat]] = MappingProxyType(
    {
        "zimage": Chat("<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n", 512),
        # Klein's, without thinking; that of dev is Mistral's (`mistral`).
        "flux2": Chat("<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n", 512),
        # What lies before the prompt takes 34 tokens; the transformer reads the 1024 behind them.
        "qwenimage": Chat(
            "<|im_start|>system\nDescribe the image by detailing the color, shape, size, texture, quantity, text, spatial relationships"
            " of the objects and background:<|im_end|>\n<|im_start|>user\n",
            "<|im_end|>\n<|im_start|>assistant\n",
            34 + 1024,
        ),
    }
)


def room_of(tokenizer: Tokenizer, chat: Chat) -> int:
    """Return how many tokens a prompt may have in a chat."""
    return chat.longest - count_pieces(tokenizer, chat.before + chat.behind)


def count_in_chat(tokenizer: Tokenizer, chat: Chat, text: str) -> int:
    """Return how many tokens a prompt adds to its chat: at its ends it may be joined with what lies around it.

    Raise `ValueError` where a damaged vocabulary does not let it be read.
    """
    around = count_pieces(tokenizer, chat.before + chat.behind)
    return count_pieces(tokenizer, chat.before + text + chat.behind) - around
