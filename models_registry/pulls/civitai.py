"""Speak CivitAI's API: plan what to fetch, and look models up by the hashes of their files."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any, Final

from models_registry.pulls.failures import AnswerInvalid, FileRefused, SourceMissing
from models_registry.pulls.plans import Facts, Plan, WantedFile, line, plain_text, usable_name, words
from models_registry.pulls.sources import CivitaiSource
from models_registry.pulls.web import Web

#: Hashes one question may hold.
BATCH: Final = 100
MOST_PREVIEWS: Final = 4
#: CivitAI's own scale: 1 is fit for everyone.
_FIT_FOR_ALL: Final = 1
_SHA256_DIGITS: Final = 64

_Json = Mapping[str, Any]


def plan_civitai(web: Web, endpoint: str, source: CivitaiSource) -> Plan:
    """Return what to fetch for a CivitAI source, raising a `PullError`."""
    version_id = source.version if source.version is not None else _newest(read_model(web, endpoint, source.model))
    version = _dict(web.get_json(f"{endpoint}/api/v1/model-versions/{version_id}"))
    if source.model is not None and version.get("modelId") != source.model:
        raise SourceMissing(f"Version {version_id} is not one of model {source.model}.")
    model = read_model(web, endpoint, version.get("modelId"))
    file = _file(version)
    name = line(file.get("name"))
    sha256 = sha256_of(file)
    url = file.get("downloadUrl") or version.get("downloadUrl")
    if not isinstance(url, str) or not url:
        raise AnswerInvalid("CivitAI's answer names no address of the file.")
    wanted = WantedFile(name=PurePosixPath(name).name or "model.safetensors", url=url, sha256=sha256)
    called = usable_name(PurePosixPath(name).stem) or usable_name(line(model.get("name"))) or "model"
    return Plan(name=called, is_folder=False, files=(wanted,), facts=facts_of(version, model))


def read_model(web: Web, endpoint: str, model: object) -> _Json:
    """Return what CivitAI says of a model."""
    if not isinstance(model, int):
        raise AnswerInvalid("CivitAI's answer names no model.")
    return _dict(web.get_json(f"{endpoint}/api/v1/models/{model}"))


def versions_by_hash(web: Web, endpoint: str, hashes: Sequence[str]) -> dict[str, _Json]:
    """Return the versions that have a file of these SHA-256, by it; at most `BATCH` at once. Answers come in no order."""
    answer = web.post_json(f"{endpoint}/api/v1/model-versions/by-hash", [digest.upper() for digest in hashes])
    if not isinstance(answer, list):
        raise AnswerInvalid("CivitAI's answer is no list of versions.")
    asked = frozenset(hashes)
    found: dict[str, _Json] = {}
    for version in answer:
        if isinstance(version, dict):
            for file in _files(version):
                digest = sha256_of(file)
                if digest in asked:
                    found.setdefault(str(digest), version)
    return found


def facts_of(version: _Json, model: _Json) -> Facts:
    """Return what CivitAI says of one version of a model."""
    tags = model.get("tags")
    if isinstance(tags, list):
        tags = [tag.get("name") if isinstance(tag, dict) else tag for tag in tags]
    return Facts(
        source=f"civitai:{version.get('modelId')}@{version.get('id')}",
        description="\n\n".join(
            filter(None, (plain_text(model.get("description")), plain_text(version.get("description"))))
        ),
        licence=_licence(model),
        base_model=line(version.get("baseModel")),
        tags=words(tags),
        trigger_words=words(
            [word.strip().strip(",") for word in version.get("trainedWords") or () if isinstance(word, str)]
        ),
        previews=tuple(_previews(version))[:MOST_PREVIEWS],
    )


def sha256_of(file: _Json) -> str | None:
    """Return the SHA-256 of a version's file, where CivitAI knows it."""
    hashes = file.get("hashes")
    found = hashes.get("SHA256") if isinstance(hashes, dict) else None
    return found.lower() if isinstance(found, str) and len(found) == _SHA256_DIGITS else None


def _newest(model: _Json) -> int:
    versions = model.get("modelVersions")
    first = versions[0].get("id") if isinstance(versions, list) and versions and isinstance(versions[0], dict) else None
    if not isinstance(first, int):
        raise SourceMissing("The model has no version that can be fetched.")
    return first


def _file(version: _Json) -> _Json:
    files = [file for file in _files(version) if file.get("type") in {"Model", "Pruned Model", None}]
    safe = [file for file in files if _is_safetensors(file)]
    if not safe:
        if files:
            raise FileRefused("The version has no safetensors file, only formats that can run code.", "pickle_refused")
        raise SourceMissing("The version has no file.")
    return next((file for file in safe if file.get("primary")), safe[0])


def _is_safetensors(file: _Json) -> bool:
    facts = file.get("metadata")
    return (isinstance(facts, dict) and facts.get("format") == "SafeTensor") or line(file.get("name")).endswith(
        ".safetensors"
    )


def _files(version: _Json) -> list[_Json]:
    files = version.get("files")
    return [file for file in files if isinstance(file, dict)] if isinstance(files, list) else []


def _previews(version: _Json) -> Iterator[str]:
    images = version.get("images")
    for image in images if isinstance(images, list) else ():
        if not isinstance(image, dict) or image.get("type", "image") != "image":
            continue
        level = image.get("nsfwLevel", _FIT_FOR_ALL)
        if isinstance(image.get("url"), str) and (
            level == "None" or (isinstance(level, int) and level <= _FIT_FOR_ALL)
        ):
            yield image["url"]


def _licence(model: _Json) -> str:
    """Say in a few words what the model's maker allows."""
    if "allowCommercialUse" not in model and "allowNoCredit" not in model:
        return ""
    uses = model.get("allowCommercialUse")
    uses = [uses] if isinstance(uses, str) else uses if isinstance(uses, list) else []
    sold = sorted({line(use) for use in uses} - {"None", ""})
    terms = [
        "no credit needed" if model.get("allowNoCredit") else "credit needed",
        f"commercial use: {', '.join(sold)}" if sold else "no commercial use",
        "may be merged" if model.get("allowDerivatives") else "may not be merged",
    ]
    if not model.get("allowDifferentLicense"):
        terms.append("same terms for what is made of it")
    return "CivitAI: " + "; ".join(terms)


def _dict(answer: object) -> _Json:
    if not isinstance(answer, dict):
        raise AnswerInvalid("CivitAI's answer is no description of a model.")
    return answer
