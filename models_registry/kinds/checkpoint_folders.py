"""Checkpoints in diffusers' layout: a folder whose model_index.json names the components."""

from models_registry import findings
from models_registry.bounded_files import Reads
from models_registry.configs import Config
from models_registry.diffusers_classes import LATER_PIPELINES, SD_COMPONENTS, SD_WEIGHTS
from models_registry.entries import Kind
from models_registry.families import FAMILIES, FamilyFacts
from models_registry.findings import Findings
from models_registry.kinds import parts
from models_registry.kinds.parts import Parts
from models_registry.kinds.unets import variant_of
from models_registry.recommendations import read_recommendations
from models_registry.refusals import ClassRefused, ConfigInvalid, Unrecognised
from models_registry.safetensors_header import Header
from models_registry.weights import check_shape, read_weights


def from_folder(index: Config, reads: Reads) -> Findings:
    """Read one diffusers folder by its index, raising a `ModelRefused` that says why it is not offered."""
    folder = index.path.parent
    family = _family(index)
    _check_components(index)
    found = Parts(
        unet=parts.read_unet(folder, reads),
        vae=parts.read_vae(folder, reads),
        text_encoder=parts.read_text_encoder(folder, reads),
        scheduler=parts.read_scheduler(folder, reads).of_class(index.values["scheduler"][1]),
    )
    tokenizer = parts.read_tokenizer(folder, reads)
    parts.check(found, family)
    latent_factor = parts.latent_factor(found.vae, family)
    native_size = parts.native_size(found.unet, family, latent_factor)
    headers = {name: read_weights(folder / name, file, reads) for name, file in SD_WEIGHTS.items()}
    _check_shapes(found, headers)
    configs = [index.path, *(part.path for part in found), *tokenizer]
    hints = read_recommendations(folder, family, reads)
    return Findings(
        kind=Kind.CHECKPOINT,
        family=family.name,
        weights=headers,
        components=tuple(findings.component(name, header.tensors.values()) for name, header in headers.items()),
        others={str(path.relative_to(folder)): path for path in configs},
        variant=variant_of(parts.in_channels(found.unet)),
        native_size=native_size,
        latent_factor=latent_factor,
        latent_channels=found.vae.whole("latent_channels"),
        text_width=found.text_encoder.whole("hidden_size"),
        text_layers=found.text_encoder.whole("num_hidden_layers", parts.TEXT_LAYERS),
        default_steps=hints.steps,
        default_guidance_scale=hints.guidance_scale,
        default_scheduler=hints.scheduler,
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


def _check_components(index: Config) -> None:
    found = set()
    for component, value in index.values.items():
        if component.startswith("_") or component == "requires_safety_checker":
            continue
        if component not in SD_COMPONENTS:
            raise ClassRefused(index.path, f"names the component {component[:60]!r}, which this family does not have")
        if value in (None, [None, None]):
            continue
        if not isinstance(value, list) or tuple(map(str, value)) not in SD_COMPONENTS[component]:
            raise ClassRefused(
                index.path, f"names {str(value)[:80]} as {component}, which is not on the list of known classes"
            )
        found.add(component)
    missing = sorted({*SD_WEIGHTS, "tokenizer", "scheduler"} - found)
    if missing:
        raise ConfigInvalid(index.path, f"names no {' and no '.join(missing)}")


def _check_shapes(found: Parts, headers: dict[str, Header]) -> None:
    width = found.unet.wholes("block_out_channels")[0]
    channels = found.vae.whole("latent_channels")
    words, text_width = found.text_encoder.whole("vocab_size", 49408), found.text_encoder.whole("hidden_size")
    check_shape(headers["unet"], ("conv_in.weight",), (width, parts.in_channels(found.unet)))
    check_shape(headers["vae"], ("decoder.conv_in.weight",), (found.vae.wholes("block_out_channels")[-1], channels))
    embedding = "embeddings.token_embedding.weight"
    check_shape(headers["text_encoder"], (embedding, f"text_model.{embedding}"), (words, text_width))
