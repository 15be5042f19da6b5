"""Measure what adds to a model: one file per kind; tests hold the figures that the cards tell."""
