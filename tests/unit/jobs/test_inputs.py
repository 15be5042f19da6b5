"""What a job refers to, at hand."""

import pickle

import pytest

from jobs.errors import ModelMissing, PictureUnreadable
from jobs.inputs import NO_INPUTS, Inputs
from models_registry.entries import Kind


def test_inputs_travel_between_processes() -> None:
    """An agent sends them to its engine, with pictures and without."""
    for inputs in (NO_INPUTS, Inputs({}, {"upload:1": b"png"})):
        assert pickle.loads(pickle.dumps(inputs)) == inputs  # noqa: S301 - our own, from the line itself


def test_inputs_say_what_was_not_handed_over() -> None:
    """Each miss has its own code."""
    with pytest.raises(ModelMissing):
        NO_INPUTS.model(Kind.LORA, "frame")
    with pytest.raises(PictureUnreadable):
        NO_INPUTS.picture("upload:1")
