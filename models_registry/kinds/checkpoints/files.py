"""Checkpoints that are one file, in the layout their family was first published in or other programs save it in.

What tensors do not tell lies beside `model.safetensors` in a folder `model.config`, laid out as a diffusers folder; a published size needs
none. Components that the file lacks are read from there, weights and all.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from models_registry.diffusers_classes import CLASSES, DIFFUSERS_WEIGHTS, layout_of
from models_registry.entries import Kind
from models_registry.families import FAMILIES, Prediction
from models_registry.findings import Findings, component
from models_registry.kinds import parts
from models_registry.kinds.checkpoints.described import Described, Told
from models_registry.kinds.checkpoints.folders import DESCRIBE
from models_registry.kinds.checkpoints.originals import NETWORK, OTHERS, Original, Piece, original_of, start_of
from models_registry.kinds.checkpoints.predicting import predicted
from models_registry.kinds.checkpoints.shapes import FileShape, file_shape
from models_registry.kinds.parts import SCHEDULER
from models_registry.kinds.single_files import config_folder, latent_facts
from models_registry.published import PUBLISHED
from models_registry.reading.bounded_files import Reads
from models_registry.reading.configs import Config
from models_registry.reading.safetensors_header import Header
from models_registry.reading.weights import Tensors, Weights, check_shape, dimension, read_weights
from models_registry.recommendations import Recommendations, check_scheduler, read_recommendations
from models_registry.refusals import ConfigInvalid, Unrecognised, WeightsMismatch

#: What trainers and programs write about a checkpoint, the most telling first.
_SAID: Final = ("modelspec.architecture", "modelspec.title", "ss_base_model_version", "ss_output_name")
_SQUARE: Final = re.compile(r"(\d{1,5})x(\d{1,5})", re.ASCII)
#: Beginnings of names that a transformer has in diffusers' folders.
_DIFFUSERS: Final = ("single_transformer_blocks.", "transformer_blocks.0.")
#: Ends of names that only quantised weights have.
_QUANTISED: Final = (".absmax", ".quant_map", ".scale_weight", ".comfy_quant")
_TITLES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "unet": "UNet",
        "transformer": "transformer",
        "vae": "VAE",
        "text_encoder": "text encoder",
        "text_encoder_2": "second text encoder",
        "text_encoder_3": "third text encoder",
        "tokenizer": "tokenizer",
    }
)


class _Part(NamedTuple):
    """One component, in the file or beside it."""

    piece: Piece
    #: What the file's names of its tensors begin with; None where it lies beside the file.
    start: str | None
    config: Config
    #: Whether its configuration lies beside the file.
    is_told: bool
    weights: Weights | None = None


class _Context(NamedTuple):
    """What every part of a file is read with."""

    header: Header
    original: Original
    folder: Path
    reads: Reads


def from_file(header: Header, reads: Reads) -> Findings | None:
    """Read one checkpoint, raising a `ModelRefused` for one that cannot be drawn; None for what is no checkpoint."""
    _refuse_others(header)
    original = original_of(header)
    if original is None:
        if any(name.startswith(NETWORK) for name in header.tensors):
            raise Unrecognised(header.path, "has a network of no family that is known here")
        _refuse_pieces(header)
        return None
    _refuse_relatives(header, original)
    if any(name.endswith(_QUANTISED) for name in header.tensors):
        raise Unrecognised(header.path, "has quantised weights, which are not supported yet; plain fp8 files are")
    context = _Context(header, original, config_folder(header.path), reads)
    found = list(_parts(context))
    for part in found:
        if part.start is not None:
            _check_shapes(context, part, part.start)
    hints = read_recommendations(context.folder, reads)
    scheduler = _scheduler(context, found[0], hints)
    described = _described(context, found, scheduler, hints)
    tokenizers = list(_tokenizers(context))
    beside = [part for part in found if part.weights is not None]
    configs = [each for each in (*(part.config for part in found), scheduler) if each.path != header.path]
    return Findings(
        kind=Kind.CHECKPOINT,
        weights={
            # As the only file of other kinds is called.
            "weights": header,
            **{
                name: each
                for part in beside
                if part.weights
                for name, each in part.weights.named(part.piece.component).items()
            },
        },
        components=tuple(component(part.piece.component, _tensors(header, part)) for part in found),
        others={
            str(path.relative_to(context.folder)): path
            for path in (
                *(config.path for config in configs),
                *tokenizers,
                *(part.weights.listing for part in beside if part.weights and part.weights.listing),
            )
        },
        default_steps=hints.steps,
        default_guidance_scale=hints.guidance_scale,
        default_scheduler=hints.scheduler,
        **described._asdict(),
    )


def _refuse_others(header: Header) -> None:
    for mark, title in OTHERS.items():
        if any(name.startswith((mark, f"{NETWORK}{mark}")) for name in header.tensors):
            raise Unrecognised(header.path, f"is a checkpoint of {title}, which is not supported yet")


def _refuse_relatives(header: Header, original: Original) -> None:
    for title, pattern in original.relatives.items():
        if any(pattern.search(text) for text in _texts(header)):
            raise Unrecognised(header.path, f"is a checkpoint of {title} by its name, which is not supported yet")


def _refuse_pieces(header: Header) -> None:
    if any(name.startswith(_DIFFUSERS) for name in header.tensors):
        raise Unrecognised(
            header.path,
            "is a transformer in diffusers' names without its configuration; put both into the folder of a model, as"
            f" transformer/{DIFFUSERS_WEIGHTS}",
        )


def _parts(context: _Context) -> Iterator[_Part]:
    missing = []
    for place, piece in enumerate(context.original.pieces):
        part = _in_file(context, piece) if place == 0 else _in_file(context, piece) or _beside(context, piece)
        if part is not None:
            yield part
        elif piece.component not in context.original.optional:
            missing.append(piece.component)
    missing += [name for name in context.original.beside if not (context.folder / name).is_dir()]
    if missing:
        names = " and no ".join(_TITLES[name] for name in missing)
        raise Unrecognised(
            context.header.path,
            f"is {FAMILIES[context.original.family].title} and holds no {names}: put what is missing beside it, as diffusers folders"
            f" {', '.join(f'{context.folder.name}/{name}' for name in missing)}",
        )


def _in_file(context: _Context, piece: Piece) -> _Part | None:
    start = start_of(context.header, piece)
    if start is None:
        return None
    if (context.folder / piece.component).is_dir():
        return _Part(piece, start, parts.read_part(context.folder, piece.component, piece.name, context.reads), True)
    published = PUBLISHED[context.original.published(context.header, _network(context))]
    own = context.original.settings(context.header, start) if piece is context.original.pieces[0] else {}
    return _Part(piece, start, Config(context.header.path, {**published[piece.component], **own}), False)


def _beside(context: _Context, piece: Piece) -> _Part | None:
    place = context.folder / piece.component
    if not place.is_dir():
        return None
    config = parts.read_part(context.folder, piece.component, piece.name, context.reads)
    weights = read_weights(place, CLASSES[piece.name].weights, context.reads)
    shape = file_shape(piece.name)
    check_shape(weights, shape.folder_names, shape.whole(config))
    return _Part(piece, None, config, True, weights)


def _network(context: _Context) -> str:
    return start_of(context.header, context.original.pieces[0]) or ""


def _tensors(header: Header, part: _Part) -> Iterator[Any]:
    if part.weights is not None:
        yield from part.weights.tensors.values()
        return
    yield from (
        tensor for name, tensor in header.tensors.items() if part.start is not None and name.startswith(part.start)
    )


def _check_shapes(context: _Context, part: _Part, start: str) -> None:
    """Hold the tensors of a component against its configuration."""
    header, shape = context.header, file_shape(part.piece.name)
    if part.piece.name == "AutoencoderKL":
        latents = latent_facts(header, start)
        parts.check_factor(header.path, latents.factor, FAMILIES[context.original.family])
        _check_drawn(context, latents.channels)
    found, said = _found(header, shape, start), shape.telling(part.config)
    if found != said:
        raise _mismatch(context, part, found, said)
    for ends, key in shape.text_inputs:
        read = {dimension(header, name, 1) for name in header.tensors if name.startswith(start) and name.endswith(ends)}
        if read != {part.config.whole(key, shape.text_default)}:
            raise WeightsMismatch(
                header.path,
                f"reads text features of width {sorted(read)}; its configuration says {part.config.values.get(key)}",
            )


def _found(header: Tensors, shape: FileShape, start: str) -> tuple[int, ...]:
    name = next(
        (f"{start}{each}" for each in shape.names if f"{start}{each}" in header.tensors), f"{start}{shape.names[0]}"
    )
    return tuple(dimension(header, name, place) for place in shape.dimensions)


def _check_drawn(context: _Context, channels: int) -> None:
    """Raise `WeightsMismatch` unless a VAE decodes what a UNet draws; transformers are held against their settings."""
    last = f"{NETWORK}out.2.weight"
    if last in context.header.tensors and dimension(context.header, last, 0) != channels:
        raise WeightsMismatch(
            context.header.path, "has a UNet and a VAE that differ in their number of latent channels"
        )


def _mismatch(
    context: _Context, part: _Part, found: tuple[int, ...], said: tuple[int, ...]
) -> ConfigInvalid | WeightsMismatch:
    title, name = _TITLES[part.piece.component], part.piece.component
    if part.is_told:
        return WeightsMismatch(context.header.path, f"has sizes {list(found)} where {name} beside it says {list(said)}")
    return ConfigInvalid(
        context.header.path,
        f"has a {title} of another size than {FAMILIES[context.original.family].title} ({list(found)} where {list(said)} is usual);"
        f" its configuration must lie beside it as {context.folder.name}/{name}/config.json",
    )


def _scheduler(context: _Context, network: _Part, hints: Recommendations) -> Config:
    family = FAMILIES[context.original.family]
    is_flow = any(facts.prediction is Prediction.FLOW for facts in family.variants.values())
    if (context.folder / SCHEDULER).is_dir():
        return parts.read_scheduler(context.folder, context.reads, flow=is_flow)
    published = PUBLISHED[context.original.published(context.header, network.start or "")][SCHEDULER]
    if is_flow:
        return Config(context.header.path, published)
    prediction = predicted(
        context.header, context.original.family, hints.variant, _texts(context.header), context.reads
    )
    return Config(context.header.path, {**published, "prediction_type": prediction})


def _texts(header: Header) -> tuple[str, ...]:
    return (*(header.metadata[key] for key in _SAID if header.metadata.get(key)), header.path.stem)


def _described(context: _Context, found: list[_Part], scheduler: Config, hints: Recommendations) -> Described:
    header = context.header
    configs = {**{part.piece.component: part.config for part in found}, SCHEDULER: scheduler}
    describe: Callable[..., Described] = DESCRIBE[context.original.family]
    described = describe(configs, Told(context.folder, hints.variant, _texts(header)))
    facts = FAMILIES[described.family].variants[described.variant]
    check_scheduler(context.folder, hints, facts)
    if found[0].is_told:
        return described
    return described._replace(native_size=_native_size(header, described, facts.native_size))


def _native_size(header: Header, described: Described, usual: int) -> int:
    """Return the side that a trainer wrote into a file, as `512x512`; else that of the variant, else that of the family."""
    family = FAMILIES[described.family]
    found = _SQUARE.fullmatch(header.metadata.get("modelspec.resolution", ""))
    size = int(found[1]) if found is not None and found[1] == found[2] else 0
    return size if 0 < size <= family.max_side and size % family.size_step == 0 else usual or described.native_size


def _tokenizers(context: _Context) -> Iterator[Path]:
    layout = layout_of(context.original.family, context.original.pipeline)
    for name, classes in layout.components.items():
        if name.startswith("tokenizer") and (context.folder / name).is_dir():
            known = frozenset(each for _, each in classes)
            yield from parts.read_tokenizer(context.folder, name, known, context.reads)
