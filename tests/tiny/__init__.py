"""Checkpoints of every variant in miniature: the real architecture and files, random weights."""

# Before diffusers: it mends what keeps torchvision from being imported beside a torch it was not compiled for.
import pipelines  # noqa: F401
