"""Look at a finished picture: what must be true of it whatever the model has learnt."""

import io

import numpy as np
from PIL import Image

from cli.verification.cases import Case, Pixels

#: Below this standard deviation a picture shows nothing.
FLAT = 2.0


def decoded(data: bytes) -> Pixels:
    """Return a picture's pixels (height x width x 3)."""
    with Image.open(io.BytesIO(data)) as picture:
        return np.asarray(picture.convert("RGB"))


def problem_of(case: Case, found: Pixels, before: Pixels | None) -> str | None:
    """Return what is wrong with a case's picture, None where nothing is; `before` is the picture it must differ from."""
    height, width = found.shape[:2]
    if (width, height) != case.size:
        return f"is {width} x {height} instead of {case.size[0]} x {case.size[1]}"
    if float(found.std()) < FLAT:
        return "is one flat colour"
    if before is not None and np.array_equal(found, before):
        return "is the same as without it"
    if case.kept is not None:
        picture, where = case.kept
        if not np.array_equal(found[where], picture[where]):
            return "changed outside of the mask"
    return None
