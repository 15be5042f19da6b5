"""Read what a model's author recommends, from the optional `imagefleet.json` in its folder."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from models_registry.families import VariantFacts
from models_registry.reading.bounded_files import Reads
from models_registry.reading.configs import read_config
from models_registry.refusals import ConfigInvalid
from models_registry.schedulers import SchedulerNameError, find_scheduler

FILE = "imagefleet.json"


class Recommendations(BaseModel):
    """Say how to draw with one model; what is left out comes from its family."""

    # Other keys are a newer version's, or the author's own notes.
    model_config = ConfigDict(frozen=True, strict=True, extra="ignore", allow_inf_nan=False)

    #: Which of its family's variants the model is, where neither weights nor configurations tell.
    variant: str | None = Field(default=None, min_length=1, max_length=50)
    steps: int | None = Field(default=None, ge=1, le=200)
    guidance_scale: float | None = Field(default=None, ge=0, le=100)
    scheduler: str | None = Field(default=None, min_length=1, max_length=200)


def read_recommendations(folder: Path, reads: Reads) -> Recommendations:
    """Return a folder's recommendations, empty where it has none, raising `ConfigInvalid` when they cannot be read."""
    path = folder / FILE
    if not path.exists():
        return Recommendations()
    try:
        return Recommendations.model_validate(read_config(path, reads).values)
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigInvalid(
            path, f"recommends an impossible {'.'.join(map(str, first['loc']))}: {first['msg']}"
        ) from None


def check_scheduler(folder: Path, hints: Recommendations, variant: VariantFacts) -> None:
    """Raise `ConfigInvalid` when a folder recommends a scheduler that is unknown or that its model cannot use."""
    if hints.scheduler is None:
        return
    try:
        find_scheduler(hints.scheduler, prediction=variant.prediction)
    except SchedulerNameError as error:
        raise ConfigInvalid(
            folder / FILE, f"recommends a scheduler that {variant.title} cannot use: {error.message}"
        ) from None
