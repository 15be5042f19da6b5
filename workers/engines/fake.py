"""An engine that draws nothing real: for tests and exercises about the fleet, on any machine and without torch.

A picture is a pattern that follows from model, parameters and seed. Directives in the prompt make it misbehave:
`[[step=0.5]]` seconds per step, `[[load=2]]` and `[[decode=1]]` seconds, `[[load-hang]]`, `[[hang]]` (in the middle step), `[[oom]]`,
`[[raise]]`, `[[invalid]]`, `[[exit]]` (dies in the middle step).
"""

import hashlib
import os
import re
import time
from collections import OrderedDict, deque
from collections.abc import Iterator
from typing import Final

from jobs.contract import JobParameters, image_seed
from models_registry.entries import ModelEntry
from workers.engines.interface import (
    Cancel,
    Draw,
    Drawn,
    Engine,
    Failed,
    Item,
    Link,
    PhaseBegan,
    Pictured,
    Previewed,
    Quit,
    Resident,
    Setup,
    Stepped,
    Stopped,
)

STEP_SECONDS: Final = 0.004
DIRECTIVE: Final = re.compile(r"\[\[([a-z-]+)(?:=([0-9.]+))?\]\]")
#: The pattern has so many cells a side.
CELLS: Final = 8
PREVIEW_SIDE: Final = 32
#: What shapes the picture; everything else of a request is about delivery.
SHAPING: Final = (
    "prompt",
    "negative_prompt",
    "width",
    "height",
    "steps",
    "guidance_scale",
    "scheduler",
    "schedule_type",
)


class _Stop(Exception):
    """The item was cancelled."""


class _Trouble(Exception):
    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def directives(prompt: str) -> dict[str, float]:
    """Return the directives of a prompt with their figures (0 where none is given)."""
    return {name: float(figure or 0) for name, figure in DIRECTIVE.findall(prompt)}


def pattern(
    entry: ModelEntry, parameters: JobParameters, seed: int, size: tuple[int, int], blend: float = 1.0
) -> bytes:
    """Return RGB bytes of a picture of this width and height; a smaller `blend` is nearer to grey."""
    width, height = size
    shape = [getattr(parameters, name) for name in SHAPING]
    digest = hashlib.sha256(repr((entry.model_key, shape, seed)).encode()).digest()
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


class FakeEngine:
    """Draw patterns, one item after another."""

    def __init__(self, setup: Setup) -> None:
        self._memory = setup.memory_bytes
        self._models: OrderedDict[str, int] = OrderedDict()
        self._loads = 0
        self._backlog: deque[Item] = deque()
        self._quitting = False

    def run(self, link: Link) -> None:
        """Serve commands until `Quit`."""
        while not (self._quitting and not self._backlog):
            self._hear(link, None if not self._backlog else 0)
            if self._backlog:
                self._serve(link, self._backlog.popleft())

    def _hear(self, link: Link, timeout: float | None, drawing: Item | None = None) -> None:
        """Take in what was commanded; raise _Stop when the item being drawn is to be stopped."""
        command = link.receive(timeout)
        while command is not None:
            if isinstance(command, Draw):
                self._backlog.extend(command.items)
            elif isinstance(command, Cancel):
                if drawing is not None and (drawing.job, drawing.epoch) == (command.job, command.epoch):
                    raise _Stop
                self._forget(link, command)
            elif isinstance(command, Quit):
                self._quitting = True
            command = link.receive(0)

    def _forget(self, link: Link, command: Cancel) -> None:
        for item in list(self._backlog):
            if (item.job, item.epoch) == (command.job, command.epoch):
                self._backlog.remove(item)
                link.send(Stopped(item.job, item.epoch))

    def _serve(self, link: Link, item: Item) -> None:
        began = time.monotonic()
        try:
            for _ in self._draw(link, item):
                self._hear(link, 0, item)
        except _Stop:
            link.send(Stopped(item.job, item.epoch))
        except _Trouble as trouble:
            link.send(Failed(item.job, item.epoch, trouble.code, str(trouble)))
        else:
            link.send(Drawn(item.job, item.epoch, time.monotonic() - began))

    def _draw(self, link: Link, item: Item) -> Iterator[None]:
        """Yield wherever a cancel may be heard."""
        asked = directives(item.parameters.prompt)
        self._load(link, item, asked)
        yield
        link.send(PhaseBegan(item.job, item.epoch, "encode"))
        parameters = item.parameters
        steps = parameters.steps * parameters.num_images
        link.send(PhaseBegan(item.job, item.epoch, "step"))
        for index in range(parameters.num_images):
            for step in range(1, parameters.steps + 1):
                self._step(link, item, asked, index, step)
                link.send(Stepped(item.job, item.epoch, index * parameters.steps + step, steps, index))
                yield
            link.send(PhaseBegan(item.job, item.epoch, "decode"))
            time.sleep(asked.get("decode", 0.0))
            yield
            seed = image_seed(parameters, index)
            rgb = pattern(item.entry, parameters, seed, (parameters.width, parameters.height))
            link.send(Pictured(item.job, item.epoch, index, seed, parameters.width, parameters.height, rgb))
            if index + 1 < parameters.num_images:
                link.send(PhaseBegan(item.job, item.epoch, "step"))

    def _load(self, link: Link, item: Item, asked: dict[str, float]) -> None:
        link.send(PhaseBegan(item.job, item.epoch, "load"))
        key = item.entry.model_key
        if key in self._models:
            self._models.move_to_end(key)
            return
        if "load-hang" in asked:
            _hang()
        time.sleep(asked.get("load", 0.0))
        while self._models and sum(self._models.values()) + item.entry.bytes > self._memory:
            self._models.popitem(last=False)
        self._models[key] = item.entry.bytes
        self._loads += 1
        link.send(Resident(tuple(self._models), self._loads, sum(self._models.values())))

    def _step(self, link: Link, item: Item, asked: dict[str, float], index: int, step: int) -> None:
        parameters = item.parameters
        time.sleep(asked.get("step", STEP_SECONDS))
        if step == (parameters.steps + 1) // 2:
            _misbehave(asked)
        if parameters.preview_every and step % parameters.preview_every == 0:
            side = PREVIEW_SIDE
            rgb = pattern(item.entry, parameters, image_seed(parameters, index), (side, side), step / parameters.steps)
            link.send(Previewed(item.job, item.epoch, step, index, side, side, rgb))


def _misbehave(asked: dict[str, float]) -> None:
    if "oom" in asked:
        raise _Trouble("out_of_memory", "The device has too little memory for this job (as asked for).")
    if "raise" in asked:
        raise _Trouble("drawing_failed", "The engine raised an error (as asked for).")
    if "invalid" in asked:
        raise _Trouble("picture_invalid", "The picture is not a number (as asked for).")
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
