"""What went wrong, in the words of `jobs.errors`. It does not judge: whether to retry is the worker's business."""

import traceback
from collections.abc import Callable
from typing import TypeVar

import torch

from jobs.errors import DrawingFailed, JobFailure, OutOfMemory

#: Allocators without an exception class of their own say it in these words.
_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "cannot allocate memory", "_alloc_failed")


Answer = TypeVar("Answer")


def attempt(call: Callable[[], Answer]) -> Answer:
    """Return what `call` returns; whatever it raises is raised as the failure that names it."""
    failure: JobFailure
    try:
        return call()
    # Every library raises its own kind.
    except Exception as error:  # noqa: BLE001
        failure = as_failure(error)
    # Outside the except block, or the failure would hold the error, and with it the tensors of its frames.
    raise failure


def as_failure(error: BaseException) -> JobFailure:
    """Return the failure that names `error`; it keeps the traceback as text, so that the tensors of its frames go free.

    Raise the failure outside the `except` block, or it holds `error` as its context.
    """
    if isinstance(error, JobFailure):
        return error
    text = str(error)
    if isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and any(words in text.casefold() for words in _OUT_OF_MEMORY)
    ):
        failure: JobFailure = OutOfMemory("the device has too little memory for this picture")
    else:
        failure = DrawingFailed(f"{type(error).__name__}: {text.splitlines()[0][:500] if text else 'no message'}")
    failure.add_note("".join(traceback.format_exception(error)))
    return failure
