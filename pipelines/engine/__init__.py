"""Run any diffusers pipeline as a stream of steps."""
