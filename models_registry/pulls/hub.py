"""Plan what to fetch from the Hugging Face hub: one file, a diffusers folder, or one component's folder.

The hub's own library fetches with one client for the whole process, which could not be guarded for each request, and keeps a cache of its
own; so its two doors are spoken to directly: `/api/models/…` lists a revision with sizes and hashes, `/resolve/` gives a file of it.
"""

from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any, Final
from urllib.parse import quote

from models_registry.pulls.failures import AnswerInvalid, FileRefused, SourceMissing
from models_registry.pulls.plans import Facts, Plan, WantedFile, line, usable_name, words
from models_registry.pulls.sources import HubSource, is_inner_path
from models_registry.pulls.web import Web
from models_registry.reading.weights import PICKLE_SUFFIXES

_SAFETENSORS: Final = ".safetensors"
_INDEX: Final = "model_index.json"
#: What a model recommends of itself.
_HINTS: Final = "imagefleet.json"
_CONFIG: Final = "config.json"
_WHOLE_WEIGHTS: Final = ("diffusion_pytorch_model", "model")
#: Half precision draws as well and is half as large; it is fetched only where nothing else is there.
_VARIANT: Final = ".fp16"
#: What a folder needs beside its weights.
_TEXTS: Final = frozenset({".json", ".txt", ".model"})
#: Looks at finished pictures, and is larger than the model.
_LEFT_OUT: Final = frozenset({"safety_checker"})
#: Names that say nothing of the model in the file.
_EMPTY_NAMES: Final = frozenset({"pytorch_lora_weights", "diffusion_pytorch_model", "model", "adapter_model"})
MOST_FILES: Final = 1000

_Sibling = Mapping[str, Any]


def plan_hub(web: Web, endpoint: str, source: HubSource) -> Plan:
    """Return what to fetch for a hub source, raising a `PullError`."""
    answer = web.get_json(f"{endpoint}/api/models/{source.repo}/revision/{quote(source.revision, safe='')}?blobs=true")
    siblings = answer.get("siblings") if isinstance(answer, dict) else None
    commit = answer.get("sha") if isinstance(answer, dict) else None
    if not isinstance(siblings, list) or not isinstance(commit, str) or not commit.isalnum():
        raise AnswerInvalid("The hub's answer lists no files.")
    found = {
        each["rfilename"]: each
        for each in siblings
        if isinstance(each, dict) and isinstance(each.get("rfilename"), str)
    }
    chosen, is_folder = _choose(source, found)
    if len(chosen) > MOST_FILES:
        raise SourceMissing(f"The repository holds more than {MOST_FILES} files; a model has fewer.")

    def wanted(path: str, name: str) -> WantedFile:
        url = f"{endpoint}/{source.repo}/resolve/{commit}/{quote(path)}"
        return _wanted(found[path], name, url)

    files = tuple(wanted(path, name) for path, name in chosen.items())
    return Plan(name=_name(source, files, is_folder), is_folder=is_folder, files=files, facts=_facts(source, answer))


def _choose(source: HubSource, found: Mapping[str, _Sibling]) -> tuple[Mapping[str, str], bool]:
    """Return the paths to fetch, each with the name it gets, and whether they make a folder."""
    if source.file is not None:
        if source.file not in found:
            raise SourceMissing(f"The repository has no file {source.file[:200]!r} at {source.revision[:60]!r}.")
        _refuse_others(source.file)
        return {source.file: PurePosixPath(source.file).name}, False
    paths = [path for path in sorted(found) if is_inner_path(path)]
    if _INDEX in found:
        return _folder(paths), True
    if _CONFIG in found and any(_plain(path) == f"{_WHOLE_WEIGHTS[0]}{_SAFETENSORS}" for path in paths):
        return {**_weights(paths, ""), _CONFIG: _CONFIG}, True
    loose = [path for path in paths if "/" not in path and path.endswith(_SAFETENSORS)]
    if len(loose) == 1:
        return {loose[0]: loose[0]}, False
    if loose:
        raise SourceMissing(f"The repository holds several models: name one, such as {source.repo}:{loose[0]}.")
    raise _nothing(paths)


def _folder(paths: Sequence[str]) -> Mapping[str, str]:
    chosen: dict[str, str] = {}
    for path in paths:
        folder, _, file = path.rpartition("/")
        if folder.partition("/")[0] in _LEFT_OUT or PurePosixPath(file).suffix not in _TEXTS:
            continue
        if folder or file in {_INDEX, _HINTS}:
            chosen[path] = path
    weights: dict[str, str] = {}
    for folder in sorted({path.rpartition("/")[0] for path in paths} - _LEFT_OUT):
        if folder:
            weights |= _weights(paths, f"{folder}/")
    if not weights:
        raise _nothing(paths)
    # The index of weights in pieces is of no use without them.
    return {path: name for path, name in chosen.items() if not path.endswith(".index.json")} | weights


def _weights(paths: Sequence[str], folder: str) -> dict[str, str]:
    """Return the weights of one component's folder, a variant under the plain name."""
    for stem in _WHOLE_WEIGHTS:
        plain = f"{folder}{stem}{_SAFETENSORS}"
        for path in (plain, f"{folder}{stem}{_VARIANT}{_SAFETENSORS}"):
            if path in paths:
                return {path: plain}
    return {}


def _plain(path: str) -> str:
    return path.replace(f"{_VARIANT}{_SAFETENSORS}", _SAFETENSORS)


def _refuse_others(path: str) -> None:
    suffix = PurePosixPath(path).suffix.lower()
    if suffix in PICKLE_SUFFIXES:
        raise FileRefused("The file is a pickle, which can run code when it is opened.", "pickle_refused")
    if suffix != _SAFETENSORS:
        raise FileRefused("Only safetensors files are fetched.", "not_safetensors")


def _nothing(paths: Sequence[str]) -> FileRefused | SourceMissing:
    if any(PurePosixPath(path).suffix.lower() in PICKLE_SUFFIXES for path in paths):
        return FileRefused("The repository holds its weights only as pickles, which can run code.", "pickle_refused")
    return SourceMissing("The repository holds no model that is known here.")


def _wanted(sibling: _Sibling, name: str, url: str) -> WantedFile:
    large = sibling.get("lfs")
    size = large.get("size") if isinstance(large, dict) else sibling.get("size")
    sha256 = large.get("sha256") if isinstance(large, dict) else None
    git = sibling.get("blobId") if not isinstance(large, dict) else None
    return WantedFile(
        name=name,
        url=url,
        bytes=size if isinstance(size, int) and size >= 0 else None,
        sha256=sha256.lower() if isinstance(sha256, str) else None,
        git_sha1=git.lower() if isinstance(git, str) else None,
    )


def _name(source: HubSource, files: Sequence[WantedFile], is_folder: bool) -> str:  # noqa: FBT001 - of this file alone
    repo = source.repo.partition("/")[2]
    stem = repo if is_folder else PurePosixPath(files[0].name).stem
    return usable_name(repo if stem in _EMPTY_NAMES else stem) or "model"


def _facts(source: HubSource, answer: Mapping[str, Any]) -> Facts:
    card = answer.get("cardData")
    card = card if isinstance(card, dict) else {}
    base = card.get("base_model")
    prompt = card.get("instance_prompt")
    tags = answer.get("tags") if isinstance(answer.get("tags"), list) else ()
    return Facts(
        source=f"hf:{source.repo}",
        licence=line(card.get("license_name")) or line(card.get("license")),
        base_model=line(base[0] if isinstance(base, list) and base else base),
        # Tags of the form `license:…` repeat the card.
        tags=words([tag for tag in tags or () if isinstance(tag, str) and ":" not in tag]),
        trigger_words=words([prompt]),
    )
