"""Checkpoints in diffusers' layout: a folder whose model_index.json names the components."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final, NamedTuple

from models_registry import findings
from models_registry.diffusers_classes import CLASSES, LATER_PIPELINES, FolderLayout, layout_of
from models_registry.entries import Kind
from models_registry.families import FAMILIES, FamilyFacts, Prediction
from models_registry.findings import Findings
from models_registry.kinds import parts
from models_registry.kinds.checkpoints import flux, flux2, qwenimage, sd, sd3, sdxl, zimage
from models_registry.kinds.checkpoints.described import Described, Told
from models_registry.kinds.checkpoints.shapes import expected
from models_registry.kinds.parts import SCHEDULER, Configs
from models_registry.reading.bounded_files import Reads
from models_registry.reading.configs import Config
from models_registry.reading.safetensors_header import Header
from models_registry.reading.weights import Weights, check_shape, read_weights
from models_registry.recommendations import check_scheduler, read_recommendations
from models_registry.refusals import ClassRefused, ConfigInvalid, Unrecognised

#: By family; Stable Diffusion 1.x and 2.x are told apart by the module that they share.
DESCRIBE: Final[Mapping[str, Callable[[Configs, Told], Described]]] = MappingProxyType(
    {
        "sd15": sd.describe,
        "sd2": sd.describe,
        "sdxl": sdxl.describe,
        "sd3": sd3.describe,
        "flux": flux.describe,
        "flux2": flux2.describe,
        "qwenimage": qwenimage.describe,
        "zimage": zimage.describe,
    }
)


class _Folder(NamedTuple):
    """What was read of a folder."""

    configs: Configs
    tokenizers: list[Path]
    weights: Mapping[str, Weights]


def from_folder(index: Config, reads: Reads) -> Findings:
    """Read one diffusers folder by its index, raising a `ModelRefused` that says why it is not offered."""
    folder = index.path.parent
    family = _family(index)
    layout = layout_of(family.name, str(index.values["_class_name"]))
    named = _components(index, layout)
    configs = _configs(folder, named, layout, family, reads)
    tokenizers = [
        file
        for name in named
        if name.startswith("tokenizer")
        for file in parts.read_tokenizer(folder, name, frozenset(each for _, each in layout.components[name]), reads)
    ]
    hints = read_recommendations(folder, reads)
    # The shapes are only looked at once everything else is sound: a header may be long.
    described = DESCRIBE[family.name](configs, Told(folder, hints.variant, (folder.name,), _settings(index, layout)))
    check_scheduler(folder, hints, FAMILIES[described.family].variants[described.variant])
    weights = {
        name: read_weights(folder / name, CLASSES[named[name]].weights, reads)
        for name in layout.weights
        if name in named
    }
    for name, tensors, shape in expected(named, configs):
        check_shape(weights[name], tensors, shape)
    found = _Folder(configs, tokenizers, weights)
    return Findings(
        kind=Kind.CHECKPOINT,
        weights=_headers(weights),
        components=tuple(findings.component(name, each.tensors.values()) for name, each in weights.items()),
        others={str(path.relative_to(folder)): path for path in _others(index, found)},
        default_steps=hints.steps,
        default_guidance_scale=hints.guidance_scale,
        default_scheduler=hints.scheduler,
        **described._asdict(),
    )


def _family(index: Config) -> FamilyFacts:
    pipeline = index.values.get("_class_name")
    if not isinstance(pipeline, str):
        raise ClassRefused(index.path, "names a pipeline of its own; only those of diffusers are drawn")
    if pipeline in LATER_PIPELINES:
        raise Unrecognised(index.path, f"{LATER_PIPELINES[pipeline]} ({pipeline}) is not supported yet")
    for family in FAMILIES.values():
        if pipeline in family.pipeline_classes:
            return family
    raise ClassRefused(index.path, f"names the pipeline {pipeline[:60]!r}, which is not on the list of known ones")


def _components(index: Config, layout: FolderLayout) -> dict[str, str]:
    """Return the class of each component that is there."""
    found = {}
    for component, value in index.values.items():
        if component.startswith("_") or component in layout.settings:
            continue
        if component not in layout.components:
            raise ClassRefused(index.path, f"names the component {component[:60]!r}, which this family does not have")
        if value in (None, [None, None]):
            continue
        if not isinstance(value, list) or tuple(map(str, value)) not in layout.components[component]:
            raise ClassRefused(
                index.path, f"names {str(value)[:80]} as {component}, which is not on the list of known classes"
            )
        found[component] = str(value[1])
    missing = sorted(layout.components.keys() - layout.optional - found.keys())
    # What reads prompts and what cuts them into words come together.
    missing += [
        other
        for name in found
        if (other := _partner(name)) in layout.components and other not in found and other not in missing
    ]
    if missing:
        raise ConfigInvalid(index.path, f"names no {' and no '.join(missing)}")
    return found


def _settings(index: Config, layout: FolderLayout) -> Mapping[str, object]:
    return {name: index.values.get(name) for name in layout.settings}


def _partner(component: str) -> str:
    if component.startswith("tokenizer"):
        return component.replace("tokenizer", "text_encoder")
    return component.replace("text_encoder", "tokenizer")


def _configs(
    folder: Path, named: Mapping[str, str], layout: FolderLayout, family: FamilyFacts, reads: Reads
) -> Configs:
    configs = {name: parts.read_part(folder, name, named[name], reads) for name in layout.weights if name in named}
    is_flow = any(facts.prediction is Prediction.FLOW for facts in family.variants.values())
    configs[SCHEDULER] = parts.read_scheduler(folder, reads, flow=is_flow).of_class(named[SCHEDULER])
    return configs


def _headers(weights: Mapping[str, Weights]) -> Mapping[str, Header]:
    return {name: header for component, each in weights.items() for name, header in each.named(component).items()}


def _others(index: Config, found: _Folder) -> Iterator[Path]:
    yield index.path
    yield from (config.path for config in found.configs.values())
    yield from found.tokenizers
    yield from (each.listing for each in found.weights.values() if each.listing is not None)
