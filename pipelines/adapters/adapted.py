"""What the adapters of one job come to: the prompt's embeddings, the components in place of the model's own, and the context of its calls.

Every task's plan takes it as it is; how a task draws is not known here.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch

from jobs.contract import DiffusionParameters
from jobs.inputs import Inputs
from models_registry.entries import Kind
from pipelines.adapters.embedding import Embedding
from pipelines.adapters.host import Host, Stack, Weighted
from pipelines.adapters.vae import check_serves
from pipelines.prompts import prompt_embeddings
from pipelines.shelf import Shelf


class Adapted(NamedTuple):
    """The three parts of a `Plan` that adapters decide."""

    #: `prompt_embeds` and, under guidance, `negative_prompt_embeds`.
    embeddings: Mapping[str, torch.Tensor]
    #: For `Plan.components`.
    components: Mapping[str, Any]
    #: For `Plan.applied`.
    applied: Callable[[], AbstractContextManager[object]]


class Adapters:
    """The adapters of one loaded Stable Diffusion 1.x model; one thread uses it."""

    def __init__(self, pipe: Any, shelf: Shelf) -> None:
        self._pipe = pipe
        self._shelf = shelf
        # Made when the first LoRA comes: a model that never sees one is left as it was read.
        self._hosts: tuple[Host, Host] | None = None

    def adapt(self, parameters: DiffusionParameters, inputs: Inputs) -> Adapted:
        """Return what a job's LoRAs, embeddings, VAE and prompts come to; call it under `no_grad`.

        Raises `ModelMissing`, `ModelDamaged` (also for what was made for another model), `OutOfMemory` or `DrawingFailed`.
        """
        reading, applied = self._stacks(parameters, inputs)
        with reading():
            embeddings = prompt_embeddings(
                self._pipe,
                parameters.prompt,
                # As diffusers decides whether there is guidance.
                parameters.negative_prompt if parameters.guidance_scale > 1 else None,
                words=self._words(parameters, inputs),
                clip_skip=parameters.clip_skip,
            )
        return Adapted(embeddings, self._components(parameters, inputs), applied)

    def close(self) -> None:
        """Leave the model as it was read, and let go of it; again is harmless."""
        for host in self._hosts or ():
            host.close()
        self._hosts = None
        self._pipe = None

    def _stacks(
        self, parameters: DiffusionParameters, inputs: Inputs
    ) -> tuple[Callable[[], AbstractContextManager[object]], Callable[[], AbstractContextManager[object]]]:
        """Return the contexts of the text encoder's calls and of everything else's."""
        if not parameters.loras:
            return nullcontext, nullcontext
        if self._hosts is None:
            self._hosts = (Host("text_encoder", self._pipe.text_encoder), Host("unet", self._pipe.unet))
        text, unet = self._hosts
        for_text, for_unet = [], []
        for asked in parameters.loras:
            lora = self._shelf.take(inputs.model(Kind.LORA, asked.name))
            # Both parts, whatever they weigh: a LoRA of another model is refused whole.
            text.check(lora)
            unet.check(lora)
            for_unet.append(Weighted(lora, asked.weight))
            weight = asked.weight if asked.text_encoder_weight is None else asked.text_encoder_weight
            for_text.append(Weighted(lora, weight))
        stacks: tuple[Stack, Stack] = (text.stack(for_text), unet.stack(for_unet))
        return text.applied(stacks[0]), unet.applied(stacks[1])

    def _words(self, parameters: DiffusionParameters, inputs: Inputs) -> Mapping[str, Embedding]:
        words: dict[str, Embedding] = {}
        for name in parameters.embeddings:
            entry = inputs.model(Kind.EMBEDDING, name)
            embedding = self._shelf.take(entry)
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
