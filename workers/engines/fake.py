"""An engine that draws nothing real: for tests and exercises about the fleet, on any machine and without torch.

A picture is a pattern that follows from model, parameters and seed, of the size a real engine would make. Directives in the prompt make
it misbehave: `[[step=0.5]]` seconds per step, `[[load=2]]` and `[[decode=1]]` seconds, `[[load-hang]]`, `[[hang]]` (in the middle step),
`[[oom]]`, `[[raise]]`, `[[invalid]]`, `[[exit]]` (dies in the middle step).
"""

import hashlib
import io
import math
import operator
import os
import re
import time
from collections import OrderedDict
from collections.abc import Generator
from typing import Final

from PIL import Image, ImageOps

from jobs.analysing.findings import SKETCH_LENGTH, Findings, Signature, TextVector, compared, text_digest
from jobs.contract import AnalyseParameters, InpaintParameters, JobParameters, Txt2ImgParameters, image_seed
from jobs.errors import DrawingFailed, OutOfMemory, PictureInvalid
from jobs.fleet import HeldComponent, Ledger
from jobs.geometry import Size, hires_size, outpainted_size, picture_count, steps_per_picture, total_steps
from jobs.parts import Hires
from jobs.pictures import pictures_of
from models_registry.entries import Kind
from models_registry.families import FAMILIES
from workers.engines.interface import (
    Analysed,
    Engine,
    Item,
    Link,
    PhaseBegan,
    Pictured,
    Previewed,
    Resident,
    Setup,
    Stepped,
)
from workers.engines.serving import OneAfterAnother

STEP_SECONDS: Final = 0.004
DIRECTIVE: Final = re.compile(r"\[\[([a-z-]+)(?:=([0-9.]+))?\]\]")
#: The pattern has so many cells a side.
CELLS: Final = 8
PREVIEW_SIDE: Final = 32
#: Width of the vectors of texts.
TEXT_WIDTH: Final = 64
#: What does not shape the picture: its model and its seed are counted apart, the rest is about delivery.
_SHAPELESS: Final = frozenset(
    {"model", "seed", "num_images", "output", "preview_every", "hardware", "priority", "deadline_s", "labels"}
)


def directives(prompt: str) -> dict[str, float]:
    """Return the directives of a prompt with their figures (0 where none is given)."""
    return {name: float(figure or 0) for name, figure in DIRECTIVE.findall(prompt)}


def pattern(model_key: str, parameters: JobParameters, seed: int, size: tuple[int, int], blend: float = 1.0) -> bytes:
    """Return RGB bytes of a picture of this width and height; a smaller `blend` is nearer to grey."""
    width, height = size
    shape = parameters.model_dump_json(exclude=set(_SHAPELESS))
    digest = hashlib.sha256(repr((model_key, shape, seed)).encode()).digest()
    colours = hashlib.shake_256(digest).digest(CELLS * CELLS * 3)
    mixed = bytes(round(128 + (value - 128) * blend) for value in colours)
    rows = []
    for row in range(CELLS):
        line = bytearray()
        for x in range(width):
            cell = (row * CELLS + x * CELLS // width) * 3
            line += mixed[cell : cell + 3]
        rows.append(bytes(line))
    return b"".join(rows[y * CELLS // height] for y in range(height))


def findings(item: Item, parameters: AnalyseParameters) -> Findings:
    """Return what a real engine would find, as numbers that follow from contents alone."""
    prints = [item.inputs.model(Kind.LORA, name).fingerprint for name in parameters.adapters]
    if parameters.subject == "weights":
        return Findings(signatures=tuple(Signature(each, 1.0, 1, _direction(each, SKETCH_LENGTH)) for each in prints))
    if parameters.subject == "comparison":
        one, *others = prints
        alike = [
            (other, math.fsum(map(operator.mul, _direction(one, SKETCH_LENGTH), _direction(other, SKETCH_LENGTH))))
            for other in others
        ]
        return Findings(comparisons=tuple(compared(one, other, cosine, 1) for other, cosine in alike))
    encoder = "" if item.entry is None else item.entry.fingerprint
    return Findings(
        vectors=tuple(TextVector(encoder, text_digest(text), _direction(text, TEXT_WIDTH)) for text in parameters.texts)
    )


def _direction(seed: str, length: int) -> tuple[float, ...]:
    """Return a vector of length 1."""
    values = [byte - 127.5 for byte in hashlib.shake_256(seed.encode()).digest(length)]
    whole = math.sqrt(math.fsum(value * value for value in values))
    return tuple(value / whole for value in values)


def finished_size(item: Item) -> Size:
    """Return the size of the pictures that a real engine would make."""
    parameters = item.parameters
    match parameters:
        case Txt2ImgParameters(hires=Hires() as hires) if item.entry is not None:
            step = FAMILIES[item.entry.family].size_step
            return hires_size(parameters.width, parameters.height, hires.scale, step)
        case InpaintParameters(inpaint_area="masked"):
            # The redrawn part goes back into the source.
            with Image.open(io.BytesIO(item.inputs.picture(parameters.image))) as source:
                return Size(*ImageOps.exif_transpose(source).size)
        case InpaintParameters():
            return outpainted_size(parameters.width, parameters.height, parameters.outpaint)
        case _:
            return Size(parameters.width, parameters.height)


class FakeEngine(OneAfterAnother):
    """Draw patterns, one item after another."""

    def __init__(self, setup: Setup) -> None:
        super().__init__()
        self._memory = setup.memory_bytes
        self._models: OrderedDict[str, int] = OrderedDict()
        self._loads = 0

    def draw(self, link: Link, item: Item) -> Generator[None]:
        """Draw an item as its prompt's directives say."""
        asked = directives(getattr(item.parameters, "prompt", ""))
        self._load(link, item, asked)
        yield
        link.send(PhaseBegan(item.job, item.epoch, "encode"))
        parameters = item.parameters
        if isinstance(parameters, AnalyseParameters):
            yield from self._analyse(link, item, parameters)
            return
        for ref in pictures_of(parameters).values():
            item.inputs.picture(ref)
        each = steps_per_picture(parameters)
        for index in range(picture_count(parameters)):
            link.send(PhaseBegan(item.job, item.epoch, "step"))
            for step in range(1, each + 1):
                self._step(link, item, asked, index, step)
                link.send(Stepped(item.job, item.epoch, index * each + step, total_steps(parameters), index))
                yield
            link.send(PhaseBegan(item.job, item.epoch, "decode"))
            time.sleep(asked.get("decode", 0.0))
            seed = image_seed(parameters, index)
            size = finished_size(item)
            rgb = pattern(_key(item), parameters, seed, size)
            link.send(Pictured(item.job, item.epoch, index, seed, *size, rgb))
            yield

    def _analyse(self, link: Link, item: Item, parameters: AnalyseParameters) -> Generator[None]:
        steps = total_steps(parameters)
        asked = directives("".join((*parameters.texts, *parameters.adapters)))
        link.send(PhaseBegan(item.job, item.epoch, "step"))
        for step in range(1, steps + 1):
            time.sleep(asked.get("step", STEP_SECONDS))
            link.send(Stepped(item.job, item.epoch, step, steps, 0))
            yield
        link.send(Analysed(item.job, item.epoch, findings(item, parameters)))

    def recover(self) -> None:
        """Do nothing: there is no device."""

    def _load(self, link: Link, item: Item, asked: dict[str, float]) -> None:
        link.send(PhaseBegan(item.job, item.epoch, "load"))
        key = _key(item)
        if key in self._models:
            self._models.move_to_end(key)
            return
        if "load-hang" in asked:
            _hang()
        time.sleep(asked.get("load", 0.0))
        while self._models and sum(self._models.values()) + _bytes(item) > self._memory:
            self._models.popitem(last=False)
        self._models[key] = _bytes(item)
        self._loads += 1
        held = tuple(
            HeldComponent(kind="checkpoint", name=key.partition("@")[0], bytes=size)
            for key, size in self._models.items()
        )
        ledger = Ledger(capacity_bytes=self._memory, components=held)
        link.send(Resident(tuple(self._models), self._loads, sum(self._models.values()), ledger))

    def _step(self, link: Link, item: Item, asked: dict[str, float], index: int, step: int) -> None:
        parameters = item.parameters
        time.sleep(asked.get("step", STEP_SECONDS))
        steps = steps_per_picture(parameters)
        if step == (steps + 1) // 2:
            _misbehave(asked)
        if parameters.preview_every and step % parameters.preview_every == 0:
            side = PREVIEW_SIDE
            rgb = pattern(_key(item), parameters, image_seed(parameters, index), (side, side), step / steps)
            link.send(Previewed(item.job, item.epoch, step, index, side, side, rgb))


def _key(item: Item) -> str:
    return item.parameters.task if item.entry is None else item.entry.model_key


def _bytes(item: Item) -> int:
    return 0 if item.entry is None else item.entry.bytes


def _misbehave(asked: dict[str, float]) -> None:
    if "oom" in asked:
        raise OutOfMemory("The device has too little memory for this job (as asked for).")
    if "raise" in asked:
        raise DrawingFailed("The engine raised an error (as asked for).")
    if "invalid" in asked:
        raise PictureInvalid("The picture is not a number (as asked for).")
    if "exit" in asked:
        os._exit(3)
    if "hang" in asked:
        _hang()


def _hang() -> None:
    while True:
        time.sleep(3600)


def build(setup: Setup) -> Engine:
    """Make the engine."""
    return FakeEngine(setup)
