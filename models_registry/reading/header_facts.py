"""Read what trainers write into a safetensors header: kohya's `ss_…`, the modelspec, and the layers a LoRA changes.

Everything here was written by a stranger: it is shown and suggested, and decides nothing.
"""

import json
import re
from collections import Counter
from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import Any, Final

from models_registry.reading.safetensors_header import Header

#: Of free text, and of the tags that the captions of a training had.
MAX_TEXT: Final = 4000
MAX_LINE: Final = 200
MAX_TAGS: Final = 100
MAX_WORDS: Final = 20
#: Of everything else that the header says, characters.
MAX_RAW: Final = 32_000

#: Fact → the keys that may hold it, the most telling first.
_KEYS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "title": ("modelspec.title", "ss_output_name"),
        "author": ("modelspec.author",),
        "description": ("modelspec.description",),
        "licence": ("modelspec.license",),
        "trigger_phrase": ("modelspec.trigger_phrase", "modelspec.trigger_word"),
        "base_model": ("modelspec.architecture", "ss_base_model_version", "ss_sd_model_name"),
        "resolution": ("modelspec.resolution", "ss_resolution"),
        "date": ("modelspec.date",),
        "usage_hint": ("modelspec.usage_hint",),
        "body_sha256": ("modelspec.hash_sha256", "sshs_model_hash"),
        "network": ("ss_network_module",),
    }
)
_NUMBERS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "alpha": "ss_network_alpha",
        "clip_skip": "ss_clip_skip",
        "epochs": "ss_epoch",
        "pictures": "ss_num_train_images",
        "steps": "ss_steps",
    }
)
#: Shown as facts of their own, or of no use to people.
_TAGS: Final = "ss_tag_frequency"
_MODULE: Final = re.compile(
    r"(to_[qkv]|to_out|proj_in|proj_out|ff[._]net|[qkv]_proj|out_proj|fc[12]|conv_shortcut|conv[12]?|time_emb_proj|qkv|proj)(?:[._]|$)"
)
_END: Final = re.compile(r"\.(?:lora_|lora\.|hada_|lokr_|alpha$|dora_scale$)|_lora\.")
#: Postgres keeps neither in JSON.
_UNSTORABLE: Final = re.compile("[\x00\ud800-\udfff]")


def header_facts(headers: Collection[Header]) -> dict[str, Any]:
    """Return what the headers of a model say, in JSON's terms; of several files, what any of them says."""
    said = {key: value for header in headers for key, value in header.metadata.items()}
    facts: dict[str, Any] = {}
    for fact, keys in _KEYS.items():
        text = next((clean(said[key]) for key in keys if said.get(key, "").strip() not in {"", "None"}), "")
        if text:
            facts[fact] = text
    for fact, key in _NUMBERS.items():
        number = _number(said.get(key, ""))
        if number is not None:
            facts[fact] = number
    tags = _training_tags(said.get(_TAGS, ""))
    if tags:
        facts["training_tags"] = tags
    modules = sorted({module for header in headers for module in _modules(header)})
    if modules:
        facts["target_modules"] = modules
    raw = _rest(said)
    if raw:
        facts["header"] = raw
    return facts


def suggestions(said: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a new entry may take from its headers, by the names of its facts."""
    words = [word.strip() for word in said.get("trigger_phrase", "").split(",") if word.strip()]
    return {
        "description": said.get("description", ""),
        "licence": clean(said.get("licence", ""), MAX_LINE),
        "base_model": clean(said.get("base_model", ""), MAX_LINE),
        "trigger_words": list(dict.fromkeys(clean(word, MAX_LINE) for word in words))[:MAX_WORDS],
    }


def clean(text: str, longest: int = MAX_TEXT) -> str:
    """Return text that a database keeps, shortened where it is long."""
    return _UNSTORABLE.sub("", text)[:longest].strip()


def _number(text: str) -> float | int | None:
    try:
        number = float(text)
    except ValueError:
        return None
    if not abs(number) < 1e12:  # noqa: PLR2004 - neither infinite nor NaN, and a number of something
        return None
    return int(number) if number == int(number) else number


def _training_tags(text: str) -> list[dict[str, Any]]:
    """Return how often each tag stood in the captions, the most frequent first."""
    try:
        # By folder of pictures.
        folders = json.loads(text)
    except (ValueError, RecursionError):
        return []
    counts: Counter[str] = Counter()
    for tags in folders.values() if isinstance(folders, dict) else ():
        for tag, count in tags.items() if isinstance(tags, dict) else ():
            if type(count) is int and 0 < count < 2**31:
                counts[clean(tag, 100)] += count
    return [{"tag": tag, "count": count} for tag, count in counts.most_common(MAX_TAGS) if tag]


def _modules(header: Header) -> set[str]:
    """Return the kinds of layers that a LoRA changes."""
    found = set()
    for name in header.tensors:
        layer = _END.split(name, maxsplit=1)[0]
        if layer != name:
            kinds = _MODULE.findall(layer)
            if kinds:
                found.add(kinds[-1].replace("_net", ".net"))
    return found


def _rest(said: Mapping[str, str]) -> dict[str, str]:
    left = MAX_RAW
    kept: dict[str, str] = {}
    for key, value in sorted(said.items()):
        if key == _TAGS or key.startswith("modelspec.thumbnail"):
            continue
        name, text = clean(key, MAX_LINE), clean(value)
        left -= len(name) + len(text)
        if left < 0:
            break
        kept[name] = text
    return kept
