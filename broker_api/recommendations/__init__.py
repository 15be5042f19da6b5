"""Recommend entries of the library, and say why."""
