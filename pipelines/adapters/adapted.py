"""What the adapters of one job come to: the prompt's embeddings, the components in place of the model's own, and the context of its calls.

Every task's plan takes it as it is; how a task draws, and how a family reads prompts, is not known here.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any, NamedTuple

from jobs.contract import DiffusionParameters
from jobs.errors import ModelDamaged
from jobs.inputs import Inputs
from models_registry.entries import Kind
from pipelines.adapters.embedding import Embedding
from pipelines.adapters.host import Host, Weighted
from pipelines.adapters.keys import TEXT_COMPONENTS, Component
from pipelines.adapters.lora import Lora
from pipelines.adapters.vae import check_serves
from pipelines.prompts import Words
from pipelines.shelf import Shelf

#: How to enter the time in which something is added to calls.
Applied = Callable[[], AbstractContextManager[object]]


class Adapted(NamedTuple):
    """The three parts of a `Plan` that adapters decide."""

    #: What the family made of the prompts: arguments of its pipelines.
    embeddings: Mapping[str, Any]
    #: For `Plan.components`.
    components: Mapping[str, Any]
    #: For `Plan.applied`.
    applied: Applied


class Adapters:
    """The adapters of one loaded model; one thread uses it."""

    def __init__(self, pipe: Any, shelf: Shelf, hosted: Sequence[Component]) -> None:
        self._pipe = pipe
        self._shelf = shelf
        #: Components of the family that can be added to, and those of them that this model has.
        self._known = frozenset(hosted)
        self._hosted = tuple(name for name in hosted if getattr(pipe, name, None) is not None)
        # Made when the first LoRA comes: a model that never sees one is left as it was read.
        self._hosts: dict[Component, Host] = {}

    def adapt(
        self, parameters: DiffusionParameters, inputs: Inputs, encode: Callable[[Words], Mapping[str, Any]]
    ) -> Adapted:
        """Return what a job's LoRAs, embeddings, VAE and prompts come to; call it under `no_grad`.

        `encode` reads the prompts with the job's embeddings as words; the text encoders have their LoRAs meanwhile. Raises `ModelMissing`,
        `ModelDamaged` (also for what was made for another model), `OutOfMemory` or `DrawingFailed`.
        """
        reading, applied = self._stacks(parameters, inputs)
        with reading():
            embeddings = encode(self.words(parameters, inputs))
        return Adapted(embeddings, self._components(parameters, inputs), applied)

    def close(self) -> None:
        """Leave the model as it was read, and let go of it; again is harmless."""
        for host in self._hosts.values():
            host.close()
        self._hosts = {}
        self._pipe = None

    def _stacks(self, parameters: DiffusionParameters, inputs: Inputs) -> tuple[Applied, Applied]:
        """Return the contexts of the text encoders' calls and of everything else's."""
        if not parameters.loras:
            return nullcontext, nullcontext
        if not self._hosts:
            self._hosts = {name: Host(name, getattr(self._pipe, name)) for name in self._hosted}
        loras = [self._shelf.take(inputs.model(Kind.LORA, asked.name)) for asked in parameters.loras]
        for lora in loras:
            # All parts, whatever they weigh: a LoRA of another model is refused whole.
            self._check(lora)
        for_text, for_others = [], []
        for asked, lora in zip(parameters.loras, loras, strict=True):
            for_others.append(Weighted(lora, asked.weight))
            weight = asked.weight if asked.text_encoder_weight is None else asked.text_encoder_weight
            for_text.append(Weighted(lora, weight))
        applied = {
            name: host.applied(host.stack(for_text if name in TEXT_COMPONENTS else for_others))
            for name, host in self._hosts.items()
        }
        return (
            _together([each for name, each in applied.items() if name in TEXT_COMPONENTS]),
            _together([each for name, each in applied.items() if name not in TEXT_COMPONENTS]),
        )

    def _check(self, lora: Lora) -> None:
        for component, layers in lora.deltas.items():
            if component not in self._hosts:
                key = next(iter(layers.values())).key
                raise ModelDamaged(f"{lora.path} was made for another model: {key} names no layer of this one")
            self._hosts[component].check(lora)

    def words(self, parameters: DiffusionParameters, inputs: Inputs) -> Words:
        """Return a job's embeddings by the words that stand for them, raising `ModelMissing` or `ModelDamaged`."""
        words: dict[str, Embedding] = {}
        for name in parameters.embeddings:
            entry = inputs.model(Kind.EMBEDDING, name)
            embedding = self._shelf.take(entry)
            if unknown := sorted(embedding.vectors.keys() - self._known):
                raise ModelDamaged(f"{entry.path} was made for another model: this one has no {unknown[0]}")
            # The name it is registered under holds over the one in its file, which may be anything.
            if embedding.word is not None:
                words.setdefault(embedding.word.casefold(), embedding)
            words[name.casefold()] = embedding
        return words

    def _components(self, parameters: DiffusionParameters, inputs: Inputs) -> Mapping[str, Any]:
        if parameters.vae is None:
            return {}
        entry = inputs.model(Kind.VAE, parameters.vae)
        vae = self._shelf.take(entry)
        check_serves(vae, self._pipe.vae, entry)
        return {"vae": vae}


def _together(applied: Sequence[Applied]) -> Applied:
    """Return how to enter several contexts at once."""

    @contextmanager
    def entered() -> Iterator[None]:
        with ExitStack() as stack:
            for each in applied:
                stack.enter_context(each())
            yield

    return entered
