"""Decide whether a job can be done at all, and fill in every default: a job that is stored is one that can be drawn. Pure."""
