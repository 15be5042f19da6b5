"""Carry out one analysis, step by step, so that it can be stopped between two layers."""

from collections.abc import Callable, Generator

import torch

from jobs.analysing.findings import Comparison, Findings, Signature, TextVector, compared, text_digest
from jobs.contract import AnalyseParameters
from jobs.errors import DrawingFailed
from jobs.inputs import Inputs
from models_registry.entries import Kind
from pipelines.adapters.lora import Lora, load_lora
from pipelines.analysis.sketch import signature
from pipelines.analysis.texts import text_vector
from pipelines.analysis.updates import cosine
from pipelines.failures import attempt
from pipelines.families.base import Family

#: Tells how many of the job's steps are done.
Told = Callable[[int], None]


def analyse(
    parameters: AnalyseParameters, inputs: Inputs, told: Told, family: Family | None
) -> Generator[None, None, Findings]:
    """Return what was found; yields wherever it may be stopped. `family` is the model whose text encoder reads, where texts are read.

    Raises `ModelMissing`, `ModelDamaged` or `DrawingFailed`.
    """
    if parameters.subject == "weights":
        return Findings(signatures=(yield from _signatures(parameters, inputs, told)))
    if parameters.subject == "comparison":
        return Findings(comparisons=(yield from _comparisons(parameters, inputs, told)))
    if family is None:
        raise DrawingFailed("texts are read by a model, and there is none")
    return Findings(vectors=(yield from _vectors(parameters, family, told)))


def _load(inputs: Inputs, name: str) -> Lora:
    # On the CPU whatever the device: it is read once, and not all devices know double precision.
    entry = inputs.model(Kind.LORA, name)
    return attempt(lambda: load_lora(entry, torch.device("cpu"), torch.float32))


def _signatures(
    parameters: AnalyseParameters, inputs: Inputs, told: Told
) -> Generator[None, None, tuple[Signature, ...]]:
    found = []
    for done, name in enumerate(parameters.adapters):
        found.append((yield from signature(_load(inputs, name))))
        told(done + 1)
        yield
    return tuple(found)


def _comparisons(
    parameters: AnalyseParameters, inputs: Inputs, told: Told
) -> Generator[None, None, tuple[Comparison, ...]]:
    first, *others = parameters.adapters
    one = _load(inputs, first)
    told(1)
    yield
    found = []
    for done, name in enumerate(others):
        other = _load(inputs, name)
        alike = cosine(one, other)
        found.append(compared(one.fingerprint, other.fingerprint, alike.value, alike.layers))
        told(done + 2)
        yield
    return tuple(found)


def _vectors(
    parameters: AnalyseParameters, family: Family, told: Told
) -> Generator[None, None, tuple[TextVector, ...]]:
    found = []
    for done, text in enumerate(parameters.texts):
        vector = attempt(lambda text=text: text_vector(family.pipe, text))  # type: ignore[misc]
        found.append(TextVector(family.entry.fingerprint, text_digest(text), vector))
        told(done + 1)
        yield
    return tuple(found)
