"""Checkpoints in the layout Stable Diffusion was first published in: one file, names of its own."""
