"""Read what a model's author recommends, from the optional `imagefleet.json` in its folder."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from models_registry.bounded_files import Reads
from models_registry.configs import read_config
from models_registry.families import FamilyFacts
from models_registry.refusals import ConfigInvalid
from models_registry.schedulers import SCHEDULERS, SchedulerNameError, find_scheduler

FILE = "imagefleet.json"


class Recommendations(BaseModel):
    """Say how to draw with one model; what is left out comes from its family."""

    # Other keys are a newer version's, or the author's own notes.
    model_config = ConfigDict(frozen=True, strict=True, extra="ignore", allow_inf_nan=False)

    steps: int | None = Field(default=None, ge=1, le=200)
    guidance_scale: float | None = Field(default=None, ge=0, le=100)
    scheduler: str | None = Field(default=None, min_length=1, max_length=200)


def read_recommendations(folder: Path, family: FamilyFacts, reads: Reads) -> Recommendations:
    """Return a folder's recommendations, empty where it has none, raising `ConfigInvalid` when they cannot be followed."""
    path = folder / FILE
    if not path.exists():
        return Recommendations()
    try:
        hints = Recommendations.model_validate(read_config(path, reads).values)
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigInvalid(
            path, f"recommends an impossible {'.'.join(map(str, first['loc']))}: {first['msg']}"
        ) from None
    if hints.scheduler is not None:
        try:
            spec = find_scheduler(hints.scheduler)
        except SchedulerNameError as error:
            raise ConfigInvalid(path, f"recommends an unknown scheduler: {error.message}") from None
        if not any(each.prediction in SCHEDULERS[spec.name].predictions for each in family.variants.values()):
            raise ConfigInvalid(path, f"recommends {spec.label}, which {family.title} cannot use")
    return hints
