"""What reads prompts for FLUX.2 dev, narrow and with few words: Mistral's tokenizer in a processor, and a model that sees pictures too."""

from typing import Any, Final

import transformers
from tokenizers import Regex, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE

from models_registry.vocabularies.clip import byte_symbols
from models_registry.vocabularies.mistral import WORDS

#: The library ships no types for these calls.
_TRANSFORMERS: Any = transformers

MARKS: Final = (
    *("<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[IMG]", "[IMG_BREAK]", "[IMG_END]", "[SYSTEM_PROMPT]"),
    *("[/SYSTEM_PROMPT]", "<pad>"),
)
#: Of the system's line; each is one token, so that it leaves a prompt some room.
_LINE: Final = (
    *("You", "Ġare", "Ġan", "ĠAI", "Ġthat", "Ġreasons", "Ġabout", "Ġimage", "Ġdescriptions", "ĠYou", "Ġgive"),
    *("Ġstructured", "Ġresponses", "Ġfocusing", "Ġon", "Ġobject", "Ġrelationships", "attribution", "Ġand"),
    *("Ġactions", "Ġwithout", "Ġspeculation"),
)
_MERGES: Final = (("r", "e"), ("re", "d"), ("Ġ", "red"), ("Ġ", "a"), ("Ċ", "Ċ"))
#: What the published one makes of a system's line and a prompt, each a list of parts.
TEMPLATE: Final = (
    "{{- bos_token }}"
    "{%- for message in messages %}"
    "{%- set name = 'SYSTEM_PROMPT' if message.role == 'system' else 'INST' %}"
    "{{- '[' + name + ']' + message.content[0].text + '[/' + name + ']' }}"
    "{%- endfor %}"
)


def mistral_tokenizer(length: int, rule: str = WORDS[0]) -> Any:
    """Return a tokenizer of Mistral's kind that fills up to a length: a token for each byte, and a few for more."""
    grown = [(word[:end], word[end]) for word in _LINE for end in range(1, len(word))]
    merges = list(dict.fromkeys((*_MERGES, *grown)))
    words = [*MARKS, *byte_symbols(), *dict.fromkeys(one + other for one, other in merges)]
    made = Tokenizer(BPE({word: number for number, word in enumerate(words)}, merges, ignore_merges=True))
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(rule), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens(list(MARKS))
    return _TRANSFORMERS.PreTrainedTokenizerFast(
        tokenizer_object=made,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        pad_token="<pad>",
        model_max_length=length,
        padding_side="left",
    )


def mistral_processor(length: int) -> Any:
    """Return the same beside what reads pictures."""
    return _TRANSFORMERS.PixtralProcessor(
        image_processor=_TRANSFORMERS.PixtralImageProcessor(),
        tokenizer=mistral_tokenizer(length),
        chat_template=TEMPLATE,
    )


def mistral3(length: int, width: int) -> Any:
    """Return a language model of 30 layers, as many as are read, and one of what sees pictures."""
    config = _TRANSFORMERS.Mistral3Config(
        text_config={
            "model_type": "mistral",
            "vocab_size": len(mistral_tokenizer(length)),
            "hidden_size": width,
            "intermediate_size": 2 * width,
            "num_hidden_layers": 30,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "head_dim": 8,
            "max_position_embeddings": length,
            "sliding_window": None,
        },
        vision_config={
            "model_type": "pixtral",
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "image_size": 28,
            "patch_size": 14,
        },
        image_token_index=MARKS.index("[IMG]"),
    )
    return _TRANSFORMERS.Mistral3ForConditionalGeneration(config)
