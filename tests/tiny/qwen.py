"""Qwen's tokenizer with few words: every byte, some joined letters, the marks of a chat and the published template around a prompt."""

from collections.abc import Sequence
from typing import Any, Final

import transformers
from tokenizers import AddedToken

from models_registry.vocabularies.clip import byte_symbols

#: The library ships no types for these calls.
_TRANSFORMERS: Any = transformers

MARKS: Final = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|image_pad|>")
#: Pairs that are joined, as a trained vocabulary has them: ends of words, and words with the space before them.
_MERGES: Final = (("r", "e"), ("re", "d"), ("Ġ", "red"), ("Ġ", "a"), ("u", "s"), ("us", "er"), ("e", "r"), ("Ċ", "Ċ"))
#: What Qwen3 makes of messages without tools.
TEMPLATE: Final = (
    "{%- for message in messages %}"
    "{{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>' + '\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}"
    "{%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\n\n</think>\n\n' }}{%- endif %}"
    "{%- endif %}"
)


def qwen_tokenizer(whole: Sequence[str] = ()) -> Any:
    """Return a tokenizer of Qwen's kind: a token for each byte, and a few for more; each of the `whole` words is one."""
    grown = [(word[:end], word[end]) for word in whole for end in range(1, len(word))]
    merges = list(dict.fromkeys((*grown, *_MERGES)))
    words = [*byte_symbols(), *dict.fromkeys(one + other for one, other in merges)]
    made = _TRANSFORMERS.Qwen2Tokenizer(
        vocab={word: number for number, word in enumerate(words)},
        merges=merges,
        pad_token=MARKS[0],
        eos_token=MARKS[2],
        model_max_length=131072,
    )
    made.add_tokens([AddedToken(mark, normalized=False, special=True) for mark in MARKS])
    made.chat_template = TEMPLATE
    return made
