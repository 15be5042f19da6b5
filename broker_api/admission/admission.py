"""Admit a request: what it asks for exists, fits together and can be held by some worker."""

import hashlib
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from broker_api.admission.diffusion import resolve_diffusion
from broker_api.admission.enlarging import resolve_preprocess, resolve_upscale
from broker_api.admission.models import Models
from jobs.contract import (
    DiffusionRequest,
    JobParameters,
    JobRequest,
    PreprocessRequest,
    UpscaleRequest,
)
from jobs.fleet import Fleet
from jobs.geometry import steps_per_picture
from jobs.intake import NewJob
from jobs.memory import memory_of
from jobs.needs import main_need
from jobs.routing import route
from jobs.uploads import Upload
from models_registry.offers import Catalogue

#: A drawn seed has 32 bits, as A1111's have: JavaScript reads larger numbers inexactly.
DRAWN_SEEDS: Final = 2**32
#: Previews of a job whose request does not say how often.
PREVIEWS: Final = 8

_NO_PICTURES: Final[Mapping[str, Upload]] = MappingProxyType({})


def draw_seed() -> int:
    """Draw a seed."""
    return secrets.randbelow(DRAWN_SEEDS)


@dataclass(frozen=True)
class Admission:
    """Admit requests by what the models and the fleet can do."""

    catalogue: Catalogue
    fleet: Fleet
    max_pixels: int
    draw_seed: Callable[[], int] = draw_seed

    def admit(
        self,
        request: JobRequest,
        *,
        owner: str,
        pictures: Mapping[str, Upload] = _NO_PICTURES,
        idempotency_key: str | None = None,
    ) -> NewJob:
        """Return the job to store, raising a `RequestRefused` that names the field at fault.

        Every picture of the request is an upload, and `pictures` describes each by the field that names it.
        """
        parameters = self._with_previews(request, self._resolve(request, pictures))
        main = main_need(parameters)
        memory = memory_of(parameters, self.catalogue.entries)
        return NewJob(
            owner=owner,
            parameters=parameters,
            model_key=parameters.model if main is None else self.catalogue.entries[main.ref].model_key,
            needs_memory=memory,
            hardware=route(request.task, memory, request.hardware, self.fleet),
            idempotency_key=idempotency_key,
            request_hash=request_hash(request),
        )

    def _resolve(self, request: JobRequest, pictures: Mapping[str, Upload]) -> JobParameters:
        seed = self.draw_seed() if request.seed < 0 else request.seed
        models = Models(self.catalogue)
        match request:
            case UpscaleRequest():
                return resolve_upscale(request, pictures, seed, models, self.max_pixels)
            case PreprocessRequest():
                return resolve_preprocess(request, pictures, seed, models)
            case DiffusionRequest():
                return resolve_diffusion(request, pictures, seed, models, self.max_pixels)

    def _with_previews(self, request: JobRequest, parameters: JobParameters) -> JobParameters:
        # The one step of a preprocessor is the picture itself.
        if request.preview_every is not None or isinstance(request, PreprocessRequest):
            return parameters
        return parameters.model_copy(update={"preview_every": max(1, steps_per_picture(parameters) // PREVIEWS)})


def request_hash(request: JobRequest) -> str:
    """Return a digest that is equal for requests that ask for the same, however their JSON was written."""
    # As sent: a drawn seed or a changed default must not make a repeated request look like another one.
    return hashlib.sha256(request.model_dump_json(exclude_defaults=True).encode()).hexdigest()
