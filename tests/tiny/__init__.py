"""Checkpoints of every variant in miniature: the real architecture and files, random weights."""
