"""The engine that draws with torch: models stay loaded while memory allows; which of them leave, `workers.residency` says.

It counts weights by what they weigh, not what an allocator reports, and what several models have in common once; activations by the
family's facts. What jobs add to a model (LoRAs, ControlNets, upscalers) leaves before a model does: it is smaller, so it is sooner back,
and without a model it is of no use.
"""

import gc
import itertools
import os
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from typing import Any, Final, Protocol

import torch

from jobs.contract import AnalyseParameters, PreprocessParameters, UpscaleParameters
from jobs.errors import DrawingFailed, OutOfMemory
from jobs.fleet import HeldComponent, Ledger
from jobs.geometry import picture_count, steps_per_picture, total_steps
from jobs.inputs import Inputs
from jobs.memory import memory_of
from jobs.needs import needs_of
from models_registry.entries import Component, Kind, ModelEntry
from models_registry.memory import HALF_PRECISION_BYTES, weights_memory
from pipelines.analysis.analyser import analyse
from pipelines.components import Numbers, storages
from pipelines.engine.engine import Counters, StepReport
from pipelines.engine.state import State
from pipelines.families.base import Family
from pipelines.loaders import LOADERS
from pipelines.loading import default_dtype, load
from pipelines.pictures import Picture
from pipelines.precision import held_at
from pipelines.preprocessing.drawer import PreprocessDrawer
from pipelines.shelf import Shelf
from pipelines.upscaling.drawer import UpscaleDrawer
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
from workers.residency import Residency

#: The share of a device's memory that models and pictures may fill; the rest is the driver's and the allocator's.
BUDGET: Final = 0.9
#: Exit status after an error from which the device's context does not recover: only a new process can draw again.
CONTEXT_LOST: Final = 86
#: Layers of a LoRA that are looked at between two signs of life.
_LAYERS_AT_ONCE: Final = 32
#: Kinds on the shelf whose warmth counts.
_SERVES_ALONE: Final = frozenset({Kind.UPSCALER, Kind.PREPROCESSOR})


class Drawer(Protocol):
    """What draws one task; a `Family` draws with its checkpoint."""

    def prepare(self, parameters: Any, index: int, inputs: Inputs, /) -> State:
        """Start picture `index` of a job; return it before its next step."""
        ...

    def step(self, states: Sequence[State], /) -> StepReport:
        """Take each state through one step."""
        ...

    def finish(self, states: Sequence[State], /) -> list[Picture]:
        """Return the pictures of states past their last step."""
        ...


class LocalEngine(OneAfterAnother):
    """Draw with diffusers on one device."""

    def __init__(self, setup: Setup) -> None:
        super().__init__()
        self._device = torch.device(setup.device)
        self._budget = int(setup.memory_bytes * BUDGET)
        #: Bytes per parameter over half precision: CPUs draw at full precision.
        self._weight = 2 if self._device.type == "cpu" else 1
        self._counters = Counters()
        #: What jobs add to models, lent to all of them.
        self._shelf = Shelf(LOADERS, self._device, default_dtype(self._device), self._counters)
        #: By model key.
        self._families: Residency[Family] = Residency(Family.close)

    def draw(self, link: Link, item: Item) -> Generator[None]:
        """Draw an item's pictures one after another."""
        if isinstance(item.parameters, AnalyseParameters):
            yield from self._analyse(link, item, item.parameters)
            return
        drawer = self._drawer(link, item)
        yield
        for index in range(picture_count(item.parameters)):
            link.send(PhaseBegan(item.job, item.epoch, "encode"))
            state = self._prepare(link, item, drawer, index)
            try:
                link.send(PhaseBegan(item.job, item.epoch, "step"))
                yield
                while state.phase == "denoise":
                    self._step(link, item, drawer, state)
                    yield
                if state.total == 0:
                    # Nothing was to be drawn, and that is done.
                    self._tell_steps(link, item, state, steps_per_picture(item.parameters))
                link.send(PhaseBegan(item.job, item.epoch, "decode"))
                self._picture(link, item, drawer, state)
            finally:
                state.close()
            yield

    def recover(self) -> None:
        """Give memory back; end the process when the device's context is broken."""
        gc.collect()
        if self._device.type == "cuda":
            try:
                torch.cuda.synchronize()
                torch.cuda.empty_cache()
            except RuntimeError:
                # A sticky error: every later call would fail as well. The agent starts a new engine.
                os._exit(CONTEXT_LOST)
        elif self._device.type == "mps":
            torch.mps.empty_cache()

    def _analyse(self, link: Link, item: Item, parameters: AnalyseParameters) -> Generator[None]:
        """Look at models, and report what was found in place of pictures."""
        family = self._family(link, item) if parameters.subject == "text" else None
        if family is None:
            self._begin_loading(link, item)
        yield
        steps = total_steps(parameters)
        link.send(PhaseBegan(item.job, item.epoch, "step"))
        work = analyse(
            parameters, item.inputs, lambda done: link.send(Stepped(item.job, item.epoch, done, steps, 0)), family
        )
        try:
            for looked in itertools.count(1):
                next(work)
                if looked % _LAYERS_AT_ONCE == 0:
                    link.send(PhaseBegan(item.job, item.epoch, "step"))
                yield
        except StopIteration as end:
            link.send(Analysed(item.job, item.epoch, end.value))

    def _drawer(self, link: Link, item: Item) -> Drawer:
        """Return what draws the item's task, its model loaded."""
        match item.parameters:
            case UpscaleParameters(refine=None):
                self._begin_loading(link, item)
                return UpscaleDrawer(self._shelf.take, self._counters)
            case UpscaleParameters():
                return UpscaleDrawer(self._shelf.take, self._counters, self._family(link, item))
            case PreprocessParameters():
                self._begin_loading(link, item)
                return PreprocessDrawer(self._shelf.take, self._counters)
            case _:
                return self._family(link, item)

    def _prepare(self, link: Link, item: Item, drawer: Drawer, index: int) -> State:
        """Start a picture; what its job adds to the model is loaded here."""
        held = self._shelf.bytes
        try:
            return drawer.prepare(item.parameters, index, item.inputs)
        except OutOfMemory:
            if not self._evict_others(link, item):
                raise
        finally:
            if self._shelf.bytes != held:
                self._tell(link)
        # Behind the `except`, what the failed attempt held is gone.
        return drawer.prepare(item.parameters, index, item.inputs)

    def _step(self, link: Link, item: Item, drawer: Drawer, state: State) -> None:
        before = state.step
        failure = drawer.step([state]).errors.get(state)
        if failure is not None:
            # A call that ran out of memory left the state where it was: with other models gone it may fit.
            if isinstance(failure, OutOfMemory) and state.failure is None and self._evict_others(link, item):
                return
            raise failure
        if state.step == before:
            # Half of a step of a second-order scheduler: that is progress too.
            link.send(PhaseBegan(item.job, item.epoch, "step"))
            return
        self._tell_steps(link, item, state, state.step)
        every = item.parameters.preview_every
        if every and state.step % every == 0:
            self._preview(link, item, state)

    def _tell_steps(self, link: Link, item: Item, state: State, step: int) -> None:
        each = steps_per_picture(item.parameters)
        done = state.index * each + min(step, each)
        link.send(Stepped(item.job, item.epoch, done, each * picture_count(item.parameters), state.index))

    def _preview(self, link: Link, item: Item, state: State) -> None:
        pixels = state.preview()
        if pixels is not None:
            height, width, _ = pixels.shape
            link.send(Previewed(item.job, item.epoch, state.step, state.index, width, height, pixels.tobytes()))

    def _picture(self, link: Link, item: Item, drawer: Drawer, state: State) -> None:
        pictures: list[Picture] = []
        try:
            pictures = drawer.finish([state])
        except OutOfMemory:
            if not self._evict_others(link, item):
                raise
        for picture in pictures or drawer.finish([state]):
            height, width, _ = picture.array.shape
            rgb = picture.array.tobytes()
            link.send(Pictured(item.job, item.epoch, picture.index, picture.seed, width, height, rgb))

    # -- what is loaded ------------------------------------------------------------------------------------------------

    def _begin_loading(self, link: Link, item: Item) -> None:
        """Enter the phase and drop what is in the way."""
        link.send(PhaseBegan(item.job, item.epoch, "load"))
        if self._make_room(item):
            self._tell(link)

    def _family(self, link: Link, item: Item) -> Family:
        """Return the item's model, loading it if need be."""
        entry = item.entry
        if entry is None:
            raise DrawingFailed(f"a job of the task {item.parameters.task} names no model")
        link.send(PhaseBegan(item.job, item.epoch, "load"))
        key = entry.model_key
        # Held until the model is loaded, so that it finds what it has in common with one that leaves for it.
        common = self._common(item)
        changed = self._make_room(item)
        if key not in self._families:
            self._load(link, entry)
            changed = True
        del common
        family = self._families.take(key)
        if changed:
            self._tell(link)
        return family

    def _load(self, link: Link, entry: ModelEntry) -> None:
        try:
            self._read(entry)
        except OutOfMemory:
            if not self._families.keys and not self._shelf.bytes:
                raise
        else:
            return
        # The estimate was too low; behind the `except`, what was loaded of it is gone.
        self._shelf.clear()
        self._families.clear()
        self._tell(link)
        self._give_back()
        self._read(entry)

    def _read(self, entry: ModelEntry) -> None:
        began = time.monotonic()
        family = load(entry, self._device, counters=self._counters, shelf=self._shelf)
        self._families.put(entry.model_key, family, storages(*family.parts.values()), time.monotonic() - began)

    def _make_room(self, item: Item) -> bool:
        """Drop what the item does not need until it fits: first from the shelf, then models; return whether some left."""
        allowed = max(0, self._budget - self._wanted(item))
        own = None if item.entry is None else item.entry.model_key
        pinned = storages(*self._common(item).values())
        left = self._shelf.shrink(allowed, _needed(item), {**self._families.weights, **pinned})
        if self._families.shrink(allowed, own, {**self._shelf.weights, **pinned}):
            left = True
        if left:
            self._give_back()
        return left

    def _common(self, item: Item) -> Mapping[Numbers, torch.nn.Module]:
        """Return what is loaded of the item's checkpoints: of themselves, or of others that have the same."""
        checkpoints = [each for each in item.inputs.models.values() if each.kind is Kind.CHECKPOINT]
        return self._shelf.components.held(
            {self._numbers(each, part) for each in checkpoints for part in each.components if part.digest}
        )

    def _numbers(self, entry: ModelEntry, part: Component) -> Numbers:
        return Numbers(part.digest, held_at(entry.family, part.name, {}, self._shelf.dtype))

    def _wanted(self, item: Item) -> int:
        """Return the bytes that the item needs beside what is loaded."""
        models = item.inputs.models
        on_shelf = {_content(each) for each in self._shelf.entries}
        entries = {_content(each): each for each in (models[need.ref] for need in needs_of(item.parameters))}
        whole = [each for key, each in entries.items() if key in on_shelf or each.model_key in self._families]
        here = sum(map(self._weigh, whole))
        common, counted = self._common(item), set[Numbers]()
        for entry in entries.values():
            if entry.kind is not Kind.CHECKPOINT or entry in whole:
                continue
            for part in entry.components:
                numbers = self._numbers(entry, part)
                if numbers in common or numbers in counted:
                    here += part.parameters * HALF_PRECISION_BYTES * self._weight
                elif part.digest:
                    counted.add(numbers)
        return max(0, memory_of(item.parameters, models) * self._weight - here)

    def _evict_others(self, link: Link, item: Item) -> bool:
        """Drop every model but the item's; return whether there was another one."""
        own = None if item.entry is None else item.entry.model_key
        left = self._families.clear(keep=own)
        if self._shelf.shrink(0, _needed(item)) or left:
            self._tell(link)
            self._give_back()
            return True
        return False

    def _give_back(self) -> None:
        gc.collect()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def _held(self) -> int:
        return sum({**self._shelf.weights, **self._families.weights}.values())

    def _weigh(self, entry: ModelEntry) -> int:
        return weights_memory(entry) * self._weight

    def _tell(self, link: Link) -> None:
        # What serves jobs of its own without a model.
        alone = [each.model_key for each in self._shelf.entries if each.kind in _SERVES_ALONE]
        link.send(Resident((*alone, *self._families.keys), self._counters.loads, self._held(), self._ledger()))

    def _ledger(self) -> Ledger:
        checkpoints: list[tuple[ModelEntry, Mapping[str, torch.nn.Module]]] = [
            (family.entry, family.parts) for family in self._families.models
        ]
        lent = []
        for each in self._shelf.held:
            if each.entry.kind is Kind.CHECKPOINT:
                checkpoints.append((each.entry, each.value.parts))
            else:
                lent.append(HeldComponent(kind=each.entry.kind, name=each.entry.name, bytes=each.bytes))
        counted = self._counters
        return Ledger(
            capacity_bytes=self._budget,
            components=(*_components(checkpoints), *lent),
            components_read=counted.components_read,
            components_shared=counted.components_shared,
            bytes_read=counted.bytes_read,
            bytes_copied=counted.bytes_copied,
        )


def _components(checkpoints: Sequence[tuple[ModelEntry, Mapping[str, torch.nn.Module]]]) -> Iterator[HeldComponent]:
    """Tell what checkpoints are made of, each storage once, under the name of the first that has it."""
    users: dict[int, list[str]] = {}
    for entry, parts in checkpoints:
        for address in storages(*parts.values()):
            users.setdefault(address, []).append(entry.name)
    for entry, parts in checkpoints:
        for name, part in parts.items():
            own = {address: size for address, size in storages(part).items() if address in users}
            # A checkpoint may be here twice: as the one that draws, and as one that refines.
            names = dict.fromkeys(user for address in own for user in users.pop(address))
            if own:
                yield HeldComponent(
                    kind=entry.kind,
                    name=entry.name,
                    component=name,
                    bytes=sum(own.values()),
                    shared_with=tuple(name for name in names if name != entry.name),
                )


def _content(entry: ModelEntry) -> tuple[Kind, str]:
    """Return what a `Shelf` knows a component by."""
    return entry.kind, entry.fingerprint


def _needed(item: Item) -> frozenset[tuple[Kind, str]]:
    return frozenset(map(_content, item.inputs.models.values()))


def build(setup: Setup) -> Engine:
    """Make the engine, raising where the device cannot be used at all."""
    if setup.threads is not None:
        torch.set_num_threads(setup.threads)
    # Workers that share a host must not each take every core for work between operations.
    torch.set_num_interop_threads(1)
    device = torch.device(setup.device)
    try:
        # Opens the device's context now, not in the first job.
        torch.zeros(1, device=device)
    except RuntimeError as problem:
        raise DrawingFailed(f"the device {setup.device_name} cannot be used: {problem}") from problem
    return LocalEngine(setup)
