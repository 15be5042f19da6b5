"""What a job's parameters refer to, at hand: the models it names and the pictures it was sent; pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from jobs.contract import JobParameters
from jobs.errors import ModelMissing, PictureUnreadable
from jobs.needs import main_need
from models_registry.entries import Kind, ModelEntry, ModelRef


@dataclass(frozen=True)
class Inputs:
    """Hold catalogue entries by what names them, and picture files by `upload:<sha256>`."""

    # Plain dictionaries: they travel to the engine's process.
    models: Mapping[ModelRef, ModelEntry] = field(default_factory=dict)
    #: Encoded as they were sent: PNG, JPEG, WebP.
    pictures: Mapping[str, bytes] = field(default_factory=dict, repr=False)

    def model(self, kind: Kind, name: str) -> ModelEntry:
        """Return an entry, raising `ModelMissing` when it was not handed over."""
        entry = self.models.get(ModelRef(kind, name))
        if entry is None:
            raise ModelMissing(f"the {kind} {name!r} is not where it was")
        return entry

    def picture(self, ref: str) -> bytes:
        """Return a picture's file, raising `PictureUnreadable` when it was not handed over."""
        data = self.pictures.get(ref)
        if data is None:
            raise PictureUnreadable(f"the picture {ref} was not handed over")
        return data

    def main(self, parameters: JobParameters) -> ModelEntry | None:
        """Return the model whose warmth counts, raising `ModelMissing` when it was not handed over; None where none is needed."""
        need = main_need(parameters)
        return None if need is None else self.model(*need.ref)


NO_INPUTS = Inputs()
