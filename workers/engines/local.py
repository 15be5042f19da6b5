"""The engine that draws with torch: models stay loaded while memory allows, the least recently used leaves first.

It counts weights by what they weigh, not what an allocator reports; activations by the family's facts.
"""

import gc
import os
from collections import OrderedDict
from collections.abc import Generator
from typing import Final

import torch

from jobs.contract import DiffusionParameters
from jobs.errors import DrawingFailed, OutOfMemory
from jobs.geometry import picture_count, steps_per_picture
from models_registry.entries import ModelEntry
from models_registry.memory import needs_memory, weights_memory
from pipelines.engine.engine import Counters
from pipelines.engine.state import State
from pipelines.families.base import Family
from pipelines.loading import load
from pipelines.pictures import Picture
from workers.engines.interface import (
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

#: The share of a device's memory that models and pictures may fill; the rest is the driver's and the allocator's.
BUDGET: Final = 0.9
#: Exit status after an error from which the device's context does not recover: only a new process can draw again.
CONTEXT_LOST: Final = 86


class LocalEngine(OneAfterAnother):
    """Draw with diffusers on one device."""

    def __init__(self, setup: Setup) -> None:
        super().__init__()
        self._device = torch.device(setup.device)
        self._budget = int(setup.memory_bytes * BUDGET)
        #: Bytes per parameter over half precision: CPUs draw at full precision.
        self._weight = 2 if self._device.type == "cpu" else 1
        self._counters = Counters()
        #: By model key, the most recently used last.
        self._families: OrderedDict[str, Family] = OrderedDict()

    def draw(self, link: Link, item: Item) -> Generator[None]:
        """Draw an item's pictures one after another."""
        parameters = item.parameters
        entry = item.entry
        if entry is None or not isinstance(parameters, DiffusionParameters):
            raise DrawingFailed(f"this engine draws no {parameters.task}")
        family = self._family(link, item, entry)
        yield
        for index in range(picture_count(parameters)):
            link.send(PhaseBegan(item.job, item.epoch, "encode"))
            state = family.prepare(parameters, index, item.inputs)
            try:
                link.send(PhaseBegan(item.job, item.epoch, "step"))
                yield
                while state.phase == "denoise":
                    self._step(link, item, family, state)
                    yield
                link.send(PhaseBegan(item.job, item.epoch, "decode"))
                self._picture(link, item, family, state)
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

    def _step(self, link: Link, item: Item, family: Family, state: State) -> None:
        before = state.step
        failure = family.step([state]).errors.get(state)
        if failure is not None:
            # A call that ran out of memory left the state where it was: with other models gone it may fit.
            if isinstance(failure, OutOfMemory) and state.failure is None and self._evict_others(link, item):
                return
            raise failure
        if state.step == before:
            # Half of a step of a second-order scheduler: that is progress too.
            link.send(PhaseBegan(item.job, item.epoch, "step"))
            return
        parameters = item.parameters
        each = steps_per_picture(parameters)
        done = state.index * each + min(state.step, each)
        link.send(Stepped(item.job, item.epoch, done, each * picture_count(parameters), state.index))
        if parameters.preview_every and state.step % parameters.preview_every == 0:
            self._preview(link, item, state)

    def _preview(self, link: Link, item: Item, state: State) -> None:
        pixels = state.preview()
        if pixels is not None:
            height, width, _ = pixels.shape
            link.send(Previewed(item.job, item.epoch, state.step, state.index, width, height, pixels.tobytes()))

    def _picture(self, link: Link, item: Item, family: Family, state: State) -> None:
        pictures: list[Picture] = []
        try:
            pictures = family.finish([state])
        except OutOfMemory:
            if not self._evict_others(link, item):
                raise
        for picture in pictures or family.finish([state]):
            height, width, _ = picture.array.shape
            rgb = picture.array.tobytes()
            link.send(Pictured(item.job, item.epoch, picture.index, picture.seed, width, height, rgb))

    # -- what is loaded ------------------------------------------------------------------------------------------------

    def _family(self, link: Link, item: Item, entry: ModelEntry) -> Family:
        """Return the item's model, loading it if need be."""
        link.send(PhaseBegan(item.job, item.epoch, "load"))
        key = entry.model_key
        if key not in self._families:
            self._make_room(item, entry)
            self._families[key] = self._load(link, entry)
            self._tell(link)
        self._families.move_to_end(key)
        return self._families[key]

    def _load(self, link: Link, entry: ModelEntry) -> Family:
        try:
            return load(entry, self._device, counters=self._counters)
        except OutOfMemory:
            if not self._families:
                raise
        # The estimate was too low; behind the `except`, what was loaded of it is gone.
        while self._families:
            self._evict_oldest()
        self._tell(link)
        self._give_back()
        return load(entry, self._device, counters=self._counters)

    def _make_room(self, item: Item, entry: ModelEntry) -> None:
        parameters = item.parameters
        wanted = needs_memory(entry, parameters.width, parameters.height) * self._weight
        evicted = False
        while self._families and self._held() + wanted > self._budget:
            self._evict_oldest()
            evicted = True
        if evicted:
            self._give_back()

    def _evict_others(self, link: Link, item: Item) -> bool:
        """Drop every model but the item's; return whether there was another one."""
        own = None if item.entry is None else item.entry.model_key
        others = [key for key in self._families if key != own]
        for key in others:
            self._families.pop(key).close()
        if others:
            self._tell(link)
            self._give_back()
        return bool(others)

    def _evict_oldest(self) -> None:
        _, family = self._families.popitem(last=False)
        family.close()

    def _give_back(self) -> None:
        gc.collect()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def _held(self) -> int:
        return sum(weights_memory(family.entry) * self._weight for family in self._families.values())

    def _tell(self, link: Link) -> None:
        link.send(Resident(tuple(self._families), self._counters.loads, self._held()))


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
