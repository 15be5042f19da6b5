"""Which folders are looked through for models."""

import importlib.util
import os
from pathlib import Path

from infra.settings import Settings


def model_folders(settings: Settings) -> list[Path]:
    """Return the folders whose models the fleet offers: the owner's, the home folder's, and the reference models."""
    given = [Path(folder) for folder in settings.models.split(os.pathsep) if folder]
    own = settings.home.absolute() / "models"
    return [*given, *(folder for folder in (own, *_reference_models()) if folder.is_dir())]


def _reference_models() -> list[Path]:
    # Not imported: it is found wherever it is installed, and may be left out.
    spec = importlib.util.find_spec("reference_models")
    return [Path(place) for place in (spec.submodule_search_locations or ())] if spec else []
